"""Which slot judges which peers, kept across edits: the continuity law of docs/decisions/0005. Pure.

A slot is known by policy group, direction, protocol, port range and parser; what identities it was ever sent is
written down in the book. After an edit, every identity that may still have connections there must be judged alike, else
the slot is retired. Who is denied now has connections as well: the kernel stops what he sends from now on, but a
request that is on its way, or waits in the proxy behind another one, is judged when its turn comes. So rules do not
change, nor become "allow", under somebody who is denied. No request is ever judged by rules that are not its own. A pod
whose labels change keeps its connections: its new identity is taken for one that was sent where the old one was.

What did not change is not looked at again: a group whose policy is the same object, and none of whose peers is gone or
has new labels, keeps its slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pyroaring import FrozenBitMap

from policies.compiling.changes import changed_values
from policies.compiling.slot_records import GroupSlots, Seen, SlotBook, SlotPlace, SlotRecord
from policies.ir import (
    DirectionPolicy,
    EndpointPolicy,
    L7Parser,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    Slot,
    SlotState,
    Verdict,
)
from policies.types import IDENTITY_ANY, RESERVED_LABELS, Direction, Origin, PortRange, Protocol

__all__ = ["NOT_ENFORCED", "SlotBook", "SlotPlace", "SlotRecord", "assign"]

# Why a drained slot allows where no rule says so: the direction is not enforced any more.
NOT_ENFORCED: Final = Origin("deflector", "", "not-enforced", "")
# Reserved identities may be anybody's at any time; the wildcard's number is nobody's.
_ALWAYS: Final = FrozenBitMap(RESERVED_LABELS) - FrozenBitMap([IDENTITY_ANY])


def assign(node: NodePolicy, book: SlotBook) -> tuple[NodePolicy, SlotBook]:
    """Give every redirect its slot. Retired and drained slots stay in the node until the book forgets them.

    Slots that `node` may already name are ignored: the book alone knows.
    """
    census = _Census(node, book.seen)
    known = dict(book.seen.groups) if book.seen is not None else _by_group(book.records)
    policies = {policy.group: policy for policy in node.policies}
    groups: dict[int, GroupSlots] = {}
    for group in sorted(policies.keys() | known.keys()):
        found = _slots_of(group, policies.get(group), known.get(group), census)
        if found.given is not None or found.records:
            groups[group] = found
    records = sorted((r for found in groups.values() for r in found.records), key=lambda record: record.name)
    slots = sorted((slot for found in groups.values() for slot in found.slots), key=lambda slot: slot.name)
    named = tuple(groups[policy.group].named or policy for policy in node.policies)
    seen = Seen(node.addresses, census.homes, census.users, census.housed, census.living, groups)
    return replace(node, policies=named, slots=tuple(slots)), SlotBook(tuple(records), seen)


def _by_group(records: Iterable[SlotRecord]) -> dict[int, GroupSlots]:
    found: dict[int, list[SlotRecord]] = {}
    for record in records:
        found.setdefault(record.place.group, []).append(record)
    return {group: GroupSlots(None, None, tuple(had), is_current=False) for group, had in found.items()}


class _Census:
    """Who lives where now, and what that changes: identities that came or are gone, pods with other labels than before
    (`moves`: old and new identity), and groups that local pods left."""

    def __init__(self, node: NodePolicy, seen: Seen | None) -> None:
        before = seen or Seen()
        self.homes, self.users, self.housed = before.homes, before.users, before.housed
        changed: dict[str, int] = {}
        if node.addresses is not before.addresses:
            changed = self._rehouse(node, before)
        moved = {prefix: old for prefix, old in changed.items() if prefix in self.homes}
        local = {address for endpoint in node.endpoints for address in endpoint.addresses} if moved else set()
        self.moves = {(old, self.homes[prefix]) for prefix, old in moved.items()}
        self.left = {old for prefix, old in moved.items() if prefix.partition("/")[0] in local}
        groups = FrozenBitMap([policy.group for policy in node.policies])
        self.living = (self.housed | groups | _ALWAYS) - FrozenBitMap([IDENTITY_ANY])
        self.came = self.living - before.living
        self.gone = before.living - self.living
        self._changed = self.gone | FrozenBitMap([old for old, _ in self.moves])

    def touches(self, group: int, sent: FrozenBitMap) -> bool:
        """Whether any of them is gone or has other labels, or a pod of the group has."""
        return group in self.left or not self._changed.isdisjoint(sent)

    def _rehouse(self, node: NodePolicy, before: Seen) -> dict[str, int]:
        """Prefixes whose identity changed or went, with the one that they had."""
        old, new = changed_values(before.addresses, node.addresses)
        homes, users = dict(self.homes), Counter(self.users)
        was = {address.prefix: address.identity for address in old}
        now = {address.prefix: address.identity for address in new}
        for prefix, identity in was.items():
            del homes[prefix]
            users[identity] -= 1
            if not users[identity]:
                del users[identity]
        homes |= now
        users.update(now.values())
        self.homes, self.users = homes, users
        seen = FrozenBitMap([*was.values(), *now.values()])
        self.housed = (self.housed - seen) | FrozenBitMap([identity for identity in seen if users[identity]])
        return {prefix: identity for prefix, identity in was.items() if now.get(prefix) != identity}


def _slots_of(group: int, policy: EndpointPolicy | None, known: GroupSlots | None, census: _Census) -> GroupSlots:
    if known is not None and known.is_current and known.given is policy and not census.touches(group, known.sent):
        return _with_more(known, census.came) if census.came and known.open else known
    had = known.records if known is not None else ()
    living = _Living(policy, census.living)
    by_place: dict[SlotPlace, list[SlotRecord]] = {}
    for record in had:
        by_place.setdefault(record.place, []).append(_updated(record, census))
    taken = {record.name for record in had}
    records: list[SlotRecord] = []
    slots: list[Slot] = []
    names: dict[int, dict[int, str]] = {}  # by the id of the port, then by the index of the rule
    opened: list[tuple[int, FrozenBitMap]] = []
    for place in living.places:
        round_ = _Round(place, living, by_place.pop(place, []))
        for target, record in round_.continued(taken):
            names.setdefault(id(living.places[place]), {})[target.index] = record.name
            if target.beside is not None:
                opened.append((len(records), target.beside))
            records.append(record)
            slots.append(_slot(record, target.rule_set))
        for record in round_.left:
            _lay_down(record, living, (records, slots))
    for record in (record for orphans in by_place.values() for record in orphans):
        _lay_down(record, living, (records, slots))
    named = _named(policy, names) if policy is not None else None
    return GroupSlots(policy, named, tuple(records), tuple(slots), tuple(opened), _sent(records))


def _with_more(known: GroupSlots, came: FrozenBitMap) -> GroupSlots:
    """The same slots, to whose wildcards some more identities are sent now."""
    records = list(known.records)
    for index, beside in known.open:
        if more := came - beside - records[index].sent:
            records[index] = replace(records[index], sent=records[index].sent | more)
    return replace(known, records=tuple(records), sent=_sent(records))


def _sent(records: Sequence[SlotRecord]) -> FrozenBitMap:
    return FrozenBitMap.union(FrozenBitMap(), *(record.sent for record in records))


def _updated(record: SlotRecord, census: _Census) -> SlotRecord:
    """The record with identities as they are now; retired if one of the pods behind it has other labels now."""
    state = SlotState.RETIRED if record.place.group in census.left else record.state
    moved = {new for old, new in census.moves if old in record.sent}
    if state is record.state and not moved and record.sent <= census.living:
        return record
    return replace(record, state=state, sent=(record.sent | FrozenBitMap(moved)) & census.living)


@dataclass(frozen=True, slots=True)
class _Target:
    """A redirect that wants a slot: its index among the peers, whom it covers now, and its rules. `beside`: of a
    wildcard, who is named beside it."""

    index: int
    identities: FrozenBitMap
    rule_set: RuleSet
    beside: FrozenBitMap | None = None


class _Living:
    """What is true now of one group: identities that some address has, places that want slots, and what becomes of whom
    where."""

    def __init__(self, policy: EndpointPolicy | None, identities: FrozenBitMap) -> None:
        self.identities = identities
        self._policy = policy
        self.places: dict[SlotPlace, PortPolicy] = {}
        if policy is None:
            return
        for direction in Direction:
            for port in policy.direction(direction).ports:
                for peer in port.peers:
                    if (rules := peer.rule_set) is not None:
                        place = SlotPlace(policy.group, direction, port.protocol, port.ports, rules.parser)
                        self.places[place] = port

    def outcomes(self, place: SlotPlace, sent: FrozenBitMap) -> tuple[set[Verdict], set[Origin]]:
        """What the kernel does now with these peers at this place, and by whose leave it lets them pass."""
        if self._policy is None:
            return set(), set()
        return _outcomes(self._policy.direction(place.direction), place, sent)


def _outcomes(direction: DirectionPolicy, place: SlotPlace, sent: FrozenBitMap) -> tuple[set[Verdict], set[Origin]]:
    if not direction.enforced:
        return {Verdict.ALLOW}, {NOT_ENFORCED}
    verdicts: set[Verdict] = set()
    origins: set[Origin] = set()
    for rules in _lookups(direction, place):
        named = FrozenBitMap.union(FrozenBitMap(), *(rule.identities for rule in rules))
        if not (sent <= named or any(rule.is_wildcard for rule in rules)):
            verdicts.add(Verdict.DENY)
        for rule in rules:
            covered = sent - named if rule.is_wildcard else sent & rule.identities
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


def _targets(port: PortPolicy, parser: L7Parser, identities: FrozenBitMap) -> list[_Target]:
    """The redirects of a port to one parser; the wildcard stands for every living identity that no other rule names."""
    named = FrozenBitMap.union(FrozenBitMap(), *(rule.identities for rule in port.peers))
    return [
        _Target(index, identities - named, rule.rule_set, named)
        if rule.is_wildcard
        else _Target(index, rule.identities, rule.rule_set)
        for index, rule in enumerate(port.peers)
        if rule.rule_set is not None and rule.rule_set.parser is parser
    ]


class _Round:
    """One place: its redirects now, and the slots that it had."""

    def __init__(self, place: SlotPlace, living: _Living, had: list[SlotRecord]) -> None:
        self.left = list(had)
        self._place = place
        self._living = living
        self._targets = _targets(living.places[place], place.parser, living.identities)

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
    where = (place.direction, place.group, place.protocol, place.ports)
    return Slot(record.name, *where, rule_set=rule_set, state=record.state, parser=place.parser)


def _named(policy: EndpointPolicy, names: Mapping[int, Mapping[int, str]]) -> EndpointPolicy:
    """The policy with slot names in its redirects; the same object if it has none."""
    ingress, egress = (_named_direction(policy.direction(direction), names) for direction in Direction)
    if ingress is policy.ingress and egress is policy.egress:
        return policy
    return replace(policy, ingress=ingress, egress=egress)


def _named_direction(before: DirectionPolicy, names: Mapping[int, Mapping[int, str]]) -> DirectionPolicy:
    is_same = True
    ports = list(before.ports)
    for i, port in enumerate(before.ports):
        slots = names.get(id(port))
        if slots is not None and any(port.peers[index].slot != name for index, name in slots.items()):
            peers = (replace(peer, slot=slots.get(index, "")) for index, peer in enumerate(port.peers))
            ports[i] = replace(port, peers=tuple(peers))
            is_same = False
    return before if is_same else replace(before, ports=tuple(ports))
