"""Many clauses, one answer per port and peer: the partition law of docs/decisions/0002, kept current. Pure.

For one direction of a policy group: ports are split into disjoint ranges at the boundaries of clauses, identities into
classes by the clauses that cover them; clauses for any peer are merged into every named class, and clauses for all
protocols into every protocol's pieces. What comes out needs no precedence.

A piece names only whom its own clauses cover, or, if it has a wildcard, whoever is covered otherwise than that: all
others fall through to the piece of all protocols. An identity that comes or goes moves between the classes of the
pieces that it concerns; nothing else is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pyroaring import BitMap, FrozenBitMap

from policies.compiling.decisions import Decision, RuleSets, conflicting, decide
from policies.compiling.named_ports import NamedPorts, OwnPorts, PortName
from policies.compiling.partition import Class, bits, classes, port_pieces
from policies.compiling.peersets import PeerSet
from policies.compiling.shapes import BoundClause, Shape
from policies.ir import WILDCARD, DirectionPolicy, L7Parser, PeerRule, PortPolicy, Verdict
from policies.types import ALL_PORTS, IDENTITY_HOST, Direction, Origin, PortRange, Protocol

# allow-localhost=always: the node reaches its pods (kubelet probes) and is never proxied (facts 3.1).
ALLOW_LOCALHOST: Final = Origin("deflector", "", "allow-localhost", "")
_LOCALHOST: Final = Decision(Verdict.ALLOW, (ALLOW_LOCALHOST,))
_HOST: Final = FrozenBitMap([IDENTITY_HOST])

# Identities times pieces that one direction of one group may name: as many as the kernel's map has entries for all
# groups together. Beyond it the policy could not be enforced, and one group must not cost the node its memory.
NAMED_MAX: Final = 1_000_000
# From here on moving identities one by one costs more than splitting them anew.
_MOVES_MAX: Final = 256
# Classes of a piece whose shapes are remembered.
_KNOWN_MAX: Final = 1024


class MergeFailed(Exception):
    """The clauses cannot be merged; the text says why. The group keeps its last good policy, or is denied."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Clauses of two parsers or more for the same peers, and the ports where those are denied for it."""

    protocol: Protocol
    ports: PortRange
    clauses: Mapping[L7Parser, tuple[Origin, ...]]


@dataclass(frozen=True, slots=True)
class Implicit:
    """What holds without any clause. `allow_host`: the node is let in unless a clause denies it. `otherwise`: what
    becomes of those whom no clause covers, instead of the default deny."""

    allow_host: bool = False
    otherwise: Decision | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a direction of a group is made of. `own_ports`: of the group's pods, where ingress clauses name some."""

    direction: Direction
    clauses: tuple[BoundClause, ...]
    implicit: Implicit
    own_ports: OwnPorts = ()


_Entry = tuple[Shape, int]  # a shape, and the bit of its peers: 0 for anybody
_Replaced = tuple[PeerRule | None, PeerRule | None]  # a rule, and the one in its place


