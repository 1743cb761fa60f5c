"""What every proxy of ours has to tell: records, packed as they come, and counters. Pure, but for who is woken.

On the way of every request: a record costs some microseconds, most of them protobuf's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from agent.proxies.inside.outbox import Outbox
from agent.proxies.inside.wire_format import blob
from policies.types import Origin
from xds.l7 import origins_of
from xds.protos.deflector.l7.v1 import reports_pb2 as pb

RECORDS_MAX: Final = 512  # in one batch
_ACCESSES: Final = b"\x1a"  # the field of DnsAccesses and of KafkaAccesses, and that it has a length

Accesses: TypeAlias = pb.DnsAccesses | pb.KafkaAccesses


@dataclass(slots=True, eq=False)
class Place:
    """Where a slot and a rule stand in a page, and the requests that passed by them: how many, and one of them."""

    slot: int
    rule: int
    passed: int = 0
    sample: bytes = b""
    common: bytes = b""  # with which accesses begin that have this place
    holds: object = None  # whatever its key is the id of, so that the id is nobody else's

    def count(self, access: bytes) -> None:
        """One more request passed by the rule."""
        self.passed += 1
        if not self.sample:
            self.sample = access


class Page:
    """The records of one batch, as serialised messages. Slots and rules stand in it once, and are known by their
    places, from one on."""

    def __init__(self, kind: type[Accesses]) -> None:
        self._head = kind()
        self.accesses: list[bytes] = []
        self.denials: list[bytes] = []  # those of them that are
        self._slots: dict[str, int] = {}
        self._rules: dict[tuple[Origin, ...], int] = {}
        self.places: dict[Hashable, Place] = {}

    def place(self, key: Hashable, slot: str, origins: Sequence[Origin], holds: object = None) -> Place:
        """A new place; of no slot and no rule it is 0."""
        by = tuple(origins)
        if by and by not in self._rules:
            self._head.rules.add(origins=origins_of(by))
            self._rules[by] = len(self._head.rules)
        if slot and slot not in self._slots:
            self._head.slots.append(slot)
            self._slots[slot] = len(self._head.slots)
        found = self.places[key] = Place(self._slots.get(slot, 0), self._rules.get(by, 0), holds=holds)
        return found

    def records(self) -> pb.Records:
        """Packed, and with them what is counted: requests that passed in sums, denials one by one."""
        head = self._head.SerializeToString()
        passed = [place for place in self.places.values() if place.passed]
        return pb.Records(
            packed=_after(head, self.accesses),
            flows=len(self.accesses),
            denials=len(self.denials),
            requests=_after(head, [*(place.sample for place in passed), *self.denials]),
            counts=[*(place.passed for place in passed), *[1] * len(self.denials)],
        )


def _after(head: bytes, accesses: Iterable[bytes]) -> bytes:
    """A message whose accesses follow what else there is in it."""
    return head + b"".join([blob(_ACCESSES, access) for access in accesses])


class Telling(ABC):
    """What of a Source is the same for all. `wake(urgent)` when there is something to tell; `counted` gives the
    proxy's own counts."""

    def __init__(self, wake: Callable[[bool], None], kind: type[Accesses]) -> None:
        self._wake = wake
        self._kind = kind
        self._page = Page(kind)
        self._outbox = Outbox(lambda packed: denials_of(packed, kind))
        self._counts: Counter[str] = Counter()
        self._told_counts: dict[str, int] = {}
        self.counted: Callable[[], dict[str, int]] = dict

    def _put(self, access: bytes) -> None:
        """Add it to the page."""
        accesses = self._page.accesses
        accesses.append(access)
        size = len(accesses)
        if size == 1:
            self._wake(False)
        elif size >= RECORDS_MAX:
            self._pack()

    def _pack(self) -> None:
        page, self._page = self._page, Page(self._kind)
        self._outbox.put(page.records())
        self._wake(False)

    def _packed(self) -> pb.Records | None:
        """The oldest records that wait."""
        if self._page.accesses:
            self._pack()
        return self._outbox.take()

    @abstractmethod
    def batch(self) -> pb.Batch | None:
        """The next batch; None if nothing waits."""

    def away(self) -> None:
        """The agent is gone, or not there yet."""
        self._told_counts = {}

    def _with_counters(self, batch: pb.Batch) -> pb.Batch | None:
        """The batch, with counters that have moved; None where nothing is left to tell."""
        counts = {**self._counts, **self.counted(), "records": self._outbox.lost}
        if counts != self._told_counts:
            self._told_counts = counts
            batch.counters.update(counts)
        return batch if batch.ByteSize() else None


def denials_of(packed: bytes, kind: type[Accesses]) -> bytes:
    """The same records, but for those that are no denials."""
    accesses: Any = kind.FromString(packed)
    left: Any = kind(slots=accesses.slots, rules=accesses.rules)
    left.accesses.extend(one for one in accesses.accesses if one.verdict == pb.DROPPED)
    thin: bytes = left.SerializeToString()
    return thin
