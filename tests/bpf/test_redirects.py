"""Desired entries and the order of changes: no packet is ever judged by what neither policy says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpf import redirects
from bpf.changes import Ops, diff
from bpf.constants import POLICY_BITS_ANY, POLICY_BITS_PORT, POLICY_BITS_PROTOCOL, Code, Dir, Reason, Scope
from bpf.encoding import PolicyKey, endpoint_key, endpoint_value, ipcache_key, ipcache_value, policy_value
from bpf.entries import Desired, group_entries
from bpf.redirects import desired, port_prefixes
from policies.ir import (
    Address,
    DirectionPolicy,
    Endpoint,
    EndpointPolicy,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    ServiceAddress,
    Verdict,
)
from policies.types import ALL_PORTS, PortRange, Protocol

GROUP, EMPIRE, ALLIANCE = 300, 301, 302
HTTP = RuleSet()

port_ranges = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda p: PortRange(min(p), max(p)))


def node(*ports: PortPolicy, enforced: bool = True) -> NodePolicy:
    policy = EndpointPolicy(GROUP, (), DirectionPolicy(enforced, ports), DirectionPolicy())
    return NodePolicy(1, (policy,), (Endpoint(7, GROUP, "default", "deathstar", ("10.0.0.7", "fd00::7")),))


def allow(*identities: int) -> PeerRule:
    return PeerRule(identities, Verdict.ALLOW)


def deny(*identities: int) -> PeerRule:
    return PeerRule(identities, Verdict.DENY)


def redirect(slot: str, *identities: int) -> PeerRule:
    return PeerRule(identities, Verdict.REDIRECT, rule_set=HTTP, slot=slot)


# --- the kernel's lookup, in Python ------------------------------------------------------------------------------


def longest(entries: dict[bytes, bytes], identity: int, protocol: int, port: int) -> bytes | None:
    for bits in range(POLICY_BITS_PORT, POLICY_BITS_ANY - 1, -1):
        if POLICY_BITS_ANY < bits < POLICY_BITS_PROTOCOL:
            continue
        keep = max(bits - POLICY_BITS_PROTOCOL, 0)
        number = port >> (16 - keep) << (16 - keep)
        key = PolicyKey(bits, GROUP, identity, Dir.INGRESS, protocol if bits >= POLICY_BITS_PROTOCOL else 0, number)
        if (found := entries.get(key.pack())) is not None:
            return found
    return None


def kernel(entries: dict[bytes, bytes], identity: int, protocol: int, port: int) -> bytes | None:
    """decide() of bpf/src/policy.h."""
    named = longest(entries, identity, protocol, port)
    if named is not None and named[1] != Scope.ANY:
        return named
    anyone = longest(entries, 0, protocol, port)
    if anyone is not None and (named is None or anyone[1] != Scope.ANY):
        return anyone
    return named


def verdict(entries: dict[bytes, bytes], identity: int, protocol: int, port: int) -> tuple[int, ...]:
    """Without the scope, which says what matched, not what happens."""
    found = kernel(entries, identity, protocol, port)
    return (Code.DENY, Reason.POLICY_DENIED) if found is None else (found[0], found[2], found[4], found[5])


def moments(realized: Desired, ops: Ops) -> Iterable[dict[bytes, bytes]]:
    """The policy map after each single change."""
    entries = realized.policy_entries()
    for step in ops.steps:
        for key, value in step.writes if step.map == "policy" else ():
            entries[key] = value
            yield dict(entries)
        for key in step.deletes if step.map == "policy" else ():
            del entries[key]
            yield dict(entries)


# --- port ranges -------------------------------------------------------------------------------------------------


@given(port_ranges)
def test_prefixes_cover_the_range_exactly_once_and_in_order(ports: PortRange) -> None:
    at = ports.first
    for port, length in port_prefixes(ports):
        size = 1 << (16 - length)
        assert port == at
        assert port % size == 0
        at += size
    assert at == ports.last + 1


@pytest.mark.parametrize(
    ("ports", "prefixes"),
    [
        (PortRange(80, 80), [(80, 16)]),
        (PortRange(80, 81), [(80, 15)]),
        (PortRange(1, 6), [(1, 16), (2, 15), (4, 15), (6, 16)]),
        (ALL_PORTS, [(0, 0)]),
        (PortRange(65535, 65535), [(65535, 16)]),
    ],
)
def test_the_fewest_prefixes(ports: PortRange, prefixes: list[tuple[int, int]]) -> None:
    assert list(port_prefixes(ports)) == prefixes


# --- entries -----------------------------------------------------------------------------------------------------


def test_a_redirect_goes_to_its_slots_port() -> None:
    policy = node(PortPolicy(Protocol.TCP, PortRange(80, 80), (redirect("s1", EMPIRE),)))
    assert desired(policy, {"s1": 15001}).policy_entries() == {
        PolicyKey(POLICY_BITS_PORT, GROUP, EMPIRE, Dir.INGRESS, 6, 80).pack(): policy_value(
            Code.REDIRECT, Scope.PORTS, proxy_port=15001
        )
    }


def test_a_slot_without_a_port_is_closed() -> None:
    policy = node(PortPolicy(Protocol.TCP, PortRange(80, 80), (redirect("s1", EMPIRE),)))
    assert list(desired(policy, {}).policy_entries().values()) == [
        policy_value(Code.DENY, Scope.PORTS, Reason.NOT_READY)
    ]


def test_every_protocol_and_every_port_are_one_entry_each() -> None:
    policy = node(
        PortPolicy(Protocol.ANY, ALL_PORTS, (allow(EMPIRE),)), PortPolicy(Protocol.UDP, ALL_PORTS, (deny(0),))
    )
    assert desired(policy, {}).policy_entries() == {
        PolicyKey(POLICY_BITS_ANY, GROUP, EMPIRE, Dir.INGRESS).pack(): policy_value(Code.ALLOW, Scope.ANY),
        PolicyKey(POLICY_BITS_PROTOCOL, GROUP, 0, Dir.INGRESS, 17).pack(): policy_value(
            Code.DENY, Scope.PROTOCOL, Reason.POLICY_DENY
        ),
    }


def test_a_direction_that_is_not_enforced_has_no_entries_and_no_flag() -> None:
    got = desired(node(PortPolicy(Protocol.ANY, ALL_PORTS, (deny(0),)), enforced=False), {})
    assert got.policy_entries() == {}
    assert got.endpoints == {endpoint_key(7): endpoint_value(GROUP, 0, ("10.0.0.7", "fd00::7"))}


def test_an_endpoint_of_a_group_without_a_policy_is_closed_in_both_directions() -> None:
    got = desired(NodePolicy(1, endpoints=(Endpoint(7, 999, "default", "x", ("10.0.0.7",)),)), {})
    assert got.endpoints == {endpoint_key(7): endpoint_value(999, 3, ("10.0.0.7",))}


def test_the_protocols_own_entry_goes_before_one_for_every_protocol() -> None:
    """policies/ir.py, PortPolicy: the most specific PortPolicy that names the identity or its wildcard decides."""
    entries = desired(
        node(
            PortPolicy(Protocol.ANY, ALL_PORTS, (allow(EMPIRE),)),
            PortPolicy(Protocol.TCP, PortRange(80, 80), (deny(0),)),
        ),
        {},
    ).policy_entries()
    assert verdict(entries, EMPIRE, 6, 80)[0] == Code.DENY
    assert verdict(entries, EMPIRE, 6, 81)[0] == Code.ALLOW
    assert verdict(entries, ALLIANCE, 6, 81) == (Code.DENY, Reason.POLICY_DENIED)


def places(node_policy: NodePolicy) -> set[tuple[int, int, int]]:
    """(protocol, port, bits beyond the protocol) of every entry."""
    keys = [PolicyKey.unpack(key) for key in desired(node_policy, {}).policy_entries()]
    return {(key.protocol, key.port, key.bits - POLICY_BITS_PROTOCOL) for key in keys}


def test_an_icmp_type_stands_where_a_port_does() -> None:
    assert places(node(PortPolicy(Protocol.ICMP, PortRange(8, 8), (allow(0),)))) == {(1, 8, 16)}
    assert places(node(PortPolicy(Protocol.ICMPV6, PortRange(128, 129), (allow(0),)))) == {(58, 128, 15)}
    assert places(node(PortPolicy(Protocol.ICMP, ALL_PORTS, (allow(0),)))) == {(1, 0, 0)}


def test_every_protocol_number_has_its_place() -> None:
    assert places(node(PortPolicy(Protocol.SCTP, PortRange(3868, 3868), (allow(0),)))) == {(132, 3868, 16)}


def test_where_a_cidr_claims_a_pods_address_the_pod_has_it() -> None:
    cidr = (1 << 24) + 1
    both = (Address("10.0.0.7/32", EMPIRE), Address("10.0.0.7/32", cidr), Address("10.0.0.0/24", cidr))
    for order in (both, both[::-1]):
        held = desired(NodePolicy(1, addresses=order), {}).ipcache
        assert held[ipcache_key("10.0.0.7/32")] == ipcache_value(EMPIRE)
        assert held[ipcache_key("10.0.0.0/24")] == ipcache_value(cidr)


def test_a_pod_of_this_node_is_known_by_its_wire_too() -> None:
    addresses = (Address("10.0.0.7/32", GROUP), Address("10.0.0.8/32", EMPIRE), Address("fd00::7/128", GROUP))
    here = replace(node(), addresses=addresses)
    held = desired(here, {}).ipcache
    assert held[ipcache_key("10.0.0.7/32")] == ipcache_value(GROUP, 7)
    assert held[ipcache_key("fd00::7/128")] == ipcache_value(GROUP, 7)
    assert held[ipcache_key("10.0.0.8/32")] == ipcache_value(EMPIRE)


# --- reuse -------------------------------------------------------------------------------------------------------


def test_what_has_not_changed_is_not_made_again() -> None:
    wide = PortPolicy(Protocol.TCP, PortRange(80, 80), (allow(*range(1000, 2000)),))
    one = node(wide)
    full = replace(one, addresses=(Address("10.0.0.8/32", EMPIRE),))
    first = desired(full, {})
    again = desired(replace(full, revision=2), {"other": 15009}, first)
    assert again.policy[GROUP] is first.policy[GROUP]
    assert (again.ipcache, again.endpoints) == (first.ipcache, first.endpoints)
    assert again.ipcache is first.ipcache
    assert diff(again, first).steps == ()
    less = desired(node(PortPolicy(Protocol.TCP, PortRange(80, 80), (allow(*range(1001, 2000)),))), {}, first)
    assert [(s.map, s.count) for s in diff(less, first).steps] == [("ipcache", 1), ("policy", 1)]


def test_a_slot_that_gets_its_port_is_opened() -> None:
    policy = node(PortPolicy(Protocol.TCP, PortRange(80, 80), (redirect("s1", EMPIRE),)))
    unready = desired(policy, {})
    ready = desired(policy, {"s1": 15001}, unready)
    assert list(ready.policy_entries().values()) == [policy_value(Code.REDIRECT, Scope.PORTS, proxy_port=15001)]
    assert desired(policy, {"s1": 15001}, ready).policy[GROUP] is ready.policy[GROUP]


def test_what_is_read_back_is_what_was_written() -> None:
    policy = node(
        PortPolicy(Protocol.ANY, ALL_PORTS, (allow(EMPIRE, 999), deny(0))),
        PortPolicy(Protocol.TCP, PortRange(1, 6), (deny(ALLIANCE), allow(0))),
    )
    wanted = desired(policy, {})
    entries = wanted.policy_entries()
    read = Desired(wanted.endpoints, {}, group_entries(b"".join(entries), b"".join(entries.values())), {})
    assert read.policy_entries() == entries
    assert diff(wanted, read).steps == ()


# --- room --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps with hardly any room."""
    monkeypatch.setattr(redirects, "CAPACITY", {"endpoints": 2, "ipcache": 3, "policy": 10, "services": 1})