class MergedDirection:
    """The policy of one direction, shared by all groups with the same inputs. `policy` is replaced when it changes;
    pieces that do not change stay the same objects."""

    def __init__(self, inputs: Inputs, names: NamedPorts, rule_sets: RuleSets) -> None:
        self.policy = DirectionPolicy(enforced=True)
        self.failure: MergeFailed | None = None
        self.sets: dict[PeerSet, int] = {}  # each with its bit
        self._inputs = inputs
        self._names = names
        self._rule_sets = rule_sets
        self._pieces: list[_Piece] = []
        self._asked = sorted({PortName(n.name, n.protocol) for c in inputs.clauses for n in c.named})
        self._asks_peers = bool(self._asked) and inputs.direction is Direction.EGRESS
        self._version = 0
        self._build()

    @property
    def conflicts(self) -> Iterator[Conflict]:
        """What nobody can judge; few pieces have to be looked at."""
        return (conflict for piece in self._pieces if piece.is_of_many for conflict in piece.conflicts())

    def follow(self, changed: Mapping[PeerSet, BitMap]) -> None:
        """Identities came to these peer sets or left them; names of ports may mean something else."""
        flips = {peers: changed[peers] for peers in self.sets if peers in changed}
        if self._asks_peers and (flips or self._names.version(self._asked) != self._version):
            self._build()
        elif flips:
            moved = BitMap.union(BitMap(), *flips.values())
            if len(moved) > _MOVES_MAX or self.failure or (self._inputs.implicit.allow_host and IDENTITY_HOST in moved):
                self._build()
            else:
                self._move(moved, flips)

    def _move(self, moved: BitMap, flips: Mapping[PeerSet, BitMap]) -> None:
        journeys: dict[tuple[int, int], BitMap] = {}
        touched = 0
        for identity in moved:
            now = before = 0
            for peers, bit in self.sets.items():
                if identity in peers.members:
                    now |= bit
            for peers, there in flips.items():
                if identity in there:
                    before |= self.sets[peers]
            before ^= now
            touched |= before | now
            journeys.setdefault((before, now), BitMap()).add(identity)
        if [piece for piece in self._pieces if piece.relevant & touched and piece.move(journeys)]:
            self._publish()

    def _build(self) -> None:
        before = self.policy
        self._version = self._names.version(self._asked)
        self.sets = {}
        entries, by_name = self._entries()
        members = [peers.members for peers in self.sets]
        extra = {1 << len(members) + i: chosen for i, chosen in enumerate(by_name)}
        split = classes([*members, *extra.values()])
        host_mask = 0
        if self._inputs.implicit.allow_host:
            host_mask = sum(mask for mask, who in split if IDENTITY_HOST in who)
            split = [(mask, rest) for mask, who in split if (rest := who - _HOST)]
        self._pieces = self._split_ports(entries)
        named = 0
        for piece in self._pieces:
            named += piece.fill(split, host_mask)
            if named > NAMED_MAX:
                self._pieces, self.policy = [], DirectionPolicy(enforced=True)
                self.failure = MergeFailed(
                    f"more than {NAMED_MAX:,} pairs of port range and peer: select fewer of either"
                )
                return
        self.failure = None
        self._publish()
        if self.policy == before:  # whoever compares objects need not look into them
            self.policy = before

    def _entries(self) -> tuple[list[_Entry], list[BitMap]]:
        """Every shape with the bit of its peers; and the sets, with bits after those, of peers by a port's name."""
        entries: list[_Entry] = []
        named: list[tuple[BoundClause, Shape, BitMap]] = []
        for clause in self._inputs.clauses:
            bit = 0
            if clause.peers is not None:
                bit = self.sets.setdefault(clause.peers, 1 << len(self.sets))
            entries += ((shape, bit) for shape in clause.shapes)
            if self._inputs.direction is Direction.INGRESS:
                entries += ((shape, bit) for shape in _own(clause, self._inputs.own_ports))
            else:
                named += ((clause, *found) for found in self._of_peers(clause))
        by_name: list[BitMap] = []
        for clause, shape, carriers in named:
            entries.append((shape, 1 << len(self.sets) + len(by_name)))
            by_name.append(carriers if clause.peers is None else carriers & clause.peers.members)
        return entries, by_name

    def _of_peers(self, clause: BoundClause) -> Iterable[tuple[Shape, BitMap]]:
        for named in clause.named:
            for number, carriers in self._names.carriers(PortName(named.name, named.protocol)):
                yield clause.resolved(named, number), carriers

    def _split_ports(self, entries: Sequence[_Entry]) -> list[_Piece]:
        everywhere = [entry for entry in entries if entry[0].protocol is Protocol.ANY]
        common = (self._inputs.implicit, self._rule_sets)
        base = _Piece((Protocol.ANY, ALL_PORTS), _Cover(everywhere, ()), None, common)
        pieces = [base]
        for protocol in sorted({shape.protocol for shape, _ in entries} - {Protocol.ANY}):
            own = [entry for entry in entries if entry[0].protocol is protocol]
            for ports, covering in port_pieces([shape.ports for shape, _ in own]):
                cover = _Cover([own[i] for i in covering], everywhere)
                pieces.append(_Piece((protocol, ports), cover, base, common))
        return pieces

    def _publish(self) -> None:
        self.policy = DirectionPolicy(True, tuple([piece.policy for piece in self._pieces if piece.policy is not None]))


