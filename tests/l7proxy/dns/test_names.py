"""Learned names: how long their addresses are open, and to whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.dns.answers import Learned
from l7proxy.dns.names import Holding, NameOptions, Names, Sharing, Sweep, canonical_address

A1, A2, A3 = (bytes((192, 0, 2, n)) for n in (1, 2, 3))
NOBODY: dict[bytes, set[int]] = {}
API = "api.github.com."


def learned(*addresses: bytes, name: str = API, ttl: int = 30, targets: tuple[str, ...] = ()) -> Learned:
    return Learned(name, addresses, ttl, targets)


def test_a_learned_name_is_open_to_the_whole_node() -> None:
    names = Names()
    change = names.learn(1, learned(A1, A2), 100.0)
    assert [(h.address, h.expires) for h in change.opened] == [(A1, 130.0), (A2, 130.0)]
    assert names.addresses(API, 1) == names.addresses(API, 99) == (A1, A2)


def test_or_only_to_who_asked() -> None:
    names = Names(NameOptions(sharing=Sharing.ENDPOINT))
    names.learn(1, learned(A1), 100.0)
    assert names.addresses(API, 1) == (A1,)
    assert names.addresses(API, 2) == ()
    assert names.learn(2, learned(A1), 100.0).opened  # opens it for another one


def test_learning_again_renews_and_opens_what_is_new() -> None:
    names = Names()
    names.learn(1, learned(A1), 100.0)
    change = names.learn(2, learned(A1, A2), 110.0)
    assert [h.address for h in change.renewed] == [A1]
    assert [h.address for h in change.opened] == [A2]


def test_a_shorter_ttl_takes_nothing_away() -> None:
    names = Names()
    names.learn(1, learned(A1, ttl=300), 100.0)
    names.learn(1, learned(A1, ttl=5), 100.0)
    assert next(names.holdings()).expires == 400.0


def test_the_floor_of_ttls() -> None:
    names = Names(NameOptions(min_ttl=3600))
    assert names.learn(1, learned(A1, ttl=5), 100.0).opened[0].expires == 3700.0


def test_there_is_no_cap_on_the_addresses_of_a_name() -> None:
    """Object stores answer with hundreds; a cap of 50 denied names that policy allowed."""
    names = Names()
    addresses = [bytes((10, 1, n >> 8, n & 255)) for n in range(5000)]
    assert not names.learn(1, learned(*addresses), 100.0).refused
    assert len(names.addresses(API, 1)) == 5000


def test_targets_of_aliases_are_names_only_where_that_is_asked_for() -> None:
    chain = learned(A1, name="www.org.", targets=("a.cdn.net.", "b.cdn.net."))
    plain, with_targets = Names(), Names(NameOptions(targets=True))
    plain.learn(1, chain, 0.0)
    with_targets.learn(1, chain, 0.0)
    assert plain.addresses("b.cdn.net.", 1) == ()
    assert with_targets.addresses("b.cdn.net.", 1) == with_targets.addresses("www.org.", 1) == (A1,)


def test_an_ipv4_address_in_ipv6_clothes_is_the_ipv4_address() -> None:
    assert canonical_address(bytes(10) + b"\xff\xff" + A1) == A1
    assert canonical_address(bytes(15) + b"\1") == bytes(15) + b"\1"
    names = Names()
    names.learn(1, learned(A1, bytes(10) + b"\xff\xff" + A1), 0.0)
    assert names.addresses(API, 1) == (A1,)


class TestCollection:
    def test_an_expired_address_stays_until_a_sweep_finds_no_connection(self) -> None:
        names = Names()
        names.learn(1, learned(A1), 100.0)
        assert names.collect(Sweep(129.0, NOBODY)) == ()  # not expired
        assert names.collect(Sweep(130.0, NOBODY)) == ()  # expired, but no sweep since
        assert names.collect(Sweep(131.0, {A1: {7}})) == ()  # somebody is connected
        assert names.addresses(API, 1) == (A1,)
        gone = names.collect(Sweep(132.0, NOBODY))
        assert [(h.address, h.endpoint) for h in gone] == [(A1, 1)]
        assert len(names) == 0
        assert names.addresses(API, 1) == ()

    def test_one_live_address_keeps_all_of_its_name(self) -> None:
        names = Names()
        names.learn(1, learned(A1, A2), 0.0)
        names.learn(1, learned(A3, name="other.org."), 0.0)
        gone = names.collect(Sweep(100.0, {A1: {1}}))
        assert [h.address for h in gone] == [A3]
        assert [h.address for h in names.collect(Sweep(200.0, NOBODY))] == [A1, A2]

    def test_a_connection_of_another_endpoint_counts_only_where_names_are_shared(self) -> None:
        for sharing, kept in ((Sharing.NODE, 1), (Sharing.ENDPOINT, 0)):
            names = Names(NameOptions(sharing=sharing))
            names.learn(1, learned(A1), 0.0)
            names.collect(Sweep(100.0, {A1: {2}}))
            assert len(names) == kept, sharing

    def test_grace_after_the_last_connection(self) -> None:
        names = Names(NameOptions(idle_grace=60.0))
        names.learn(1, learned(A1), 0.0)
        names.collect(Sweep(100.0, {A1: {1}}))
        assert names.collect(Sweep(150.0, NOBODY)) == ()
        assert names.collect(Sweep(161.0, NOBODY))

    def test_what_was_learned_anew_is_not_collected(self) -> None:
        names = Names()
        names.learn(1, learned(A1), 0.0)
        names.learn(1, learned(A1), 99.0)
        assert names.collect(Sweep(100.0, NOBODY)) == ()

    def test_the_names_of_an_endpoint_that_is_gone_outlive_it_while_others_are_connected(self) -> None:
        names = Names()
        names.learn(1, learned(A1, ttl=9999), 0.0)
        names.forget(1, 50.0)
        assert names.collect(Sweep(60.0, {A1: {2}})) == ()
        assert names.collect(Sweep(70.0, NOBODY))


class TestBounds:
    def test_a_flood_of_names_is_refused_and_evicts_nothing(self) -> None:
        names = Names(NameOptions(per_endpoint=100, whole=150, reserved=10))
        names.learn(1, learned(A1), 0.0)
        refused = sum(len(names.learn(2, learned(A1, name=f"x{n}.evil.org."), 0.0).refused) for n in range(10_000))
        assert refused == 9_900
        assert len(names) == 101
        assert names.addresses(API, 1) == (A1,)

    def test_others_still_have_a_little_when_the_whole_is_full(self) -> None:
        names = Names(NameOptions(per_endpoint=100, whole=150, reserved=10))
        for endpoint in (1, 2, 3):
            for n in range(200):
                names.learn(endpoint, learned(A1, name=f"x{n}.org."), 0.0)
        assert len(names) == 160  # the third had its reserve only
        assert len(names.learn(4, learned(A1, A2, A3), 0.0).opened) == 3

    def test_what_is_held_can_be_renewed_when_all_is_full(self) -> None:
        names = Names(NameOptions(per_endpoint=1))
        names.learn(1, learned(A1), 0.0)
        assert not names.learn(1, learned(A1), 50.0).refused

    def test_room_comes_back(self) -> None:
        names = Names(NameOptions(per_endpoint=1))
        names.learn(1, learned(A1), 0.0)
        names.collect(Sweep(100.0, NOBODY))
        assert not names.learn(1, learned(A2), 101.0).refused


STEP = st.tuples(
    st.sampled_from(["learn", "collect", "forget"]),
    st.integers(1, 3),
    st.sampled_from("abc"),
    st.sampled_from([A1, A2]),
)


@given(st.lists(STEP, max_size=30), st.sampled_from(Sharing))
def test_the_count_is_what_is_held_and_restoring_gives_the_same(
    steps: list[tuple[str, int, str, bytes]], how: Sharing
) -> None:
    names = Names(NameOptions(sharing=how))
    for now, (step, endpoint, name, address) in enumerate(steps):
        if step == "learn":
            names.learn(endpoint, learned(address, name=name, ttl=3), float(now))
        elif step == "collect":
            gone = names.collect(Sweep(float(now), {address: {endpoint}}))
            assert all(h.expires < now and h.alive < now for h in gone)
        else:
            names.forget(endpoint, float(now))
        held = list(names.holdings())
        assert len(names) == len(held)
        again = Names(NameOptions(sharing=how))
        assert again.restore(held) == 0
        assert list(again.holdings()) == held


def test_restoring_says_what_did_not_fit() -> None:
    names = Names(NameOptions(per_endpoint=1))
    assert names.restore([Holding(1, "a.", A1, 1.0), Holding(1, "b.", A1, 1.0)]) == 1


@pytest.mark.parametrize("size", [4, 16])
def test_addresses_keep_their_family(size: int) -> None:
    names = Names()
    names.learn(1, learned(bytes(range(1, size + 1))), 0.0)
    assert names.addresses(API, 1) == (bytes(range(1, size + 1)),)
