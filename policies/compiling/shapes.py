"""Clauses with living peers, and the shapes of what they allow or deny: protocol, ports and requests. Pure.

A shape is made once when a policy comes, so that merging compares and remembers shapes by being the same object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from policies.compiling.peers import EVERYBODY
from policies.compiling.peersets import PeerSet, PeerSets
from policies.ir import L7Parser, L7Rule
from policies.rules import Action, Clause, PortSpec, ToPorts
from policies.selectors import Selector
from policies.types import ALL_PORTS, Origin, PortRange, Protocol

# ANY with a port stands for the protocols that have ports (facts 3.4).
WITH_PORTS: Final = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
# What a parser is spoken over; ANY with such rules is these, and nobody is allowed another by them.
_SPOKEN_OVER: Final = {
    L7Parser.HTTP: (Protocol.TCP,),
    L7Parser.KAFKA: (Protocol.TCP,),
    L7Parser.DNS: (Protocol.TCP, Protocol.UDP),
    L7Parser.TLS: (Protocol.TCP,),
}
# Facts 3.2: what the clauses of a policy that enforces nothing do not cover passes, requests of its own rules too.
DEFAULT_ALLOW: Final = "default-allow"


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What a clause says, peers apart: one protocol, one range, and the requests, if it says which. Compared by being
    the same object, so that rule sets of ten thousand rules are never hashed. `pardon`, if there is one, allows every
    other request too: the rule sees and refuses nothing."""

    protocol: Protocol
    ports: PortRange
    l7: tuple[L7Rule, ...]
    origin: Origin
    denies: bool = False
    pardon: Origin | None = None
    parser: L7Parser | None = None  # who judges the requests


@dataclass(frozen=True, slots=True, eq=False)
class NamedShape:
    """A shape whose port is a name, to be looked up in pods."""

    protocol: Protocol
    name: str
    entry: ToPorts


class BoundClause:
    """A clause with its peers: `peers` None is anybody. Compared by being the same object."""

    __slots__ = ("_clause", "_pardon", "_resolved", "named", "peers", "shapes")

    def __init__(self, clause: Clause, peers: PeerSet | None, *, is_enforcing: bool) -> None:
        self.peers = peers
        self._clause = clause
        self._pardon = None if is_enforcing else Origin("deflector", "", DEFAULT_ALLOW, str(clause.origin))
        self._resolved: dict[tuple[NamedShape, int], Shape] = {}
        says_nothing = clause.peers == () or (clause.peers is None and not clause.to_ports)  # facts 2.3
        self.shapes = () if says_nothing else tuple(self._numbered())
        self.named = () if says_nothing else tuple(_named(clause))

    @property
    def says_anything(self) -> bool:
        """Whether it allows or denies anything at all, for whomever."""
        return bool(self.shapes or self.named)

    def resolved(self, named: NamedShape, port: int) -> Shape:
        """The shape with this number for the name; the same object each time."""
        found = self._resolved.get((named, port))
        if found is None:
            found = self._shape(named.protocol, PortRange(port, port), named.entry)
            self._resolved[named, port] = found
        return found

    def _numbered(self) -> Iterator[Shape]:
        if not self._clause.to_ports:
            yield self._shape(Protocol.ANY, ALL_PORTS, ToPorts())
        for entry in self._clause.to_ports:
            for protocol, ports in _ranges(entry):
                yield self._shape(protocol, ports, entry)

    def _shape(self, protocol: Protocol, ports: PortRange, entry: ToPorts) -> Shape:
        denies = self._clause.action is Action.DENY
        l7, parser = ((), None) if denies else (entry.l7, entry.parser)
        return Shape(protocol, ports, l7, self._clause.origin, denies, self._pardon if l7 else None, parser)


def bind(clause: Clause, sets: PeerSets, *, is_enforcing: bool) -> BoundClause:
    """`clause`: looked up, so that its peers are selectors. Everybody among them is anybody."""
    selectors = None if clause.peers is None else [peer for peer in clause.peers if isinstance(peer, Selector)]
    is_wildcard = selectors is None or EVERYBODY in selectors
    return BoundClause(clause, None if is_wildcard else sets.acquire(selectors or ()), is_enforcing=is_enforcing)


def _named(clause: Clause) -> Iterator[NamedShape]:
    for entry in clause.to_ports:
        for spec in entry.ports:
            if isinstance(spec.ports, str):
                for protocol in _protocols(spec, entry):
                    yield NamedShape(protocol, spec.ports, entry)


def _protocols(spec: PortSpec, entry: ToPorts) -> tuple[Protocol, ...]:
    """ANY with all ports is every protocol, those without ports too (facts 3.4)."""
    if spec.protocol is not Protocol.ANY:
        return (spec.protocol,)
    if entry.parser is not None:
        return _SPOKEN_OVER[entry.parser]
    return (Protocol.ANY,) if spec.ports == ALL_PORTS else WITH_PORTS


def _ranges(entry: ToPorts) -> Iterator[tuple[Protocol, PortRange]]:
    """Its ranges by protocol, overlapping ones joined: 80-90 and 85 of one entry are one range, and one slot."""
    wanted: dict[Protocol, list[PortRange]] = {}
    for spec in entry.ports:
        if isinstance(spec.ports, PortRange):
            for protocol in _protocols(spec, entry):
                wanted.setdefault(protocol, []).append(spec.ports)
    for protocol in sorted(wanted):
        joined: list[PortRange] = []
        for ports in sorted(wanted[protocol]):
            if joined and ports.first <= joined[-1].last:
                joined[-1] = PortRange(joined[-1].first, max(joined[-1].last, ports.last))
            else:
                joined.append(ports)
        yield from ((protocol, ports) for ports in joined)
