"""The last flows, in a ring that never blocks who writes: the oldest gives way, and readers learn what they missed.

Every event has a sequence number, so a reader is a number and nothing else: the ring is the bounded queue of each
follower, however many there are. Denials stay longer (flows.denials). Pure; one thread.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from flow import flow_pb2

from flows.account import RingAccount
from flows.denials import Denials

CAPACITY = 4095
# Fields that tell like flows apart; of `policy_log` what is said of denials.
SPECIAL = frozenset(("time", "uuid", "l4", "l7", "trace_context", "policy_log", "Summary"))
CAPACITY_MAX = 65535


class Event(NamedTuple):
    """A serialised flow or loss, and when it was received (Unix time in ns; strictly increasing within a ring).

    A flow is `common` + `own`; `common` is shared with other events, which makes a full ring a third smaller. If there
    is a `common`, `own` has nothing but fields of SPECIAL; of these `common` has what filters ask for most: of `l4` all
    but ports, of `l7` which record it is.
    """

    time_ns: int
    own: bytes
    common: bytes = b""
    is_loss: bool = False
    is_denial: bool = False

    def flow(self) -> flow_pb2.Flow:
        """The flow; only of an event that is no loss."""
        return flow_pb2.Flow.FromString(self.common + self.own)

    def loss(self) -> flow_pb2.LostEvent:
        """The loss; only of an event that is one."""
        return flow_pb2.LostEvent.FromString(self.own)


class Ring:
    """Holds the last `capacity` events, which must be one less than a power of two (as Hubble's option demands)."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        if not 1 <= capacity <= CAPACITY_MAX or capacity & (capacity + 1):
            raise ValueError(f"capacity {capacity} is not 2^k-1 within 1..{CAPACITY_MAX}, for example {CAPACITY}")
        self.capacity = capacity
        self._events: list[Event | None] = [None] * capacity
        self.start = 0  # sequence number of the oldest event that is still here
        self.end = 0  # sequence number of the next event: how many there ever were
        self.flows_seen = 0
        self.flows_skipped = 0  # of those: never built, since nobody read them in time
        self.denials = Denials(capacity)
        self._losses_held = 0
        self._overwritten = 0  # flows but for denials, which are counted there

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, event: Event) -> None:
        """Readable at once."""
        at = self.end % self.capacity
        if self.end - self.start == self.capacity:
            self._count_gone(cast("Event", self._events[at]))
            self.start += 1
        self._events[at] = event
        if event.is_denial:
            self.denials.append(self.end, event)
        self.end += 1
        if event.is_loss:
            self._losses_held += 1
        else:
            self.flows_seen += 1

    def skip(self, flows: int) -> None:
        """Leave out flows of which none will be read: the next `capacity` events are there to overwrite them."""
        if self.start < self.end:
            for event in self.slice(self.start, self.end):
                self._count_gone(event)
            self._events = [None] * self.capacity
        self.end += flows
        self.start = self.end
        self.flows_seen += flows
        self.flows_skipped += flows

    def _count_gone(self, event: Event) -> None:
        if event.is_loss:
            self._losses_held -= 1
        elif not event.is_denial:
            self._overwritten += 1

    def account(self) -> RingAccount:
        """What became of every flow so far."""
        denials = self.denials
        return RingAccount(
            produced=self.flows_seen,
            skipped=self.flows_skipped,
            held=len(self) - self._losses_held + denials.count(0, self.start),
            overwritten=self._overwritten + denials.overwritten - denials.unbuilt,
            denials=denials.seen,
            denials_held=len(denials),
            denials_overwritten=denials.overwritten,
        )

    def __getitem__(self, sequence: int) -> Event:
        """The event with this number, start <= sequence < end, or a denial from before; otherwise IndexError."""
        event = self.get(sequence)
        if event is None:
            raise IndexError(f"event {sequence} is not within {self.start}..{self.end - 1}")
        return event

    def get(self, sequence: int) -> Event | None:
        """The event with this number, if it is still here."""
        if self.start <= sequence < self.end:
            return self._events[sequence % self.capacity]
        return self.denials.get(sequence)

    @property
    def oldest(self) -> int:
        """Sequence number of the oldest event that can be read: a denial, or `start`."""
        kept = self.denials.oldest
        return self.start if kept is None else min(kept, self.start)

    def previous(self, sequence: int) -> int | None:
        """Sequence number of the last event before this that can be read; None if there is none."""
        if sequence > self.start:
            return sequence - 1
        return self.denials.last_before(sequence)

    def slice(self, first: int, stop: int) -> list[Event]:
        """The events with these numbers, start <= first and stop <= end."""
        begin, count = first % self.capacity, max(0, stop - first)
        found = self._events[begin : begin + count]
        found += self._events[: count - len(found)]
        return cast("list[Event]", found)

    def first_since(self, time_ns: int) -> int:
        """Sequence number of the first event at or after this time, be it a denial from before; `end` if none."""
        low, high = self.start, self.end
        while low < high:
            middle = (low + high) // 2
            if self[middle].time_ns < time_ns:
                low = middle + 1
            else:
                high = middle
        kept = self.denials.first_since(time_ns)
        return low if kept is None else min(kept, low)
