"""Learned names: how long their addresses are open, and to whom."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.names.book import ORPHANED_MAX, Bounds, Change, Holding, NameBook, Rest, Sharing, Sweep, canonical_address
from l7proxy.dns.lessons import SHARED_MAX

A1, A2, A3 = (bytes((192, 0, 2, n)) for n in (1, 2, 3))
NOBODY: dict[bytes, set[int]] = {}
API = "api.github.com."
AT_ONCE = Rest(linger=0.0)


def learn(book: NameBook, endpoint: int, *addresses: bytes, name: str = API, until: float = 30.0) -> Change:
    return book.learn(endpoint, (name,), addresses, until)


def collect(
    book: NameBook, sweep: Sweep, rest: Rest = AT_ONCE, sharing: Sharing = Sharing.NODE, names: Iterable[str] = ()
) -> list[Holding]:
    return sorted(book.collect(names or book.names(), sweep, rest, sharing))


def test_what_is_learned_is_known_both_ways() -> None:
    book = NameBook()
    change = learn(book, 1, A1, A2)
    assert [(h.address, h.expires) for h in change.opened] == [(A1, 30.0), (A2, 30.0)]
    learn(book, 2, A1, name="www.github.com.")
    assert book.addresses(API) == [A1, A2]
    assert book.names_of(A1) == {API, "www.github.com."}
    assert book.names_of(A2) == {API}
    assert set(book.holders(API, A1)) == {1}


def test_learning_again_renews_and_opens_what_is_new() -> None:
    book = NameBook()
    learn(book, 1, A1)
    change = learn(book, 1, A1, A2, until=60.0)
    assert [h.address for h in change.renewed] == [A1]
    assert [h.address for h in change.opened] == [A2]


def test_an_answer_that_says_little_more_is_no_news() -> None:
    """A name that is asked for a thousand times a second is not written down as often."""
    book = NameBook()
    learn(book, 1, A1)
    assert not learn(book, 1, A1, until=30.9).renewed
    assert learn(book, 1, A1, until=31.1).renewed


def test_a_shorter_ttl_takes_nothing_away() -> None:
    book = NameBook()
    learn(book, 1, A1, until=400.0)
    learn(book, 1, A1, until=105.0)
    assert next(book.holdings()).expires == 400.0


def test_there_is_no_cap_on_the_addresses_of_a_name() -> None:
    """Object stores answer with hundreds; a cap of 50 denied names that policy allowed."""
    book = NameBook()
    assert not learn(book, 1, *(bytes((10, 1, n >> 8, n & 255)) for n in range(5000))).refused
    assert len(book.addresses(API)) == 5000


def test_an_ipv4_address_in_ipv6_clothes_is_the_ipv4_address() -> None:
    assert canonical_address(bytes(10) + b"\xff\xff" + A1) == A1
    assert canonical_address(bytes(15) + b"\1") == bytes(15) + b"\1"
    book = NameBook()
    learn(book, 1, A1, bytes(10) + b"\xff\xff" + A1)
    assert book.addresses(API) == [A1]


class TestCollection:
    def test_an_expired_address_stays_until_a_sweep_finds_no_connection(self) -> None:
        book = NameBook()
        learn(book, 1, A1, until=130.0)
        assert collect(book, Sweep(129.0, NOBODY)) == []  # not expired
        assert collect(book, Sweep(130.0, NOBODY)) == []  # expired, but no sweep since
        assert collect(book, Sweep(131.0, {A1: {7}})) == []  # somebody is connected
        gone = collect(book, Sweep(132.0, NOBODY))
        assert [(h.address, h.endpoint) for h in gone] == [(A1, 1)]
        assert len(book) == 0
        assert not book.addresses(API)
        assert not book.names_of(A1)

    def test_a_client_has_time_to_connect_after_it_was_told(self) -> None:
        book = NameBook()
        learn(book, 1, A1, until=100.0)  # a TTL of 0
        assert collect(book, Sweep(130.0, NOBODY), Rest(linger=30.0)) == []
        assert collect(book, Sweep(130.1, NOBODY), Rest(linger=30.0))

    def test_one_live_address_keeps_all_of_its_name(self) -> None:
        book = NameBook()
        learn(book, 1, A1, A2)
        learn(book, 1, A3, name="other.org.")
        assert [h.address for h in collect(book, Sweep(100.0, {A1: {1}}))] == [A3]
        assert [h.address for h in collect(book, Sweep(200.0, NOBODY))] == [A1, A2]

    def test_a_connection_of_another_endpoint_counts_only_where_names_are_shared(self) -> None:
        for sharing, kept in ((Sharing.NODE, 1), (Sharing.ENDPOINT, 0)):
            book = NameBook()
            learn(book, 1, A1)
            collect(book, Sweep(100.0, {A1: {2}}), sharing=sharing)
            assert len(book) == kept, sharing

    def test_grace_after_the_last_connection(self) -> None:
        book, rest = NameBook(), Rest(linger=0.0, idle_grace=60.0)
        learn(book, 1, A1)
        collect(book, Sweep(100.0, {A1: {1}}), rest)
        assert collect(book, Sweep(150.0, NOBODY), rest) == []
        assert collect(book, Sweep(161.0, NOBODY), rest)

    def test_what_was_learned_anew_is_not_collected(self) -> None:
        book = NameBook()
        learn(book, 1, A1, until=0.0)
        learn(book, 1, A1, until=129.0)
        assert collect(book, Sweep(100.0, NOBODY)) == []

    def test_the_names_of_an_endpoint_that_is_gone_outlive_it_while_others_are_connected(self) -> None:
        book = NameBook()
        learn(book, 1, A1, until=9999.0)
        book.forget(1, 50.0)
        end = 50.0 + ORPHANED_MAX
        assert collect(book, Sweep(end, NOBODY)) == [], "others may have been told, as their proxy knew it to be open"
        assert book.has_expired(API, end + 1.0)
        assert collect(book, Sweep(end + 10.0, {A1: {2}})) == []
        assert collect(book, Sweep(end + 20.0, NOBODY))

    def test_what_a_proxy_takes_for_open_outlives_whoever_has_learned_it(self) -> None:
        assert ORPHANED_MAX >= SHARED_MAX


class TestBounds:
    def test_a_flood_of_names_is_refused_and_evicts_nothing(self) -> None:
        book = NameBook(Bounds(per_endpoint=100, whole=150, reserved=10))
        learn(book, 1, A1)
        refused = sum(len(learn(book, 2, A1, name=f"x{n}.evil.org.").refused) for n in range(10_000))
        assert refused == 9_900
        assert len(book) == 101
        assert book.addresses(API) == [A1]

    def test_others_still_have_a_little_when_the_whole_is_full(self) -> None:
        book = NameBook(Bounds(per_endpoint=100, whole=150, reserved=10))
        for endpoint in (1, 2, 3):
            for n in range(200):
                learn(book, endpoint, A1, name=f"x{n}.org.")
        assert len(book) == 160  # the third had its reserve only
        assert len(learn(book, 4, A1, A2, A3).opened) == 3

    def test_what_is_held_can_be_renewed_when_all_is_full(self) -> None:
        book = NameBook(Bounds(per_endpoint=1))
        learn(book, 1, A1)
        assert not learn(book, 1, A1, until=50.0).refused

    def test_room_comes_back(self) -> None:
        book = NameBook(Bounds(per_endpoint=1))
        learn(book, 1, A1)
        collect(book, Sweep(100.0, NOBODY))
        assert not learn(book, 1, A2).refused

    def test_where_nothing_depends_on_it_the_oldest_goes(self) -> None:
        book = NameBook(Bounds(per_endpoint=2, evicts=True))
        learn(book, 1, A1, name="a.")
        learn(book, 2, A1, name="a.")
        learn(book, 1, A1, A2, name="b.")
        assert [(h.endpoint, h.name, h.address) for h in book.holdings()] == [
            (2, "a.", A1),
            (1, "b.", A1),
            (1, "b.", A2),
        ]


STEP = st.tuples(
    st.sampled_from(["learn", "collect", "forget"]),
    st.integers(1, 3),
    st.sampled_from("abc"),
    st.sampled_from([A1, A2]),
)


@given(st.lists(STEP, max_size=30), st.sampled_from(Sharing), st.booleans())
def test_what_is_held_is_counted_found_both_ways_and_restored(
    steps: list[tuple[str, int, str, bytes]], how: Sharing, evicts: bool
) -> None:
    bounds = Bounds(per_endpoint=3, evicts=evicts)
    book = NameBook(bounds)
    for now, (step, endpoint, name, address) in enumerate(steps):
        if step == "learn":
            learn(book, endpoint, address, name=name, until=now + 3.0)
        elif step == "collect":
            gone = collect(book, Sweep(float(now), {address: {endpoint}}), sharing=how)
            assert all(h.expires < now and h.alive < now for h in gone)
        else:
            book.forget(endpoint, float(now))
        held = list(book.holdings())
        assert len(book) == len(held)
        assert {a: set(book.names_of(a)) for a in (A1, A2)} == {
            a: {h.name for h in held if h.address == a} for a in (A1, A2)
        }
        assert set(book.endpoints()) == {h.endpoint for h in held}
        again = NameBook(bounds)
        assert again.restore(held) == 0
        assert list(again.holdings()) == held


def test_restoring_says_what_did_not_fit() -> None:
    book = NameBook(Bounds(per_endpoint=1))
    assert book.restore([Holding(1, "a.", A1, 1.0), Holding(1, "b.", A1, 1.0)]) == 1


@pytest.mark.parametrize("size", [4, 16])
def test_addresses_keep_their_family(size: int) -> None:
    book = NameBook()
    learn(book, 1, bytes(range(1, size + 1)))
    assert book.addresses(API) == [bytes(range(1, size + 1))]
