"""Map entries that follow from those before: the same as if they were made anew each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bpf.redirects import NOTHING, desired
from policies.ir import Address, Endpoint, NodePolicy, ServiceAddress
from policies.types import Protocol

PREFIXES = ("10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "fd00::1/128", "10.0.0.0/8", "0.0.0.0/0")
PLACES = ("10.0.0.1", "10.0.0.2", "fd00::1", "10.9.9.9")
_addresses = st.dictionaries(st.sampled_from(PREFIXES), st.integers(256, 258), max_size=6)
_endpoints = st.dictionaries(st.integers(10, 12), st.tuples(st.integers(256, 258), st.sampled_from(PLACES)), max_size=3)


@given(st.lists(st.tuples(_addresses, _endpoints, st.booleans()), max_size=8))
def test_following_is_the_same_as_making_anew(
    story: list[tuple[dict[str, int], dict[int, tuple[int, str]], bool]],
) -> None:
    known, kept = NOTHING, dict[tuple[str, int], Address]()
    services = (ServiceAddress("10.96.0.1", 80, Protocol.TCP, 256, 8080),)
    for addresses, places, with_service in story:
        table = tuple(kept.setdefault(item, Address(*item)) for item in sorted(addresses.items()))
        endpoints = tuple(Endpoint(i, group, "n", f"p{i}", (at,)) for i, (group, at) in sorted(places.items()))
        node = NodePolicy(1, addresses=table, endpoints=endpoints, services=services if with_service else ())
        known, anew = desired(node, {}, known), desired(node, {})
        assert known == anew
        assert known.prefixes == anew.prefixes
