"""Between two policies: what the kernel is to hold while proxies have not confirmed all slots of the newer one. Pure.

Whatever needs no proxy (allow, deny, a redirect to a slot that is confirmed as it is) is the newer policy's at once. A
peer on its way to a slot that is not confirmed yet stays as it was, until nobody waits any longer: then it is denied.
A peer that a slot is about to lose is denied before the slot's rules change, or it would be judged by rules that are
not its own for the milliseconds in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from pyroaring import FrozenBitMap

from policies.ir import DirectionPolicy, EndpointPolicy, NodePolicy, PeerRule, PortPolicy, Slot, Verdict
from policies.slots import NOT_ENFORCED
from policies.types import IDENTITY_ANY, IDENTITY_WORLD, Direction, PortRange, Protocol

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


def without_leavers(now: InForce, wanted: NodePolicy, served: Mapping[str, Slot]) -> NodePolicy | None:
    """What the kernel holds, but with those denied who are sent to a slot whose rules are about to change, and who are
    not among its peers any more. None if there is nobody like that. `served`: slots in the form that proxies have."""
    changing = {slot.name for slot in wanted.slots if slot.name in served and served[slot.name] != slot}
    changing &= now.reach.keys()
    if not changing:
        return None
    heirs = _Heirs(now.node, wanted)
    targets = {peer.slot: _Target.of(peer, port) for port in _ports_of(wanted) for peer in port.peers}

    def expelled(policy: DirectionPolicy) -> DirectionPolicy:
        ports = tuple(_expelled(port, changing, targets, heirs) for port in policy.ports)
        is_same = all(a is b for a, b in zip(ports, policy.ports, strict=True))
        return policy if is_same else replace(policy, ports=ports)

    policies = tuple(_with_directions(p, expelled(p.ingress), expelled(p.egress)) for p in now.node.policies)
    is_same = all(a is b for a, b in zip(policies, now.node.policies, strict=True))
    return None if is_same else replace(now.node, policies=policies)


def after_restart(now: InForce, wanted: NodePolicy) -> NodePolicy | None:
    """The same for what an earlier agent left in force, of which only the reach of slots is known: `wanted`, with new
    peers denied. None if every slot keeps its peers."""
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


_NO_TARGET: Final = _Target(NOBODY, NOBODY)


class _Heirs:
    """Who has the addresses of an identity now: itself, other identities, or the world."""

    def __init__(self, before: NodePolicy, after: NodePolicy) -> None:
        self.living = FrozenBitMap(address.identity for address in before.addresses)
        now = {address.prefix: address.identity for address in after.addresses}
        staying: set[int] = set()
        self._heirs: dict[int, set[int]] = {}  # of identities that have lost an address
        for address in before.addresses:
            if (heir := now.get(address.prefix, IDENTITY_WORLD)) != address.identity:
                self._heirs.setdefault(address.identity, set()).add(heir)
            else:
                staying.add(address.identity)
        self._gone = FrozenBitMap(self._heirs.keys() - staying)

    def leaving(self, who: FrozenBitMap, target: _Target) -> FrozenBitMap:
        """Those of them who are no peers, or whose heirs are not all."""
        losers = (i for i, heirs in self._heirs.items() if i in who and target.leaving(FrozenBitMap(heirs)))
        return target.leaving(who - self._gone) | FrozenBitMap(losers)


def _expelled(port: PortPolicy, changing: set[str], targets: Mapping[str, _Target], heirs: _Heirs) -> PortPolicy:
    """The port with a deny for those who leave one of the changing slots; the same object if nobody does."""
    found: list[PeerRule] = []
    for peer in port.peers:
        if peer.slot not in changing:
            found.append(peer)
            continue
        target = targets.get(peer.slot, _NO_TARGET)
        there = heirs.living - _everybody(port.peers) if _is_wildcard(peer) else FrozenBitMap(peer.identities)
        found += _split(peer, there, heirs.leaving(there, target), target)
    is_same = len(found) == len(port.peers) and all(a is b for a, b in zip(found, port.peers, strict=True))
    return port if is_same else replace(port, peers=tuple(found))


def _split(peer: PeerRule, there: FrozenBitMap, leaving: FrozenBitMap, target: _Target) -> Iterator[PeerRule]:
    """Of the peers of a slot, `there`, some are leaving."""
    if _is_wildcard(peer) and target.is_wildcard:
        yield peer
    elif not leaving and not _is_wildcard(peer):
        yield peer
        return
    elif there - leaving:
        yield replace(peer, identities=there - leaving)
    if _is_wildcard(peer) and not target.is_wildcard:
        yield _DENIED
    elif leaving:
        yield replace(_DENIED, identities=leaving)


def _with_directions(policy: EndpointPolicy, ingress: DirectionPolicy, egress: DirectionPolicy) -> EndpointPolicy:
    is_same = ingress is policy.ingress and egress is policy.egress
    return policy if is_same else replace(policy, ingress=ingress, egress=egress)


def _everybody(peers: Iterable[PeerRule]) -> FrozenBitMap:
    return FrozenBitMap.union(NOBODY, *(FrozenBitMap(peer.identities) for peer in peers))


def _ports_of(node: NodePolicy) -> Iterator[PortPolicy]:
    for policy in node.policies:
        for direction in Direction:
            yield from policy.direction(direction).ports