def _own(clause: BoundClause, own_ports: OwnPorts) -> Iterable[Shape]:
    for named in clause.named:
        for name, number in own_ports:
            if name == (named.name, named.protocol):
                yield clause.resolved(named, number)


class _Cover:
    """The shapes that cover one piece, by the bit of their peers: its own, and those of all protocols."""

    def __init__(self, own: Sequence[_Entry], everywhere: Sequence[_Entry]) -> None:
        self.has_wildcard = any(not bit for _, bit in own)
        self.is_of_many = len({shape.parser for shape, _ in own} - {None}) > 1  # parsers; none is for all protocols
        self.own_mask = 0
        self.mask = 0
        self._by_bit: dict[int, list[Shape]] = {}
        for shape, bit in own:
            self._by_bit.setdefault(bit, []).append(shape)
            self.own_mask |= bit
        for shape, bit in everywhere:
            self._by_bit.setdefault(bit, []).append(shape)
            self.mask |= bit
        self.mask |= self.own_mask

    def deciding(self, mask: int) -> tuple[Shape, ...]:
        """The shapes that decide about a class, in order: those that deny, else all that cover it. 0 is whoever is in
        no peer set."""
        shapes = list(self._by_bit.get(0, ()))
        for bit in bits(mask & self.mask):
            shapes += self._by_bit[1 << bit]
        return tuple([shape for shape in shapes if shape.denies] or shapes)


