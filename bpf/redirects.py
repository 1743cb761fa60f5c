"""NodePolicy + proxy ports -> the map entries that should be. Pure.

What an earlier result already holds is taken from there: the work is that of what has changed. What the maps have no
room for is closed, and said: the groups with the most entries, until the rest fits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from bpf.constants import (
    ENFORCED_EGRESS,
    ENFORCED_INGRESS,
    POLICY_BITS_ANY,
    POLICY_BITS_PROTOCOL,
    Code,
    Dir,
    Reason,
    Scope,
)
from bpf.encoding import (
    endpoint_key,
    endpoint_value,
    host_prefix_key,
    ipcache_key,
    ipcache_value,
    policy_value,
    service_key,
    service_value,
)
from bpf.entries import Desired, Entries, GroupEntries, Place, Run
from bpf.layout import CAPACITY
from policies.compiling.changes import changed_values
from policies.ir import Address, Endpoint, EndpointPolicy, NodePolicy, PeerRule, PortPolicy, Verdict
from policies.types import ALL_PORTS, IDENTITY_UNKNOWN, Direction, PortRange, Protocol

PORT_BITS = 16
FOLLOWED_MAX = 1024  # addresses; more changes than these are made anew
CLOSED = ENFORCED_INGRESS | ENFORCED_EGRESS
NOTHING = Desired()


class DoesNotFit(ValueError):
    """More entries than a map holds, where leaving some out would open something; the message is one line."""


def port_prefixes(ports: PortRange) -> Iterator[tuple[int, int]]:
    """The fewest (port, prefix length) that together are the range, in order."""
    at, end = ports.first, ports.last + 1
    while at < end:
        size = at & -at or 1 << PORT_BITS  # the largest block that starts here
        while size > end - at:
            size >>= 1
        yield at, PORT_BITS - size.bit_length() + 1
        at += size


def desired(node: NodePolicy, ports: Mapping[str, int], known: Desired = NOTHING) -> Desired:
    """`ports` is slot name -> proxy port. A slot without one is not ready: its peers are denied, never let through.
    `known` is an earlier result, to be reused where it is still right. DoesNotFit when it cannot be done safely."""
    groups = {policy.group: _group(policy, ports, known.policy.get(policy.group)) for policy in node.policies}
    closed = _too_large(groups, node)
    enforced = {policy.group: _enforced(policy) for policy in node.policies if policy.group not in closed}
    prefixes, ipcache = _followed(node, known) or _anew(node, known)
    made = Desired(
        # a group without a policy is one that nobody has compiled
        endpoints={
            endpoint_key(e.id): endpoint_value(e.group, enforced.get(e.group, CLOSED), e.addresses)
            for e in node.endpoints[: CAPACITY["endpoints"]]
        },
        ipcache=ipcache,
        policy={group: entries for group, entries in groups.items() if group not in closed},
        services=_services(node, known),
        closed=(*closed.values(), *_too_many_pods(node)),
        prefixes=prefixes,
        made_of=(node.addresses, node.endpoints, node.services),
    )
    for name, entries in (("ipcache", made.ipcache), ("services", made.services)):
        if len(entries) > CAPACITY[name]:
            raise DoesNotFit(f"{len(entries)} entries for map {name}, which holds {CAPACITY[name]}: select fewer peers")
    return _with_known(made, known)


def _with_known(made: Desired, known: Desired) -> Desired:
    """Equal parts are the earlier ones, so that comparing them costs nothing."""
    same = [name for name in ("endpoints", "ipcache", "services") if getattr(made, name) == getattr(known, name)]
    return replace(made, **{name: getattr(known, name) for name in same})


def _services(node: NodePolicy, known: Desired) -> Entries:
    if known.made_of is not None and known.made_of[2] is node.services:
        return known.services
    return {service_key(s.address, s.port, s.protocol): service_value(s.identity, s.target_port) for s in node.services}


def _anew(node: NodePolicy, known: Desired) -> tuple[dict[str, bytes], Entries]:
    """Keys by prefix, and the ipcache."""
    prefixes = {a.prefix: known.prefixes.get(a.prefix) or ipcache_key(a.prefix) for a in node.addresses}
    return prefixes, _ipcache(node.addresses, prefixes, _here(node.endpoints))


def _followed(node: NodePolicy, known: Desired) -> tuple[Mapping[str, bytes], Entries] | None:
    """The same, of what was made before and what has changed since; None where that cannot be told from it."""
    if known.made_of is None or len(known.prefixes) != len(known.ipcache):
        return None  # several texts are one prefix
    addresses, endpoints, _ = known.made_of
    gone, come = changed_values(addresses, node.addresses)
    if len(gone) + len(come) > FOLLOWED_MAX:
        return None
    come = [*come, *_moved(endpoints, node)]
    if not gone and not come:
        return known.prefixes, known.ipcache
    prefixes, ipcache = dict(known.prefixes), dict(known.ipcache)
    for address in gone:
        ipcache.pop(prefixes.pop(address.prefix, b""), None)
    for address in come:
        prefixes[address.prefix] = known.prefixes.get(address.prefix) or ipcache_key(address.prefix)
    ipcache.update(_ipcache(come, prefixes, _here(node.endpoints)))
    return (prefixes, ipcache) if len(prefixes) == len(ipcache) else None


def _moved(before: Sequence[Endpoint], node: NodePolicy) -> Iterator[Address]:
    """Addresses that a pod of this node has or had, and now another one, or none, or with another group."""
    if before == node.endpoints:
        return
    was, here = ({(a, e.group, e.id) for e in of for a in e.addresses} for of in (before, node.endpoints))
    for text in {f"{address}/{128 if ':' in address else 32}" for address, _, _ in was ^ here}:
        at = bisect_left(node.addresses, text, key=attrgetter("prefix"))
        if at < len(node.addresses) and node.addresses[at].prefix == text:
            yield node.addresses[at]


def _here(endpoints: Iterable[Endpoint]) -> dict[bytes, tuple[int, int]]:
    """Group and id of this node's pods, by their addresses."""
    return {host_prefix_key(a): (e.group, e.id) for e in endpoints for a in e.addresses}


