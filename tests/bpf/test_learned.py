"""Who lives where follows from the policy and from names, whatever came first."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.encoding import address_key, host_prefix_key, ipcache_identity, ipcache_key, ipcache_value, owned
from bpf.learned import Layers
from policies.types import IDENTITY_FIRST_LOCAL, IDENTITY_FIRST_NODE, IDENTITY_HOST, IDENTITY_WORLD

A, B = bytes([192, 0, 2, 7]), bytes(15) + b"\7"
PREFIX, NAME, OTHER = IDENTITY_FIRST_LOCAL, IDENTITY_FIRST_LOCAL + 1, IDENTITY_FIRST_LOCAL + 2
POD = 4711


def test_a_packed_address_has_the_key_of_its_text() -> None:
    assert address_key(A) == host_prefix_key("192.0.2.7") == ipcache_key("192.0.2.7/32")
    assert address_key(B) == host_prefix_key("::7") == ipcache_key("::7/128")


def test_what_was_learned_is_written_once() -> None:
    layers = Layers()
    assert layers.learn({A: NAME}) == {address_key(A): ipcache_value(NAME)}
    assert layers.learn({A: NAME}) == {}
    assert layers.learn({A: OTHER, B: NAME}).keys() == {address_key(A), address_key(B)}


def test_a_name_says_more_of_what_lies_outside_and_nothing_of_what_lies_inside() -> None:
    for known in (IDENTITY_WORLD, PREFIX):
        layers = Layers({address_key(A): ipcache_value(known)})
        assert layers.learn({A: NAME})
    for known in (POD, IDENTITY_HOST, IDENTITY_FIRST_NODE):
        layers = Layers({address_key(A): ipcache_value(known)})
        assert layers.learn({A: NAME}) == {}
        assert layers.truth(address_key(A)) == ipcache_value(known)


def test_when_a_pod_has_gone_the_name_has_its_address() -> None:
    layers = Layers({address_key(A): ipcache_value(POD, 7)})
    layers.learn({A: NAME})
    layers.policy = {}
    assert layers.truth(address_key(A)) == ipcache_value(NAME)


@dataclass
class Kernel:
    """Takes what it is told."""

    held: dict[bytes, bytes] = field(default_factory=dict)

    def make(self, layers: Layers, keys: list[bytes]) -> None:
        for key in keys:
            truth = layers.truth(key)
            if truth is None:
                self.held.pop(key, None)
            else:
                self.held[key] = truth


addresses = st.sampled_from([A, B, bytes([10, 0, 0, 1])])
identities = st.sampled_from([IDENTITY_WORLD, POD, PREFIX, NAME, OTHER])
policies = st.dictionaries(addresses, identities, max_size=3)
acts = st.one_of(
    st.tuples(st.just("learn"), policies),
    st.tuples(st.just("forget"), st.lists(addresses, max_size=2)),
    st.tuples(st.just("step"), st.integers(0, 2)),
)


@given(policies, policies, st.lists(acts, max_size=8))
def test_names_and_a_change_of_policy_meet_in_any_order(before: dict, after: dict, story: list) -> None:  # type: ignore[type-arg]
    """The keys that a change of policy touches are written one by one, and names come in between."""
    old, new = ({address_key(a): ipcache_value(i) for a, i in policy.items()} for policy in (before, after))
    layers, kernel = Layers(old), Kernel(dict(old))
    layers.policy = new
    pending = [key for key in {**new, **old} if new.get(key) != old.get(key)]
    lives: dict[bytes, int] = {}
    for act, what in story:
        if act == "learn":
            lives |= what
            kernel.held |= layers.learn(what)
        elif act == "forget":
            gone = [address_key(a) for a in what if lives.pop(a, None) is not None]
            for key in gone:
                del layers.names[key]
            kernel.make(layers, gone)
        elif pending:
            kernel.make(layers, [pending.pop(what % len(pending))])
    kernel.make(layers, pending)
    inside = {a: i for a, i in after.items() if i == POD}
    expected = {**after, **lives, **inside}
    assert {a: ipcache_identity(kernel.held[address_key(a)]) for a in expected} == expected
    assert len(kernel.held) == len(expected)


@given(st.sampled_from([A, B]), st.integers(1, (1 << 24) - 1), st.integers(1, (1 << 24) - 1))
def test_what_endpoints_know_stands_apart(address: bytes, one: int, other: int) -> None:
    assert (address_key(owned(address, one)) == address_key(owned(address, other))) == (one == other)
    assert address_key(owned(address, one)) != address_key(address)
    assert len(address_key(owned(address, one))) == len(address_key(address))


def test_an_interface_that_no_key_can_name_is_refused() -> None:
    for number in (0, 1 << 24):
        with pytest.raises(ValueError, match="beyond"):
            owned(A, number)
