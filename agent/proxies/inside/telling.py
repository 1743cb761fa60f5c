"""What every proxy of ours has to tell: records, packed as they come, and counters. Pure, but for who is woken.

On the way of every request: a record costs some microseconds, most of them protobuf's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from agent.proxies.inside.outbox import Outbox
from policies.types import Origin
from xds.l7 import origins_of
from xds.protos.deflector.l7.v1 import reports_pb2 as pb

RECORDS_MAX: Final = 512  # in one batch

Accesses: TypeAlias = pb.DnsAccesses | pb.KafkaAccesses


@dataclass(slots=True, eq=False)
class Place:
    """Where a slot and a rule stand in a page, and the requests that passed by them: how many, and one of them."""

    slot: int
    rule: int
    passed: int = 0
    samples: tuple[Any, ...] = ()
    holds: object = None  # whatever its key is the id of, so that the id is nobody else's

    def count(self, access: Any) -> None:
        """One more request passed by the rule."""
        self.passed += 1
        self.samples = self.samples or (access,)


class Page:
    """The records of one batch. Slots and rules stand in it once, and are known by their places, from one on."""

    def __init__(self, kind: type[Accesses]) -> None:
        self._kind = kind
        self.accesses: Any = kind()
        self.denials = 0
        self._slots: dict[str, int] = {}
        self.places: dict[Hashable, Place] = {}

    def place(self, key: Hashable, slot: str, origins: Sequence[Origin], holds: object = None) -> Place:
        """A new place; of no slot and no rule it is 0."""
        rule = 0
        if origins:
            self.accesses.rules.add(origins=origins_of(origins))
            rule = len(self.accesses.rules)
        if slot and slot not in self._slots:
            self.accesses.slots.append(slot)
            self._slots[slot] = len(self.accesses.slots)
        found = self.places[key] = Place(self._slots.get(slot, 0), rule, holds=holds)
        return found

    def records(self) -> pb.Records:
        """Packed, and with them what is counted: requests that passed in sums, denials one by one."""
        accesses = self.accesses
        passed = [place for place in self.places.values() if place.passed]
        denied = [one for one in accesses.accesses if one.verdict == pb.DROPPED] if self.denials else []
        samples = [sample for place in passed for sample in place.samples]
        requests: Any = self._kind(slots=accesses.slots, rules=accesses.rules)
        requests.accesses.extend((*samples, *denied))
        return pb.Records(
            packed=accesses.SerializeToString(),
            flows=len(accesses.accesses),
            denials=self.denials,
            requests=requests.SerializeToString(),
            counts=[*(place.passed for place in passed), *[1] * len(denied)],
        )


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

    def _put(self) -> None:
        """A record was added to the page."""
        size = len(self._page.accesses.accesses)
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
        if self._page.accesses.accesses:
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
