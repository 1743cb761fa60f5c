"""Numbers for label sets: equal labels, equal number, on this node and across restarts. Pure.

A number stands in pinned maps, live connections and flows, so a released one rests: it comes back at once to its own
labels, and goes to others only after a thousand further releases, or when nothing else is left.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any, Final

from policies.types import IDENTITY_FIRST_ALLOCATED, IDENTITY_LAST_ALLOCATED, RESERVED_LABELS

Labels = tuple[str, ...]
RESTING_MAX: Final = 1024  # the book is written to disk at each change: it must not grow with the node's history


class IdentitiesExhausted(Exception):
    """Every number is in use."""


class IdentityAllocator:
    """Labels <-> number. Mutable: owned by the compiler's caller, who persists it."""

    def __init__(self, first: int = IDENTITY_FIRST_ALLOCATED, last: int = IDENTITY_LAST_ALLOCATED) -> None:
        self._first = first
        self._last = last
        self._numbers: dict[Labels, int] = {}
        self._labels: dict[int, Labels] = {}
        self._resting: dict[int, Labels] = {}  # in the order of their release
        self._rested_number: dict[Labels, int] = {}
        self._unused_from = first  # no number from here on was ever given
        self._holes: list[int] = []  # heap of unused numbers below that

    def allocate(self, labels: Labels) -> int:
        """The number of these labels (sorted), a new one if they have none. Raises IdentitiesExhausted."""
        number = self._numbers.get(labels)
        if number is not None:
            return number
        number = self._rested_number.get(labels)
        if number is None:
            number = self._next()
        self._wake(number)
        self._numbers[labels] = number
        self._labels[number] = labels
        return number

    def release(self, number: int) -> None:
        """These labels are in use no more. Reserved and unknown numbers are left alone."""
        labels = self._labels.pop(number, None)
        if labels is None:
            return
        del self._numbers[labels]
        self._resting[number] = labels
        self._rested_number[labels] = number
        if len(self._resting) > RESTING_MAX:
            oldest = next(iter(self._resting))
            self._wake(oldest)
            heapq.heappush(self._holes, oldest)

    def labels(self, number: int) -> Labels:
        """Labels of a number in use, reserved or resting (flows may still name it); () if it stands for nothing."""
        return self._labels.get(number) or self._resting.get(number) or RESERVED_LABELS.get(number, ())

    def number(self, labels: Labels) -> int | None:
        """The number of these labels, if they have one."""
        return self._numbers.get(labels)

    def in_use(self) -> Mapping[int, Labels]:
        """Allocated numbers and their labels."""
        return dict(sorted(self._labels.items()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data to persist."""
        return {
            "identities": {str(number): list(labels) for number, labels in sorted(self._labels.items())},
            "resting": [[number, list(labels)] for number, labels in self._resting.items()],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> IdentityAllocator:
        """What to_dict gave, or {} for a fresh start. Raises ValueError if it contradicts itself."""
        book = cls()
        for text, labels in dict(stored.get("identities", {})).items():
            book._restore(int(text), tuple(labels), book._labels)
        for number, labels in stored.get("resting", []):
            book._restore(int(number), tuple(labels), book._resting)
        book._numbers = {labels: number for number, labels in book._labels.items()}
        book._rested_number = {labels: number for number, labels in book._resting.items()}
        if len(book._numbers) != len(book._labels):
            raise ValueError("stored identities: the same labels have two numbers")
        given = book._labels.keys() | book._resting.keys()
        book._unused_from = max(given, default=book._first - 1) + 1
        book._holes = [number for number in range(book._first, book._unused_from) if number not in given]
        return book

    def _restore(self, number: int, labels: Labels, into: dict[int, Labels]) -> None:
        if not self._first <= number <= self._last or number in self._labels or number in self._resting:
            raise ValueError(f"stored identities: {number} is out of range or there twice")
        into[number] = labels

    def _next(self) -> int:
        if self._holes:
            return heapq.heappop(self._holes)
        if self._unused_from <= self._last:
            self._unused_from += 1
            return self._unused_from - 1
        if self._resting:
            return next(iter(self._resting))
        raise IdentitiesExhausted(f"all {self._last - self._first + 1} identities are in use")

    def _wake(self, number: int) -> None:
        labels = self._resting.pop(number, None)
        if labels is not None and self._rested_number.get(labels) == number:
            del self._rested_number[labels]
