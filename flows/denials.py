"""The last denials, in a ring of their own: they outlive floods of flows that were forwarded. Pure.

What people look for is what was refused; it must not be washed away by what was not. So a denial stays readable here,
under the number that it had among all events, after the ring of all events has overwritten it.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.ring import Event


class Denials:
    """Holds the last `capacity` denials, by rising sequence number."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.seen = 0
        self.unbuilt = 0  # of those that had to give way: never built
        self._numbers: list[int] = []
        self._events: list[Event] = []

    def __len__(self) -> int:
        return min(len(self._numbers), self.capacity)

    @property
    def overwritten(self) -> int:
        """How many had to give way to later ones."""
        return self.seen - len(self)

    def append(self, sequence: int, event: Event) -> None:
        """`sequence` is higher than every one before."""
        self.seen += 1
        self._numbers.append(sequence)
        self._events.append(event)
        if len(self._numbers) >= 2 * self.capacity:  # moved seldom, and never more than twice what is held
            del self._numbers[: -self.capacity], self._events[: -self.capacity]

    def missed(self, count: int) -> None:
        """So many were overwritten before they were built."""
        self.seen += count
        self.unbuilt += count

    def get(self, sequence: int) -> Event | None:
        """The denial with this number, if it is still held."""
        at = self._at(sequence)
        return self._events[at] if at < len(self._numbers) and self._numbers[at] == sequence else None

    def count(self, first: int, stop: int) -> int:
        """How many denials with first <= number < stop are held."""
        return max(0, self._at(stop) - self._at(first))

    def between(self, first: int, stop: int, limit: int | None = None) -> list[tuple[int, Event]]:
        """The denials with first <= number < stop, in order; of more than `limit` the first."""
        begin, end = self._at(first), self._at(stop)
        end = end if limit is None else min(end, begin + limit)
        return list(zip(self._numbers[begin:end], self._events[begin:end], strict=True))

    def last_before(self, sequence: int) -> int | None:
        """The number of the last denial before this; None if none is held."""
        at = self._at(sequence) - 1
        return self._numbers[at] if at >= len(self._numbers) - len(self) else None

    def first_since(self, time_ns: int) -> int | None:
        """The number of the first denial at or after this time; None if there is none."""
        begin = len(self._numbers) - len(self)
        at = bisect_left(self._events, time_ns, begin, key=lambda event: event.time_ns)
        return self._numbers[at] if at < len(self._numbers) else None

    @property
    def oldest(self) -> int | None:
        """The number of the oldest denial that is held."""
        return self._numbers[-len(self)] if self._numbers else None

    def _at(self, sequence: int) -> int:
        """Index of the first denial that is held and has at least this number."""
        return bisect_left(self._numbers, sequence, len(self._numbers) - len(self))
