"""Which slot judges which peers, kept across edits: the continuity law of docs/decisions/0005. Pure.

A slot is known by policy group, direction, protocol and port range; what identities it was ever sent is written down
in the book. After an edit, every identity that may still have connections there must be judged alike, else the slot is
retired. Who is denied now has connections as well: the kernel stops what he sends from now on, but a request that is on
its way, or waits in the proxy behind another one, is judged when its turn comes. So rules do not change, nor become
"allow", under somebody who is denied. No request is ever judged by rules that are not its own. A pod whose labels
change keeps its connections: its new identity is taken for one that was sent where the old one was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from pyroaring import FrozenBitMap

from policies.ir import (
    DirectionPolicy,
    EndpointPolicy,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    Slot,
    SlotState,
    Verdict,
)
from policies.types import IDENTITY_ANY, RESERVED_LABELS, Direction, Origin, PortRange, Protocol

# Why a drained slot allows where no rule says so: the direction is not enforced any more.
NOT_ENFORCED: Final = Origin("deflector", "", "not-enforced", "")


class SlotPlace(NamedTuple):
    """Where a slot stands. A port range of another shape is another place."""

    group: int
    direction: Direction
    protocol: Protocol
    ports: PortRange

    def name(self, number: int) -> str:
        """ingress:4711:tcp:80, and with a number behind it if that name is taken."""
        base = f"{self.direction}:{self.group}:{self.protocol.name.lower()}:{self.ports}"
        return f"{base}:{number}" if number else base


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """`sent`: identities that the kernel ever sent there while it was active, less those that exist no more.

    `rule_set`: what it judged by at last, if known; not persisted.
    """

    name: str
    place: SlotPlace
    state: SlotState
    sent: FrozenBitMap
    rule_set: RuleSet | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SlotBook:
    """Every slot that is or may still be served. An immutable value; persisted by the agent.

    `homes` (address prefix -> identity, as last assigned) tells who changed labels; it is not persisted.
    """

    records: tuple[SlotRecord, ...] = ()
    homes: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    def forget(self, names: Iterable[str]) -> SlotBook:
        """Without these retired and drained slots: their listeners are gone, their names free. Active ones stay."""
        gone = set(names)
        kept = (r for r in self.records if r.state is SlotState.ACTIVE or r.name not in gone)
        return replace(self, records=tuple(kept))

    def to_dict(self) -> dict[str, Any]:
        """Plain data to persist."""
        return {"slots": [_record_to_dict(record) for record in self.records]}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> SlotBook:
        """What to_dict gave, or {} for a fresh start. Raises KeyError or ValueError for anything else."""
        records = [_record_from_dict(item) for item in stored.get("slots", ())]
        if len({record.name for record in records}) != len(records):
            raise ValueError("stored slots: a name is there twice")
        return cls(tuple(sorted(records, key=lambda record: record.name)))


def assign(node: NodePolicy, book: SlotBook) -> tuple[NodePolicy, SlotBook]:
    """Give every redirect its slot. Retired and drained slots stay in the node until the book forgets them.

    Slots that `node` may already name are ignored: the book alone knows.
    """
    living = _Living(node)
    moves = _Moves(book, node)
    by_place: dict[SlotPlace, list[SlotRecord]] = {}
    for record in book.records:
        by_place.setdefault(record.place, []).append(_updated(record, moves, living))
    taken = {record.name for record in book.records}
    slots: list[Slot] = []
    records: list[SlotRecord] = []
    names: dict[tuple[SlotPlace, int], str] = {}
    for place in living.places:
        round_ = _Round(place, living, by_place.pop(place, []))
        for target, record in round_.continued(taken):
            names[place, target.index] = record.name
            records.append(record)
            slots.append(_slot(record, target.rule_set))
        for record in round_.left:
            _lay_down(record, living, (records, slots))
    for orphans in by_place.values():
        for record in orphans:
            _lay_down(record, living, (records, slots))
    policies = tuple(_named(policy, names) for policy in node.policies)
    named = replace(node, policies=policies, slots=tuple(sorted(slots, key=lambda slot: slot.name)))
    return named, SlotBook(tuple(sorted(records, key=lambda record: record.name)), moves.homes)


def _updated(record: SlotRecord, moves: _Moves, living: _Living) -> SlotRecord:
    """The record with identities as they are now; retired if one of the pods behind it has other labels now."""
    state = SlotState.RETIRED if record.place.group in moves.left else record.state
    moved = {new for old, new in moves.identities if old in record.sent}
    if state is record.state and not moved and record.sent <= living.identities:
        return record
    return replace(record, state=state, sent=(record.sent | FrozenBitMap(moved)) & living.identities)


class _Moves:
    """Who changed labels since the book was written: identities (old, new), and groups that local pods left."""

    def __init__(self, book: SlotBook, node: NodePolicy) -> None:
        self.homes = {address.prefix: address.identity for address in node.addresses}
        moved = {prefix for prefix, now in self.homes.items() if book.homes.get(prefix, now) != now}
        local = {address for endpoint in node.endpoints for address in endpoint.addresses} if moved else set()
        self.identities = {(book.homes[prefix], self.homes[prefix]) for prefix in moved}
        self.left = {book.homes[prefix] for prefix in moved if prefix.partition("/")[0] in local}


@dataclass(frozen=True, slots=True)
class _Target:
    """A redirect that wants a slot: its index among the peers, whom it covers now, and its rules."""

    index: int
    identities: FrozenBitMap
    rule_set: RuleSet


class _Living:
    """What is true now: identities that some address has, places that want slots, and what becomes of whom where."""

    def __init__(self, node: NodePolicy) -> None:
        # Reserved identities may be anybody's at any time; the wildcard's number is nobody's.
        self.identities = FrozenBitMap(
            {a.identity for a in node.addresses} | {p.group for p in node.policies} | RESERVED_LABELS.keys()
        ) - FrozenBitMap([IDENTITY_ANY])
        self.policies = {policy.group: policy for policy in node.policies}
        self.places = {
            SlotPlace(policy.group, direction, port.protocol, port.ports): port
            for policy in node.policies
            for direction in Direction
            for port in policy.direction(direction).ports
            if any(peer.verdict is Verdict.REDIRECT for peer in port.peers)
        }

    def outcomes(self, place: SlotPlace, sent: FrozenBitMap) -> tuple[set[Verdict], set[Origin]]:
        """What the kernel does now with these peers at this place, and by whose leave it lets them pass."""
        policy = self.policies.get(place.group)
        if policy is None:
            return set(), set()
        return _outcomes(policy.direction(place.direction), place, sent)


def _outcomes(direction: DirectionPolicy, place: SlotPlace, sent: FrozenBitMap) -> tuple[set[Verdict], set[Origin]]:
    if not direction.enforced:
        return {Verdict.ALLOW}, {NOT_ENFORCED}
    verdicts: set[Verdict] = set()
    origins: set[Origin] = set()
    for rules in _lookups(direction, place):
        named = FrozenBitMap.union(FrozenBitMap(), *(FrozenBitMap(rule.identities) for rule in rules))
        if not (sent <= named or any(rule.is_wildcard for rule in rules)):
            verdicts.add(Verdict.DENY)
        for rule in rules:
            covered = sent - named if rule.is_wildcard else sent & FrozenBitMap(rule.identities)
            if covered:
                verdicts.add(rule.verdict)
                origins |= set(rule.origins) if rule.verdict is Verdict.ALLOW else set()
    return verdicts, origins


def _lookups(direction: DirectionPolicy, place: SlotPlace) -> Iterator[list[PeerRule]]:
    """For each piece of the place's ports: the rules that the kernel would find there, each identity in one of them.

    The kernel looks for the identity first, then for the wildcard, each in the ports, then in Protocol.ANY.
    """
    own = [p for p in direction.ports if p.protocol is place.protocol and _overlap(p.ports, place.ports)]
    everywhere = [rule for p in direction.ports if p.protocol is Protocol.ANY for rule in p.peers]
    covered = sum(min(p.ports.last, place.ports.last) - max(p.ports.first, place.ports.first) + 1 for p in own)
    for port in own:
        yield _with_less_specific(port.peers, everywhere)
    if covered < place.ports.last - place.ports.first + 1:
        yield everywhere


def _with_less_specific(peers: tuple[PeerRule, ...], everywhere: list[PeerRule]) -> list[PeerRule]:
    named = FrozenBitMap.union(FrozenBitMap(), *(rule.identities for rule in peers))
    rest = ((rule, rule.identities - named) for rule in everywhere)
    return [*peers, *(replace(rule, identities=identities) for rule, identities in rest if identities)]


def _overlap(one: PortRange, other: PortRange) -> bool:
    return one.first <= other.last and other.first <= one.last


def _targets(port: PortPolicy, identities: FrozenBitMap) -> list[_Target]:
    """The redirects of a port; the wildcard stands for every living identity that no other rule names."""
    named = FrozenBitMap(i for rule in port.peers for i in rule.identities)
    return [
        _Target(index, identities - named if rule.is_wildcard else FrozenBitMap(rule.identities), rule.rule_set)
        for index, rule in enumerate(port.peers)
        if rule.rule_set is not None
    ]


class _Round:
    """One place: its redirects now, and the slots that it had."""

    def __init__(self, place: SlotPlace, living: _Living, had: list[SlotRecord]) -> None:
        self.left = list(had)
        self._place = place
        self._living = living
        self._targets = _targets(living.places[place], living.identities)

    def continued(self, taken: set[str]) -> Iterator[tuple[_Target, SlotRecord]]:
        """Each redirect with its slot: the one that may go on, or a new one. `left` is what remains."""
        heirs = self._heirs()
        for target in self._targets:
            record = heirs.get(target.index)
            if record is None:
                name, sent = self._new_name(taken), target.identities
                yield target, SlotRecord(name, self._place, SlotState.ACTIVE, sent, target.rule_set)
            else:
                self.left.remove(record)
                is_same = target.identities <= record.sent and record.rule_set is target.rule_set
                sent = record.sent | target.identities
                yield target, record if is_same else replace(record, sent=sent, rule_set=target.rule_set)

    def _heirs(self) -> dict[int, SlotRecord]:
        """For each redirect the slot that goes on for it: the one that most of its identities know, then the first."""
        candidates: dict[int, list[SlotRecord]] = {}
        for record in self.left:
            if record.state is SlotState.ACTIVE and (target := self._only_target(record)) is not None:
                candidates.setdefault(target.index, []).append(record)
        unsent = [r for r in self.left if r.state is SlotState.ACTIVE and not r.sent]  # nobody's: free for anybody
        heirs = {}
        for target in self._targets:
            known = candidates.get(target.index)
            if known is not None:
                heirs[target.index] = min(known, key=lambda r: (-len(r.sent & target.identities), r.name))
            elif unsent:
                heirs[target.index] = unsent.pop(0)
        return heirs

    def _only_target(self, record: SlotRecord) -> _Target | None:
        """The one redirect that all belong to who were sent to the slot. Others may only be denied now, and only while
        its rules stay as they are: who has connections there would be judged by others' rules."""
        found = [target for target in self._targets if record.sent.intersect(target.identities)]
        if len(found) != 1:
            return None
        others = record.sent - found[0].identities
        if others and record.rule_set not in (None, found[0].rule_set):
            return None
        return found[0] if not others or self._living.outcomes(self._place, others)[0] <= {Verdict.DENY} else None

    def _new_name(self, taken: set[str]) -> str:
        number = 0
        while (name := self._place.name(number)) in taken:
            number += 1
        taken.add(name)
        return name


