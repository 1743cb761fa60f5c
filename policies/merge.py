"""Many clauses, one answer per port and peer: the partition law of docs/decisions/0002. Pure.

For one direction of one policy group: ports are split into disjoint ranges at the boundaries of clauses; on each range
identities are split by the set of clauses that cover them; clauses for any peer are merged into every named identity's
answer, and clauses for all protocols into every protocol's. What comes out needs no precedence.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from pyroaring import BitMap, FrozenBitMap

from policies.ir import WILDCARD, HttpRule, PeerRule, PortPolicy, RuleSet, Verdict
from policies.rules import Clause, ToPorts
from policies.selectors import Selection
from policies.types import ALL_PORTS, IDENTITY_HOST, PORT_MAX, Origin, PortRange, Protocol

# ANY with a port stands for the protocols that have ports (facts 3.4).
_WITH_PORTS: Final = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
# allow-localhost=always: the node reaches its pods (kubelet probes) and is never proxied (facts 3.1).
ALLOW_LOCALHOST: Final = Origin("deflector", "", "allow-localhost", "")
# Kept rule sets; a node has at most some hundreds of slots.
_RULE_SETS_MAX: Final = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What a clause allows, peers apart: one protocol, one range, and the requests, if it says which. Compared by being
    the same object, so that rule sets of ten thousand rules are never hashed."""

    protocol: Protocol
    ports: PortRange
    http: tuple[HttpRule, ...]
    origin: Origin


class BoundClause:
    """A clause with living selections. `selections` None: any peer."""

    __slots__ = ("_members", "_version", "selections", "shapes")

    def __init__(self, clause: Clause, selections: tuple[Selection, ...] | None) -> None:
        self.selections = selections
        self.shapes = tuple(_shapes(clause))
        self._members = BitMap()
        self._version = -1

    @property
    def version(self) -> int:
        """Rises whenever its peers change."""
        return sum(selection.version for selection in self.selections or ())

    def members(self) -> BitMap | None:
        """Its peers, None for any. Clauses that share their one selector share the object."""
        if self.selections is None:
            return None
        if len(self.selections) == 1:
            return self.selections[0].members
        if self._version != self.version:
            self._members = BitMap.union(*(s.members for s in self.selections)) if self.selections else BitMap()
            self._version = self.version
        return self._members