class _Piece:
    """One port range: its cover, and the rules for the classes that it names. `base`: the piece of all protocols."""

    def __init__(
        self, place: tuple[Protocol, PortRange], cover: _Cover, base: _Piece | None, common: tuple[Implicit, RuleSets]
    ) -> None:
        self.policy: PortPolicy | None = None  # if it says anything; the same object until that changes
        self._place = place
        # Who is in none of these sets is of no concern here.
        self.relevant = cover.mask if cover.has_wildcard or base is None else cover.own_mask
        self._cover = cover
        self._base = base
        self._implicit, self._rule_sets = common
        self.is_of_many = cover.is_of_many
        self._rules: dict[tuple[Shape, ...], PeerRule] = {}  # by the shapes that decide
        self._known: dict[int, tuple[Shape, ...]] = {}  # shapes that decide about a class to be named

    def fill(self, split: Iterable[Class], host_mask: int) -> int:
        """Take in all classes; how many identities are named."""
        cover = self._cover
        by_mask: dict[int, list[BitMap]] = {}
        for mask, members in split:
            if mask & self.relevant:
                by_mask.setdefault(mask & cover.mask, []).append(members)
        found: dict[tuple[Shape, ...], list[BitMap]] = {}
        for mask, parts in by_mask.items():
            if deciding := self._named(mask):
                found.setdefault(deciding, []).extend(parts)
        self._rules = {shapes: self._rule(shapes, _union(parts)) for shapes, parts in found.items()}
        self._publish(sorted([*self._wildcard_and_host(host_mask), *self._rules.values()], key=_first))
        return sum(len(rule.identities) for rule in self._rules.values())

    def move(self, journeys: Mapping[tuple[int, int], BitMap]) -> bool:
        """Identities change their classes; whether that changes anything here."""
        moves: list[_Replaced] = []
        all_bits, relevant, known = self._cover.mask, self.relevant, self._known
        for (before, now), members in journeys.items():
            if not (before | now) & relevant or not (before ^ now) & all_bits:
                continue
            if (old := known.get(before & all_bits)) is None:
                old = self._named(before)
            if (new := known.get(now & all_bits)) is None:
                new = self._named(now)
            if old == new:
                continue
            if old:
                moves.append(self._put(old, self._rules[old].identities - members))
            if new:
                there = self._rules.get(new)
                moves.append(self._put(new, there.identities | members if there else FrozenBitMap(members)))
        if moves:
            self._replace(moves)
        return bool(moves)

    def conflicts(self) -> Iterator[Conflict]:
        """Of everybody whom it names."""
        wildcard = [self._cover.deciding(0)] if self._cover.has_wildcard else []
        for shapes in (*wildcard, *self._rules):
            if clauses := conflicting(shapes):
                yield Conflict(*self._place, clauses)

    def _put(self, shapes: tuple[Shape, ...], identities: FrozenBitMap) -> _Replaced:
        """These identities, and no others, are what these shapes decide about."""
        known = self._rules.pop(shapes, None)
        if not identities:
            return known, None
        if known is None:
            rule = self._rule(shapes, identities)
        else:
            rule = PeerRule(identities, known.verdict, known.origins, known.rule_set)
        self._rules[shapes] = rule
        return known, rule

    def _replace(self, moves: Iterable[_Replaced]) -> None:
        """The policy with other rules in the place of some."""
        peers = list(self.policy.peers) if self.policy is not None else []
        is_sorted = True
        for old, new in moves:
            if old is None:
                peers += [new] if new is not None else []
                is_sorted = False
                continue
            at = 0
            while peers[at] is not old:
                at += 1
            if new is None:
                del peers[at]
            else:
                peers[at] = new
                is_sorted = is_sorted and old.identities[0] == new.identities[0]
        self._publish(peers if is_sorted else sorted(peers, key=_first))

    def _publish(self, peers: Iterable[PeerRule]) -> None:
        rules = tuple(peers)
        self.policy = PortPolicy(*self._place, rules) if rules else None

    def _named(self, mask: int) -> tuple[Shape, ...]:
        """The shapes that decide about a class that the piece has to name; none for other classes."""
        mask &= self._cover.mask
        found = self._known.get(mask)
        if found is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            found = self._known[mask] = self._to_name(mask)
        return found

    def _to_name(self, mask: int) -> tuple[Shape, ...]:
        cover, base = self._cover, self._base
        deciding = cover.deciding(mask)
        if base is None:
            return deciding if mask else ()
        if cover.has_wildcard:
            # Whom all protocols name would be found there before this wildcard.
            is_named_there = mask & base._cover.mask
            return deciding if is_named_there or (mask & cover.own_mask and deciding != cover.deciding(0)) else ()
        # Denied there and nothing more here: it falls through.
        return deciding if mask & cover.own_mask and deciding != base._cover.deciding(mask) else ()

    def _wildcard_and_host(self, host_mask: int) -> Iterable[PeerRule]:
        wildcard: PeerRule | None = None
        if self._cover.has_wildcard:
            wildcard = self._rule(self._cover.deciding(0), WILDCARD)
        elif self._base is None and self._implicit.otherwise is not None:
            wildcard = _peer_rule(self._implicit.otherwise, WILDCARD)
        if wildcard is not None:
            yield wildcard
        if not self._implicit.allow_host:
            return
        denials = _denials(self._cover, host_mask)
        if self._base is None or wildcard is not None or denials != _denials(self._base._cover, host_mask):
            yield self._rule(denials, _HOST) if denials else _peer_rule(_LOCALHOST, _HOST)

    def _rule(self, shapes: tuple[Shape, ...], identities: FrozenBitMap) -> PeerRule:
        return _peer_rule(decide(shapes, self._rule_sets), identities)


def _first(rule: PeerRule) -> int:
    return rule.identities[0]


def _denials(cover: _Cover, host_mask: int) -> tuple[Shape, ...]:
    """What denies the node, which is let in otherwise, and not proxied."""
    return tuple(shape for shape in cover.deciding(host_mask) if shape.denies)


def _peer_rule(decision: Decision, identities: FrozenBitMap) -> PeerRule:
    return PeerRule(identities, decision.verdict, decision.origins, decision.rule_set)


def _union(parts: Sequence[BitMap]) -> FrozenBitMap:
    return FrozenBitMap(parts[0] if len(parts) == 1 else BitMap.union(*parts))