def crowd(group: int, identities: int) -> EndpointPolicy:
    port = PortPolicy(Protocol.TCP, PortRange(80, 80), (allow(*range(1000, 1000 + identities)),))
    return EndpointPolicy(group, (f"k8s:app=app{group}",), DirectionPolicy(True, (port,)), DirectionPolicy())


@pytest.mark.usefixtures("small")
def test_the_largest_group_is_closed_where_not_all_fit() -> None:
    pods = tuple(Endpoint(n, 300 + n, "default", f"pod{n}", (f"10.0.0.{n}",)) for n in (1, 2))
    got = desired(NodePolicy(1, (crowd(301, 4), crowd(302, 7)), pods), {})
    assert set(got.policy) == {301}
    assert got.endpoints[endpoint_key(1)] == endpoint_value(301, 1, ("10.0.0.1",))
    assert got.endpoints[endpoint_key(2)] == endpoint_value(302, 3, ("10.0.0.2",))
    assert got.closed == (
        "policy of k8s:app=app302 needs 7 entries, and with it the map policy would have 11 of 10: its pods are closed;"
        " select fewer peers or ports",
    )


@pytest.mark.usefixtures("small")
def test_a_pod_too_many_is_closed() -> None:
    pods = tuple(Endpoint(n, GROUP, "default", f"pod{n}", (f"10.0.0.{n}",)) for n in (1, 2, 3))
    got = desired(NodePolicy(1, (crowd(GROUP, 1),), pods), {})
    assert set(got.endpoints) == {endpoint_key(1), endpoint_key(2)}
    assert got.closed == ("pod default/pod3 is closed: the map endpoints holds 2",)


