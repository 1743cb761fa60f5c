"""Whether what one clause says covers what another says, as far as that can be seen without knowing any pod. Pure.

Every answer "yes" is sure; "no" also means "cannot be told".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from policies.rules import CidrPeer, Entity, EntityPeer, Peer, PortSpec, ToPorts
from policies.selectors import Operator, Requirement, Selector
from policies.types import ALL_PORTS, PortRange, Protocol

_WORLD = frozenset({Entity.ALL, Entity.WORLD})
_EVERYTHING: Peer = EntityPeer(Entity.ALL)
_WITH_PORTS = frozenset({Protocol.TCP, Protocol.UDP, Protocol.SCTP})


def peers_cover(broad: Sequence[Peer] | None, narrow: Sequence[Peer] | None) -> bool:
    """Whether whoever is chosen by `narrow` is chosen by `broad`; None is anybody."""
    if broad is None or any(is_everything(peer) for peer in broad):
        return True
    if narrow is None:
        return False
    known = set(broad)
    return all(peer in known or any(_covers(other, peer) for other in broad) for peer in narrow)


def is_everything(peer: Peer) -> bool:
    """Whether it chooses everything, the world included."""
    return peer in (_EVERYTHING, Selector())


def _covers(broad: Peer, narrow: Peer) -> bool:
    if isinstance(broad, Selector) and isinstance(narrow, Selector):
        return set(broad.requirements) <= set(narrow.requirements)
    if isinstance(narrow, CidrPeer):
        if isinstance(broad, EntityPeer):
            return broad.entity in _WORLD
        return isinstance(broad, CidrPeer) and _contains(broad, narrow)
    is_v4_or_v6 = isinstance(narrow, EntityPeer) and narrow.entity in (Entity.WORLD_IPV4, Entity.WORLD_IPV6)
    return is_v4_or_v6 and isinstance(broad, EntityPeer) and broad.entity is Entity.WORLD


def _contains(broad: CidrPeer, narrow: CidrPeer) -> bool:
    outer, inner = ipaddress.ip_network(broad.prefix), ipaddress.ip_network(narrow.prefix)
    if outer.version != inner.version or not set(broad.excepts) <= set(narrow.excepts):
        return False
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def ports_cover(broad: Iterable[ToPorts], narrow: ToPorts | None) -> bool:
    """Whether each port of `narrow` is one of `broad`. No entries at all, and None, are every port."""
    entries = tuple(broad)
    if not entries:
        return True
    specs = [spec for entry in entries for spec in entry.ports]
    wanted = narrow.ports if narrow is not None else (PortSpec(Protocol.ANY, ALL_PORTS),)
    return all(any(_port_covers(spec, port) for spec in specs) for port in wanted)


def _port_covers(broad: PortSpec, narrow: PortSpec) -> bool:
    """ANY with every port is every protocol; ANY with some is those that have ports."""
    every = broad.protocol is Protocol.ANY and broad.ports == ALL_PORTS
    if every:
        return True
    if broad.protocol is not narrow.protocol and not (
        broad.protocol is Protocol.ANY and narrow.protocol in _WITH_PORTS
    ):
        return False
    if isinstance(broad.ports, str) or isinstance(narrow.ports, str):
        return broad.ports in (narrow.ports, ALL_PORTS)
    return _spans(broad.ports, narrow.ports)


def _spans(broad: PortRange, narrow: PortRange) -> bool:
    return broad.first <= narrow.first and narrow.last <= broad.last


def is_contradiction(selector: Selector) -> bool:
    """Whether no set of labels can have all that it asks for."""
    return any(_contradicts(requirements) for requirements in _by_key(selector).values())


def _by_key(selector: Selector) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for requirement in selector.requirements:
        found.setdefault(requirement.key, []).append(requirement)
    return found


def _contradicts(requirements: Iterable[Requirement]) -> bool:
    allowed: set[str] | None = None
    forbidden: set[str] = set()
    must_exist = must_not_exist = False
    for requirement in requirements:
        match requirement.operator:
            case Operator.IN:
                values = set(requirement.values)
                allowed = values if allowed is None else allowed & values
            case Operator.NOT_IN:
                forbidden |= set(requirement.values)
            case Operator.EXISTS:
                must_exist = True
            case Operator.DOES_NOT_EXIST:
                must_not_exist = True
    if must_not_exist:
        return must_exist or allowed is not None
    return allowed is not None and not allowed - forbidden
