"""Numbers for label sets: equal labels, equal number, on this node and across restarts. Pure.

Each scope has numbers of its own (facts 2.5): label sets of pods, prefixes that policies speak of, nodes with labels.
A number stands in pinned maps, live connections and flows, so a released one rests: it comes back at once to its own
labels, and goes to others only after a thousand further releases, or when nothing else is left.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from policies.compiling.agreement import AgreedRange, Agreement
from policies.objects import Identity
from policies.types import (
    IDENTITY_FIRST_ALLOCATED,
    IDENTITY_FIRST_LOCAL,
    IDENTITY_FIRST_NODE,
    IDENTITY_LAST_ALLOCATED,
    IDENTITY_LAST_LOCAL,
    IDENTITY_LAST_NODE,
    RESERVED_LABELS,
)

Labels = tuple[str, ...]
RESTING_MAX: Final = 1024  # per scope: the book is written to disk at each change, and must not grow with history


class IdentitiesExhausted(Exception):
    """Every number is in use."""


class Scope(Enum):
    """What a number is for, with its first and last one."""

    CLUSTER = (IDENTITY_FIRST_ALLOCATED, IDENTITY_LAST_ALLOCATED)
    LOCAL = (IDENTITY_FIRST_LOCAL, IDENTITY_LAST_LOCAL)
    NODE = (IDENTITY_FIRST_NODE, IDENTITY_LAST_NODE)


class IdentityAllocator:
    """Labels <-> number. Mutable: owned by the compiler's caller, who persists it. `first`, `last`: of pods' labels;
    `behind`: give no number of a scope up to this one, while there is room behind it; `agreement`: pods' labels have
    the numbers that the cluster has agreed on."""

    def __init__(
        self,
        first: int = IDENTITY_FIRST_ALLOCATED,
        last: int = IDENTITY_LAST_ALLOCATED,
        behind: Mapping[Scope, int] | None = None,
        agreement: Agreement | None = None,
    ) -> None:
        bounds = {scope: scope.value for scope in Scope} | {Scope.CLUSTER: (first, last)}
        bounds |= {scope: (number + 1, bounds[scope][1]) for scope, number in (behind or {}).items()}
        self._ranges: dict[Scope, _Range | AgreedRange] = {scope: _Range(*bound) for scope, bound in bounds.items()}
        self._agreement = agreement
        self._stored: dict[str, Any] | None = None  # what to_dict gave, while it is right
        if agreement is not None:
            self._ranges[Scope.CLUSTER] = AgreedRange(agreement)

    def allocate(self, labels: Labels, scope: Scope = Scope.CLUSTER) -> int:
        """The number of these labels (sorted), a new one if they have none. Raises IdentitiesExhausted."""
        home = self._ranges[scope]
        if labels not in home.numbers:
            self._stored = None
        number = home.allocate(labels)
        if number is None:
            raise IdentitiesExhausted("no identity is left that the cluster could agree on")
        return number

    def agree(self, identities: Mapping[str, Identity]) -> tuple[set[Labels], set[int]]:
        """These are the agreed ones now. Label sets in use that must be released and allocated again, since their
        number is another one; and numbers that may stand for others than before. Without an agreement: none."""
        cluster = self._ranges[Scope.CLUSTER]
        if self._agreement is None or not isinstance(cluster, AgreedRange):
            return set(), set()
        labels, numbers = self._agreement.take(identities)
        return cluster.misplaced(labels, numbers), numbers

    def agreed_labels(self, number: int) -> Labels | None:
        """What an agreed number stands for."""
        return self._agreement.labels(number) if self._agreement is not None else None

    def release(self, number: int) -> None:
        """These labels are in use no more. Reserved and unknown numbers are left alone."""
        if (home := self._home(number)) is not None:
            self._stored = None
            home.release(number)

    def labels(self, number: int) -> Labels:
        """Labels of a number in use, reserved or resting (flows may still name it); () if it stands for nothing."""
        home = self._home(number)
        return home.labels(number) if home is not None else RESERVED_LABELS.get(number, ())

    def number(self, labels: Labels, scope: Scope = Scope.CLUSTER) -> int | None:
        """The number of these labels, if they have one."""
        return self._ranges[scope].numbers.get(labels)

    def in_use(self, scope: Scope = Scope.CLUSTER) -> Mapping[int, Labels]:
        """Allocated numbers and their labels."""
        return dict(sorted(self._ranges[scope].in_use.items()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data to persist; the same object until something changes."""
        if self._stored is None:
            ranges = self._ranges.values()
            self._stored = {
                "identities": {str(n): list(labels) for r in ranges for n, labels in sorted(r.in_use.items())},
                "resting": [[number, list(labels)] for r in ranges for number, labels in r.resting.items()],
            }
        return self._stored

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], agreement: Agreement | None = None) -> IdentityAllocator:
        """What to_dict gave, or {} for a fresh start. Raises ValueError if it contradicts itself."""
        book = cls(agreement=agreement)
        for text, labels in dict(stored.get("identities", {})).items():
            number = int(text)
            book._known_home(number).restore(number, tuple(labels), is_resting=False)
        for number, labels in stored.get("resting", []):
            book._known_home(int(number)).restore(int(number), tuple(labels), is_resting=True)
        for home in book._ranges.values():
            home.settle()
        book._stored = None
        return book

    def _home(self, number: int) -> _Range | AgreedRange | None:
        return next((home for home in self._ranges.values() if number in home), None)

    def _known_home(self, number: int) -> _Range | AgreedRange:
        home = self._home(number)
        if home is None:
            raise ValueError(f"stored identities: {number} is out of range")
        return home