@pytest.mark.usefixtures("small")
def test_peers_that_do_not_fit_are_not_left_out() -> None:
    """Left out, a pod would be the world, which a policy may allow."""
    addresses = tuple(Address(f"10.0.0.{n}/32", 1000 + n) for n in range(4))
    with pytest.raises(redirects.DoesNotFit, match="4 entries for map ipcache, which holds 3"):
        desired(NodePolicy(1, addresses=addresses), {})


# --- order -------------------------------------------------------------------------------------------------------


def test_pods_are_enforced_only_when_their_rules_and_peers_are_there() -> None:
    policy = node(PortPolicy(Protocol.ANY, ALL_PORTS, (allow(EMPIRE),)))
    full = NodePolicy(
        1,
        policy.policies,
        policy.endpoints,
        (Address("10.0.0.8/32", EMPIRE),),
        (ServiceAddress("10.96.0.1", 80, Protocol.TCP, EMPIRE, 8080),),
    )
    up = diff(desired(full, {}), Desired())
    assert [s.map for s in up.steps] == ["policy", "services", "ipcache", "endpoints"]
    down = diff(Desired(), desired(full, {}))
    assert [s.map for s in down.steps] == ["endpoints", "ipcache", "services", "policy"]
    assert up.count == down.count == 4
    assert diff(desired(full, {}), desired(full, {})).steps == ()


