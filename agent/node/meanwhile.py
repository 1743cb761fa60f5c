"""Between two policies: what the kernel is to hold while proxies have not confirmed all slots of the newer one. Pure.

Whatever needs no proxy (allow, deny, a redirect to a slot that is confirmed as it is) is the newer policy's at once. A
peer on its way to a slot that is not confirmed yet stays as it was, until nobody waits any longer: then it is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from pyroaring import FrozenBitMap

from policies.compiling.slots import NOT_ENFORCED
from policies.ir import DirectionPolicy, EndpointPolicy, NodePolicy, PeerRule, PortPolicy, Verdict
from policies.types import IDENTITY_ANY, Direction, PortRange, Protocol

NOBODY: Final = FrozenBitMap()
ANYBODY: Final = FrozenBitMap([IDENTITY_ANY])
_DENIED: Final = PeerRule(ANYBODY, Verdict.DENY)
_OPEN: Final = PeerRule(ANYBODY, Verdict.ALLOW, (NOT_ENFORCED,))

Reach = Mapping[str, FrozenBitMap]


@dataclass(frozen=True, slots=True)
class InForce:
    """What the kernel holds: the policy as it was programmed, and the proxy ports it knows. `reach`: slot -> identities
    that are sent there; 0 stands for all that no other rule of the port names."""

    node: NodePolicy = field(default_factory=lambda: NodePolicy(revision=0))
    ports: Mapping[str, int] = field(default_factory=dict)
    reach: Reach = field(default_factory=dict)

    @classmethod
    def of(cls, node: NodePolicy, ports: Mapping[str, int]) -> InForce:
        found: dict[str, FrozenBitMap] = {}
        for port in _ports_of(node):
            for peer in port.peers:
                if peer.slot in ports:
                    found[peer.slot] = found.get(peer.slot, NOBODY) | FrozenBitMap(peer.identities)
        return cls(node, ports, found)


def meanwhile(wanted: NodePolicy, now: InForce, waiting: Mapping[str, bool]) -> NodePolicy:
    """`wanted`, but peers of the slots in `waiting` as they are now. They are denied (their redirect leads to no slot)
    where the value is False: nobody waits any longer; and where nothing was in force for their group. Who is sent to
    the slot already stays there."""
    if not waiting:
        return wanted
    before = {policy.group: policy for policy in now.node.policies}
    policies = []
    for policy in wanted.policies:
        old = before.get(policy.group)
        ingress, egress = (
            _direction(policy.direction(d), old.direction(d) if old else None, now.reach, waiting) for d in Direction
        )
        policies.append(_with_directions(policy, ingress, egress))
    return replace(wanted, policies=tuple(policies))


def _direction(
    new: DirectionPolicy, old: DirectionPolicy | None, reach: Reach, waiting: Mapping[str, bool]
) -> DirectionPolicy:
    if not any(peer.slot in waiting for port in new.ports for peer in port.peers):
        return new
    ports = []
    for port in new.ports:
        if any(peer.slot in waiting for peer in port.peers):
            for piece in _pieces(port, old):
                ports.append(replace(port, ports=piece, peers=_peers(port, _rules(old, port, piece), reach, waiting)))
        else:
            ports.append(port)
    return replace(new, ports=tuple(ports))


def _pieces(port: PortPolicy, old: DirectionPolicy | None) -> Iterator[PortRange]:
    """The range of the port, cut where the older policy begins or ends a range."""
    edges = {port.ports.first, port.ports.last + 1}
    for other in old.ports if old else ():
        if other.protocol is port.protocol:
            edges |= {other.ports.first, other.ports.last + 1}
    cuts = sorted(edge for edge in edges if port.ports.first <= edge <= port.ports.last + 1)
    return (PortRange(first, following - 1) for first, following in pairwise(cuts))


def _rules(old: DirectionPolicy | None, port: PortPolicy, piece: PortRange) -> list[PeerRule]:
    """What the older policy says at these ports, in the order in which the kernel finds it (bpf/src/policy.h): the
    identity's rule, then the wildcard's, in the ports before any protocol. Nothing if there is no older
    policy."""
    if old is None:
        return []
    if not old.enforced:
        return [_OPEN]
    own = [peer for p in old.ports if p.protocol is port.protocol and piece.first in p.ports for peer in p.peers]
    broad = [peer for p in old.ports if p.protocol is Protocol.ANY for peer in p.peers]
    return [*sorted(own, key=_is_wildcard), *sorted(broad, key=_is_wildcard), _DENIED]


def _is_wildcard(peer: PeerRule) -> bool:
    return IDENTITY_ANY in peer.identities


def _peers(port: PortPolicy, old: list[PeerRule], reach: Reach, waiting: Mapping[str, bool]) -> tuple[PeerRule, ...]:
    named = _everybody(port.peers)
    found: list[PeerRule] = []
    for peer in port.peers:
        if peer.slot not in waiting:
            found.append(peer)
            continue
        there, who = reach.get(peer.slot, NOBODY), FrozenBitMap(peer.identities)
        if _is_wildcard(peer):
            who = who | ((_everybody(old) | there) - named)
        if who & there:
            found.append(replace(peer, identities=who & there))
        found += _as_they_were(who - there, old if waiting[peer.slot] else [], replace(peer, slot=""))
    return tuple(found)


def _as_they_were(who: FrozenBitMap, old: Iterable[PeerRule], otherwise: PeerRule) -> Iterator[PeerRule]:
    """The rules that these identities meet, each with its share of them."""
    for rule in old:
        share = who if _is_wildcard(rule) else who & FrozenBitMap(rule.identities)
        if share:
            yield replace(rule, identities=share)
            who = who - share
    if who:
        yield replace(otherwise, identities=who)


def after_restart(now: InForce, wanted: NodePolicy) -> NodePolicy | None:
    """What is to hold before a proxy is told anything: `wanted`, with new peers denied, where an earlier agent left
    peers in a slot (all that is known is the reach of slots) who leave it now, while its rules may be others. None if
    every slot keeps its peers."""
    for port in _ports_of(wanted):
        for peer in port.peers:
            if _Target.of(peer, port).leaving(now.reach.get(peer.slot, NOBODY)):
                return meanwhile(wanted, now, {slot.name: False for slot in wanted.slots})
    return None


@dataclass(frozen=True, slots=True)
class _Target:
    """The peers of a slot: these, or all but those that another rule of the port names."""

    peers: FrozenBitMap
    others: FrozenBitMap

    @classmethod
    def of(cls, peer: PeerRule, port: PortPolicy) -> _Target:
        return cls(FrozenBitMap(peer.identities), _everybody(p for p in port.peers if p is not peer))

    @property
    def is_wildcard(self) -> bool:
        return IDENTITY_ANY in self.peers

    def leaving(self, who: FrozenBitMap) -> FrozenBitMap:
        """Those of them who are no peers."""
        return who & self.others if self.is_wildcard else who - self.peers


def _with_directions(policy: EndpointPolicy, ingress: DirectionPolicy, egress: DirectionPolicy) -> EndpointPolicy:
    is_same = ingress is policy.ingress and egress is policy.egress
    return policy if is_same else replace(policy, ingress=ingress, egress=egress)


def _everybody(peers: Iterable[PeerRule]) -> FrozenBitMap:
    return FrozenBitMap.union(NOBODY, *(FrozenBitMap(peer.identities) for peer in peers))


def _ports_of(node: NodePolicy) -> Iterator[PortPolicy]:
    for policy in node.policies:
        for direction in Direction:
            yield from policy.direction(direction).ports