def _ipcache(
    addresses: Iterable[Address], prefixes: Mapping[str, bytes], here: Mapping[bytes, tuple[int, int]]
) -> dict[bytes, bytes]:
    """Where two claim one prefix, the smaller identity has it: reserved ones before pods, pods before CIDRs."""
    lives: dict[bytes, int] = {}
    for address in addresses:
        key = prefixes[address.prefix]
        lives[key] = min(address.identity, lives.get(key, address.identity))
    nowhere = (IDENTITY_UNKNOWN, 0)
    return {
        key: ipcache_value(identity, place if identity == group else 0)
        for key, identity in lives.items()
        for group, place in (here.get(key, nowhere),)
    }


# --- room --------------------------------------------------------------------------------------------------------


def _too_large(groups: Mapping[int, GroupEntries], node: NodePolicy) -> dict[int, str]:
    """Groups that are closed because the policy map has no room for all, the largest first: group -> why."""
    total = sum(entries.count for entries in groups.values())
    if total <= CAPACITY["policy"]:
        return {}
    labels = {policy.group: ",".join(policy.labels) for policy in node.policies}
    found: dict[int, str] = {}
    for group in sorted(groups, key=lambda g: (-groups[g].count, g)):
        found[group] = (
            f"policy of {labels[group] or group} needs {groups[group].count} entries, and with it the map policy would"
            f" have {total} of {CAPACITY['policy']}: its pods are closed; select fewer peers or ports"
        )
        total -= groups[group].count
        if total <= CAPACITY["policy"]:
            break
    return found


def _too_many_pods(node: NodePolicy) -> list[str]:
    """A pod without an entry is closed."""
    return [
        f"pod {e.namespace}/{e.name} is closed: the map endpoints holds {CAPACITY['endpoints']}"
        for e in node.endpoints[CAPACITY["endpoints"] :]
    ]


# --- policy ------------------------------------------------------------------------------------------------------


def _enforced(policy: EndpointPolicy) -> int:
    return (ENFORCED_INGRESS if policy.ingress.enforced else 0) | (ENFORCED_EGRESS if policy.egress.enforced else 0)


def _group(policy: EndpointPolicy, ports: Mapping[str, int], known: GroupEntries | None) -> GroupEntries:
    if known is not None and known.policy == policy and all(ports.get(slot, 0) == port for slot, port in known.ports):
        return known
    runs = tuple(run for direction in Direction for run in _runs(policy, direction, ports))
    slots = {
        peer.slot
        for direction in Direction
        for port in policy.direction(direction).ports
        for peer in port.peers
        if peer.slot
    }
    return GroupEntries(runs, policy, tuple((slot, ports.get(slot, 0)) for slot in sorted(slots)))


def _runs(policy: EndpointPolicy, direction: Direction, ports: Mapping[str, int]) -> Iterator[Run]:
    rules = policy.direction(direction)
    for port in rules.ports if rules.enforced else ():
        for place in _places(port, Dir.of(direction)):
            scope = _scope(place.bits)
            for peer in port.peers:
                yield Run(place, _value(peer, scope, ports), peer.identities)


def _places(port: PortPolicy, direction: Dir) -> Iterator[Place]:
    if port.protocol is Protocol.ANY:
        yield Place(POLICY_BITS_ANY, direction, 0, 0)
    elif port.ports == ALL_PORTS:
        yield Place(POLICY_BITS_PROTOCOL, direction, port.protocol, 0)
    else:
        for number, length in port_prefixes(port.ports):
            yield Place(POLICY_BITS_PROTOCOL + length, direction, port.protocol, number)


def _scope(bits: int) -> Scope:
    if bits < POLICY_BITS_PROTOCOL:
        return Scope.ANY
    return Scope.PROTOCOL if bits == POLICY_BITS_PROTOCOL else Scope.PORTS


def _value(peer: PeerRule, scope: Scope, ports: Mapping[str, int]) -> bytes:
    if peer.verdict is Verdict.ALLOW:
        return policy_value(Code.ALLOW, scope)
    if peer.verdict is Verdict.DENY:
        return policy_value(Code.DENY, scope, Reason.POLICY_DENY)
    proxy_port = ports.get(peer.slot, 0)
    if not proxy_port:
        return policy_value(Code.DENY, scope, Reason.NOT_READY)
    return policy_value(Code.REDIRECT, scope, proxy_port=proxy_port)