def _lay_down(record: SlotRecord, living: _Living, out: tuple[list[SlotRecord], list[Slot]]) -> None:
    """A slot that is not continued: drained if every one of its peers is plainly allowed; while it is drained, they
    may be denied."""
    verdicts, origins = living.outcomes(record.place, record.sent)
    denied = {Verdict.DENY} if record.state is SlotState.DRAINED else set()
    is_drained = record.state is not SlotState.RETIRED and verdicts - denied == {Verdict.ALLOW}
    state = SlotState.DRAINED if is_drained else SlotState.RETIRED
    laid = replace(record, state=state)
    out[0].append(laid)
    out[1].append(_slot(laid, RuleSet(wildcard=tuple(sorted(origins))) if is_drained else RuleSet()))


def _slot(record: SlotRecord, rule_set: RuleSet) -> Slot:
    place = record.place
    return Slot(
        record.name, place.direction, place.group, place.protocol, place.ports, rule_set=rule_set, state=record.state
    )


def _named(policy: EndpointPolicy, names: Mapping[tuple[SlotPlace, int], str]) -> EndpointPolicy:
    """The policy with slot names in its redirects; the same object if it has none."""
    ingress, egress = (_named_direction(policy, direction, names) for direction in Direction)
    if ingress is policy.ingress and egress is policy.egress:
        return policy
    return replace(policy, ingress=ingress, egress=egress)


