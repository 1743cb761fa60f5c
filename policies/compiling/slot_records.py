"""What is remembered of slots: the book, which the agent persists, and what was made of it last. Pure values."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pyroaring import BitMap, FrozenBitMap

from policies.ir import Address, EndpointPolicy, L7Parser, RuleSet, Slot, SlotState
from policies.types import Direction, PortRange, Protocol


class SlotPlace(NamedTuple):
    """Where a slot stands. A port range of another shape, or another parser, is another place."""

    group: int
    direction: Direction
    protocol: Protocol
    ports: PortRange
    parser: L7Parser = L7Parser.HTTP

    def name(self, number: int) -> str:
        """ingress:4711:tcp:80, egress:4711:udp:53:dns; and with a number behind it if that name is taken."""
        base = f"{self.direction}:{self.group}:{self.protocol.name.lower()}:{self.ports}"
        if self.parser is not L7Parser.HTTP:
            base = f"{base}:{self.parser}"
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
class GroupSlots:
    """What was made of one group last. `given`: its policy without slots, None if there was none; `named`: with them.

    `open`: for records whose redirect is a wildcard's, by their index, the identities that are named beside it.
    `sent`: of all records together. Not `is_current`: all of it must be made again.
    """

    given: EndpointPolicy | None
    named: EndpointPolicy | None
    records: tuple[SlotRecord, ...]
    slots: tuple[Slot, ...] = ()
    open: tuple[tuple[int, FrozenBitMap], ...] = ()
    sent: FrozenBitMap = field(default_factory=FrozenBitMap)
    is_current: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """The node that the book was written for, as far as the next one is compared with it. `homes`: prefix -> identity;
    `users`: how many prefixes each identity has; `housed`: those that have one; `living`: those that somebody may
    have."""

    addresses: tuple[Address, ...] = ()
    homes: Mapping[str, int] = field(default_factory=dict)
    users: Mapping[int, int] = field(default_factory=dict)
    housed: FrozenBitMap = field(default_factory=FrozenBitMap)
    living: FrozenBitMap = field(default_factory=FrozenBitMap)
    groups: Mapping[int, GroupSlots] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SlotBook:
    """Every slot that is or may still be served. An immutable value; persisted by the agent.

    `seen` tells who changed labels and which groups need no second look; it is not persisted.
    """

    records: tuple[SlotRecord, ...] = ()
    seen: Seen | None = field(default=None, compare=False, repr=False)

    def forget(self, names: Iterable[str]) -> SlotBook:
        """Without these retired and drained slots: their listeners are gone, their names free. Active ones stay."""
        gone = set(names)
        dropped = [r for r in self.records if r.state is not SlotState.ACTIVE and r.name in gone]
        kept = tuple(r for r in self.records if r.state is SlotState.ACTIVE or r.name not in gone)
        if self.seen is None:
            return SlotBook(kept)
        groups = dict(self.seen.groups)
        for group in {record.place.group for record in dropped} & groups.keys():
            left = tuple(r for r in groups[group].records if r.state is SlotState.ACTIVE or r.name not in gone)
            groups[group] = replace(groups[group], records=left, is_current=False)
        return SlotBook(kept, replace(self.seen, groups=groups))

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


def _record_to_dict(record: SlotRecord) -> dict[str, Any]:
    place = record.place
    return {
        "name": record.name,
        "group": place.group,
        "direction": place.direction.value,
        "protocol": place.protocol.name,
        "ports": [place.ports.first, place.ports.last],
        "parser": place.parser.value,
        "state": record.state.value,
        "sent": _packed(record.sent),
    }


def _record_from_dict(stored: Mapping[str, Any]) -> SlotRecord:
    first, last = stored["ports"]
    direction, protocol = Direction(stored["direction"]), Protocol[stored["protocol"]]
    parser = L7Parser(stored.get("parser", L7Parser.HTTP))  # earlier agents knew of no other
    place = SlotPlace(int(stored["group"]), direction, protocol, PortRange(int(first), int(last)), parser)
    return SlotRecord(stored["name"], place, SlotState(stored["state"]), _unpacked(stored["sent"]))


def _packed(identities: FrozenBitMap) -> str:
    """Runs of numbers, in text: a slot for anybody was sent all identities of the cluster, and the book is written at
    each change."""
    compact = BitMap(identities)
    compact.run_optimize()
    return base64.b64encode(compact.serialize()).decode()


def _unpacked(stored: Any) -> FrozenBitMap:
    """What `_packed` made; or a list of numbers, which earlier agents wrote."""
    if not isinstance(stored, str):
        return FrozenBitMap(stored)
    try:
        return FrozenBitMap.deserialize(base64.b64decode(stored, validate=True))
    except ValueError:
        raise ValueError("stored slots: identities cannot be read") from None