def test_addresses_change_from_the_longest_prefix_down_and_go_from_the_shortest_up() -> None:
    wide, narrow = ipcache_key("10.0.0.0/8"), ipcache_key("10.0.0.7/32")
    both = Desired(ipcache={wide: ipcache_value(1), narrow: ipcache_value(2)})
    assert [k for k, _ in diff(both, Desired()).steps[0].writes] == [narrow, wide]
    assert list(diff(Desired(), both).steps[0].deletes) == [wide, narrow]


peer_rules = st.builds(
    lambda identity, kind, slot: {
        "allow": allow(identity),
        "deny": deny(identity),
        "redirect": redirect(slot, identity),
    }[kind],
    st.sampled_from([0, EMPIRE, ALLIANCE]),
    st.sampled_from(["allow", "deny", "redirect"]),
    st.sampled_from(["s1", "s2", "unready"]),
)


@st.composite
def policies(draw: st.DrawFn) -> NodePolicy:
    """Disjoint ranges of one protocol among few ports, so that prefixes nest and shadow each other."""
    ports = []
    if draw(st.booleans()):
        ports.append(PortPolicy(Protocol.ANY, ALL_PORTS, draw(peers())))
    cuts = sorted(draw(st.sets(st.integers(0, 20), max_size=6)))
    for first, following in pairwise(cuts):
        if draw(st.booleans()):
            ports.append(PortPolicy(Protocol.TCP, PortRange(first, following - 1), draw(peers())))
    if not cuts and draw(st.booleans()):
        ports.append(PortPolicy(Protocol.TCP, ALL_PORTS, draw(peers())))
    return node(*ports)


def peers() -> st.SearchStrategy[tuple[PeerRule, ...]]:
    return st.lists(peer_rules, min_size=1, max_size=3, unique_by=lambda p: p.identities).map(tuple)


@settings(deadline=None, max_examples=60)
@given(policies(), policies())
def test_at_no_moment_a_verdict_is_neither_old_nor_new(old: NodePolicy, new: NodePolicy) -> None:
    ports = {"s1": 15001, "s2": 15002}
    before = desired(old, ports)
    after = desired(new, ports, before)
    assert after.policy_entries() == desired(new, ports).policy_entries()
    probes = [(i, proto, port) for i in (EMPIRE, 999) for proto in (6, 17) for port in (*range(21), 443)]
    was = {probe: verdict(before.policy_entries(), *probe) for probe in probes}
    will = {probe: verdict(after.policy_entries(), *probe) for probe in probes}
    last = before.policy_entries()
    for entries in moments(before, diff(after, before)):
        for probe in probes:
            assert verdict(entries, *probe) in (was[probe], will[probe]), probe
        last = entries
    assert last == after.policy_entries()