class RuleSets:
    """Rule sets by what they are made of: a policy of ten thousand rules is merged once, not at each new pod."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Shape, ...], RuleSet] = OrderedDict()

    def of(self, shapes: tuple[Shape, ...]) -> RuleSet:
        """The rule set of these shapes, of which at least one says which requests."""
        found = self._known.get(shapes)
        if found is None:
            found = self._known[shapes] = _rule_set(shapes)
            if len(self._known) > _RULE_SETS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(shapes)
        return found


@dataclass(frozen=True, slots=True)
class Implicit:
    """What holds without any clause: the node is let in, and whoever an invalid policy is about is denied."""

    allow_host: bool = False
    denied_by: tuple[Origin, ...] = ()


_Entry = tuple[Shape, BitMap | None]


def merge(clauses: Iterable[BoundClause], implicit: Implicit, rule_sets: RuleSets) -> tuple[PortPolicy, ...]:
    """The ports of an enforced direction, sorted."""
    entries: list[_Entry] = [(shape, members) for c in clauses for members in (c.members(),) for shape in c.shapes]
    everywhere = [entry for entry in entries if entry[0].protocol is Protocol.ANY]
    found = [(Protocol.ANY, ALL_PORTS, everywhere)]
    for protocol in _WITH_PORTS:
        own = [entry for entry in entries if entry[0].protocol is protocol]
        found += [(protocol, ports, [*covering, *everywhere]) for ports, covering in _pieces(own)]
    policies = []
    for protocol, ports, covering in found:
        peers = _peer_rules(covering, implicit.allow_host, rule_sets)
        if protocol is Protocol.ANY and implicit.denied_by and not any(peer.is_wildcard for peer in peers):
            peers = [PeerRule(WILDCARD, Verdict.DENY, implicit.denied_by), *peers]
        if peers:
            policies.append(PortPolicy(protocol, ports, tuple(peers)))
    return tuple(policies)


def _pieces(entries: Sequence[_Entry]) -> Iterator[tuple[PortRange, list[_Entry]]]:
    """Disjoint port ranges, in order, each with the entries that cover all of it."""
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for i, (shape, _) in enumerate(entries):
        begins.setdefault(shape.ports.first, []).append(i)
        ends.setdefault(shape.ports.last + 1, []).append(i)
    active: set[int] = set()
    cuts = sorted({*begins, *ends})
    for here, after in pairwise([*cuts, PORT_MAX + 1]):
        active -= set(ends.get(here, ()))
        active |= set(begins.get(here, ()))
        if active:
            yield PortRange(here, after - 1), [entries[i] for i in sorted(active)]


def _peer_rules(entries: Sequence[_Entry], allow_host: bool, rule_sets: RuleSets) -> list[PeerRule]:
    """Disjoint identity sets and what holds for each, the wildcard first, then by identity."""
    anybody = tuple(shape for shape, members in entries if members is None)
    rules = [_peer_rule(WILDCARD, anybody, rule_sets)] if anybody else []
    named = [(shape, members) for shape, members in entries if members is not None]
    if allow_host:
        rules.append(PeerRule(FrozenBitMap([IDENTITY_HOST]), Verdict.ALLOW, (ALLOW_LOCALHOST,)))
    for identities, indexes in _classes([members for _, members in named]):
        if allow_host:
            identities = [identity for identity in identities if identity != IDENTITY_HOST]
        if identities:
            covering = (*anybody, *(named[i][0] for i in indexes))
            rules.append(_peer_rule(FrozenBitMap(identities), covering, rule_sets))
    return sorted(rules, key=lambda rule: rule.identities[0])


def _classes(sets: Sequence[BitMap]) -> Iterator[tuple[list[int], list[int]]]:
    """Split the union of sets by membership: identities, and the indexes of all the sets that they are in."""
    alike: dict[int, list[int]] = {}  # many clauses share one set of peers: each set is walked once
    for i, members in enumerate(sets):
        alike.setdefault(id(members), []).append(i)
    if len(alike) == 1:
        yield list(sets[0]), list(range(len(sets)))
        return
    signature: dict[int, int] = {}
    groups = list(alike.values())
    for bit, indexes in enumerate(groups):
        for identity in sets[indexes[0]]:
            signature[identity] = signature.get(identity, 0) | 1 << bit
    by_signature: dict[int, list[int]] = {}
    for identity in sorted(signature):
        by_signature.setdefault(signature[identity], []).append(identity)
    for mask, identities in by_signature.items():
        yield identities, sorted(i for bit, indexes in enumerate(groups) if mask >> bit & 1 for i in indexes)


def _peer_rule(identities: FrozenBitMap, shapes: tuple[Shape, ...], rule_sets: RuleSets) -> PeerRule:
    """A request is judged only where no allow without L7 covers the same peer and port; else the proxy only watches."""
    origins = tuple(sorted({shape.origin for shape in shapes}))
    if not any(shape.http for shape in shapes):
        return PeerRule(identities, Verdict.ALLOW, origins)
    return PeerRule(identities, Verdict.REDIRECT, origins, rule_sets.of(shapes))


def _rule_set(shapes: tuple[Shape, ...]) -> RuleSet:
    wildcard = tuple(sorted({shape.origin for shape in shapes if not shape.http}))
    lists = [shape.http for shape in shapes if shape.http]
    if len(lists) == 1:
        return RuleSet(lists[0], wildcard)
    union: dict[object, HttpRule] = {}
    for rule in (rule for rules in lists for rule in rules):
        known = union.get(rule.match_key)
        if known is not None and known.origins != rule.origins:
            origins = tuple(sorted({*known.origins, *rule.origins}))
            rule = replace(rule, origins=origins)
        union[rule.match_key] = rule
    return RuleSet(tuple(sorted(union.values(), key=lambda rule: rule.match_key)), wildcard)


def _shapes(clause: Clause) -> Iterator[Shape]:
    """What facts 2.3 makes of one entry of ingress or egress, peers apart."""
    if clause.peers == () or (clause.peers is None and not clause.to_ports):
        return  # [] selects nobody; {} selects nothing and only turns on default deny
    if not clause.to_ports:
        yield Shape(Protocol.ANY, ALL_PORTS, (), clause.origin)
    for entry in clause.to_ports:
        for protocol, ports in _ranges(entry):
            yield Shape(protocol, ports, entry.http, clause.origin)


def _ranges(entry: ToPorts) -> Iterator[tuple[Protocol, PortRange]]:
    """Its ranges by protocol, overlapping ones joined: 80-90 and 85 of one entry are one range, and one slot."""
    wanted: dict[Protocol, list[PortRange]] = {}
    for spec in entry.ports:
        assert isinstance(spec.ports, PortRange)  # names are not read yet
        is_l3 = spec.protocol is Protocol.ANY and spec.ports == ALL_PORTS
        for protocol in _WITH_PORTS if spec.protocol is Protocol.ANY and not is_l3 else (spec.protocol,):
            wanted.setdefault(protocol, []).append(spec.ports)
    for protocol in sorted(wanted):
        joined: list[PortRange] = []
        for ports in sorted(wanted[protocol]):
            if joined and ports.first <= joined[-1].last:
                joined[-1] = PortRange(joined[-1].first, max(joined[-1].last, ports.last))
            else:
                joined.append(ports)
        yield from ((protocol, ports) for ports in joined)