class _Range:
    """The numbers of one scope."""

    def __init__(self, first: int, last: int) -> None:
        self.numbers: dict[Labels, int] = {}
        self.in_use: dict[int, Labels] = {}
        self.resting: dict[int, Labels] = {}  # in the order of their release
        self._first = first
        self._last = last
        self._rested_number: dict[Labels, int] = {}
        self._unused_from = first  # no number from here on was ever given
        self._holes: list[int] = []  # heap of unused numbers below that

    def __contains__(self, number: int) -> bool:
        return self._first <= number <= self._last

    def allocate(self, labels: Labels) -> int:
        number = self.numbers.get(labels)
        if number is not None:
            return number
        number = self._rested_number.get(labels)
        if number is None:
            number = self._next()
        self._wake(number)
        self.numbers[labels] = number
        self.in_use[number] = labels
        return number

    def release(self, number: int) -> None:
        labels = self.in_use.pop(number, None)
        if labels is None:
            return
        del self.numbers[labels]
        self.resting[number] = labels
        self._rested_number[labels] = number
        if len(self.resting) > RESTING_MAX:
            oldest = next(iter(self.resting))
            self._wake(oldest)
            heapq.heappush(self._holes, oldest)

    def labels(self, number: int) -> Labels:
        return self.in_use.get(number) or self.resting.get(number, ())

    def restore(self, number: int, labels: Labels, *, is_resting: bool) -> None:
        """Take over what was stored; `settle` when all is there."""
        if number in self.in_use or number in self.resting:
            raise ValueError(f"stored identities: {number} is there twice")
        (self.resting if is_resting else self.in_use)[number] = labels

    def settle(self) -> None:
        """Make whatever follows from the numbers in use and at rest."""
        self.numbers = _inverse(self.in_use.items())
        self._rested_number = _inverse(self.resting.items())
        if len(self.numbers) != len(self.in_use):
            raise ValueError("stored identities: the same labels have two numbers")
        given = self.in_use.keys() | self.resting.keys()
        self._unused_from = max(given, default=self._first - 1) + 1
        self._holes = [number for number in range(self._first, self._unused_from) if number not in given]

    def _next(self) -> int:
        if self._holes:
            return heapq.heappop(self._holes)
        if self._unused_from <= self._last:
            self._unused_from += 1
            return self._unused_from - 1
        if self.resting:
            return next(iter(self.resting))
        raise IdentitiesExhausted(f"all {self._last - self._first + 1} identities are in use")

    def _wake(self, number: int) -> None:
        labels = self.resting.pop(number, None)
        if labels is not None and self._rested_number.get(labels) == number:
            del self._rested_number[labels]


def _inverse(items: Iterable[tuple[int, Labels]]) -> dict[Labels, int]:
    return {labels: number for number, labels in items}
