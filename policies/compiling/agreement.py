"""Numbers that all nodes of a cluster have for the same labels, without asking each other. Pure.

What is agreed on are CiliumIdentity objects: their name is the number. Where labels have none yet, every node would
take the same number for them: the first, counted from their hash, that is nobody else's; it uses that at once and makes
the object. A name can be taken once only, so of two label sets with the same hash one wins, and whoever loses moves on
(docs/cluster.md). Inside a node, labels are the truth and numbers are their names: a number that changes never makes
anybody somebody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

from policies.compiling.changes import changed_keys
from policies.objects import Identity
from policies.types import IDENTITY_FIRST_ALLOCATED, IDENTITY_LAST_ALLOCATED

Labels = tuple[str, ...]
RESTING_MAX: Final = 1024  # the book is written to disk at each change, and must not grow with history
_COUNT: Final = IDENTITY_LAST_ALLOCATED - IDENTITY_FIRST_ALLOCATED + 1


def candidates(labels: Labels) -> Iterator[int]:
    """Every number that can be agreed on, in the order in which nodes try them for these labels (sorted)."""
    digest = hashlib.sha256("\n".join(labels).encode()).digest()
    start = int.from_bytes(digest[:8])
    return (IDENTITY_FIRST_ALLOCATED + (start + step) % _COUNT for step in range(_COUNT))


class Agreement:
    """What is agreed on now. Of two numbers for the same labels the older one counts, then the smaller one: nodes of
    Cilium do the same, and the operator collects the other."""

    def __init__(self) -> None:
        self._identities: Mapping[str, Identity] = {}
        self._of: dict[Labels, list[Identity]] = {}  # the one that counts first

    def take(self, identities: Mapping[str, Identity]) -> tuple[set[Labels], set[int]]:
        """Follow the objects: label sets whose number may be another one now, and numbers whose labels may be."""
        before, self._identities = self._identities, identities
        names = changed_keys(before, identities)
        touched: set[Labels] = set()
        for name in names:
            if (identity := before.get(name)) is not None:
                touched.add(identity.labels)
                self._of[identity.labels].remove(identity)
        for name in names:
            if (identity := identities.get(name)) is not None:
                touched.add(identity.labels)
                self._of.setdefault(identity.labels, []).append(identity)
        for labels in touched:
            if found := self._of[labels]:
                found.sort(key=lambda identity: (identity.created, identity.number))
            else:
                del self._of[labels]
        return touched, {int(name) for name in names}

    def number(self, labels: Labels) -> int | None:
        """The agreed number of these labels."""
        found = self._of.get(labels)
        return found[0].number if found else None

    def labels(self, number: int) -> Labels | None:
        """The labels that a number is agreed to stand for."""
        identity = self._identities.get(str(number))
        return identity.labels if identity is not None else None


class AgreedRange:
    """The numbers of the cluster's scope, as policies.compiling.identity keeps those of a node's own."""

    def __init__(self, agreement: Agreement) -> None:
        self.numbers: dict[Labels, int] = {}
        self.in_use: dict[int, Labels] = {}
        self.resting: dict[int, Labels] = {}  # flows may still name them; no number of labels that are in use
        self._agreement = agreement

    def __contains__(self, number: int) -> bool:
        return IDENTITY_FIRST_ALLOCATED <= number <= IDENTITY_LAST_ALLOCATED

    def allocate(self, labels: Labels) -> int | None:
        """The number of these labels; None if there is none left. An agreed one that other labels still have is not
        given: `misplaced` names those, and they must be released before."""
        known = self.numbers.get(labels)
        if known is not None:
            return known
        number = self._agreement.number(labels)
        if number is None:
            number = next((n for n in candidates(labels) if self._is_free(n, labels)), None)
        if number is None or number in self.in_use:
            return None
        self.resting.pop(number, None)
        self.numbers[labels], self.in_use[number] = number, labels
        return number

    def misplaced(self, labels: set[Labels], numbers: set[int]) -> set[Labels]:
        """Of these label sets, and of whoever has these numbers, those in use under a number that is not theirs."""
        found = {self.in_use[number] for number in numbers if number in self.in_use}
        held = ((number, of) for of in found | labels if (number := self.numbers.get(of)) is not None)
        return {of for number, of in held if not self._is_right(number, of)}

    def release(self, number: int) -> None:
        labels = self.in_use.pop(number, None)
        if labels is not None:
            del self.numbers[labels]
            self.resting[number] = labels
            if len(self.resting) > RESTING_MAX:
                del self.resting[next(iter(self.resting))]

    def labels(self, number: int) -> Labels:
        return self.in_use.get(number) or self._agreement.labels(number) or self.resting.get(number, ())

    def restore(self, number: int, labels: Labels, *, is_resting: bool) -> None:
        if number in self.in_use or number in self.resting:
            raise ValueError(f"stored identities: {number} is there twice")
        (self.resting if is_resting else self.in_use)[number] = labels

    def settle(self) -> None:
        self.numbers = {labels: number for number, labels in self.in_use.items()}
        if len(self.numbers) != len(self.in_use):
            raise ValueError("stored identities: the same labels have two numbers")

    def _is_free(self, number: int, labels: Labels) -> bool:
        return number not in self.in_use and self._agreement.labels(number) in (None, labels)

    def _is_right(self, number: int, labels: Labels) -> bool:
        agreed = self._agreement.number(labels)
        return agreed == number or (agreed is None and self._agreement.labels(number) in (None, labels))