def _named_direction(
    policy: EndpointPolicy, direction: Direction, names: Mapping[tuple[SlotPlace, int], str]
) -> DirectionPolicy:
    before = policy.direction(direction)
    ports = tuple(_named_port(p, SlotPlace(policy.group, direction, p.protocol, p.ports), names) for p in before.ports)
    return before if all(a is b for a, b in zip(ports, before.ports, strict=True)) else replace(before, ports=ports)


def _named_port(port: PortPolicy, place: SlotPlace, names: Mapping[tuple[SlotPlace, int], str]) -> PortPolicy:
    slots = [names.get((place, index), "") for index in range(len(port.peers))]
    if all(name == peer.slot for name, peer in zip(slots, port.peers, strict=True)):
        return port
    peers = (replace(peer, slot=name) for peer, name in zip(port.peers, slots, strict=True))
    return replace(port, peers=tuple(peers))


def _record_to_dict(record: SlotRecord) -> dict[str, Any]:
    place = record.place
    return {
        "name": record.name,
        "group": place.group,
        "direction": place.direction.value,
        "protocol": place.protocol.name,
        "ports": [place.ports.first, place.ports.last],
        "state": record.state.value,
        "sent": list(record.sent),
    }


def _record_from_dict(stored: Mapping[str, Any]) -> SlotRecord:
    first, last = stored["ports"]
    direction, protocol = Direction(stored["direction"]), Protocol[stored["protocol"]]
    place = SlotPlace(int(stored["group"]), direction, protocol, PortRange(int(first), int(last)))
    return SlotRecord(stored["name"], place, SlotState(stored["state"]), FrozenBitMap(stored["sent"]))
