"""All objects that are in force, as an API server tells of them one by one. Pure; one writer.

The same laws as for files (policies.repository): a bad object keeps its own last good version; one that was never good
leaves behind whom it selects, to be denied, or, if it is a pod, who and where it is. An API server has each object
once, so none can contradict another.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from policies.advising.advice import advise
from policies.errors import PolicyError, Reason, in_order
from policies.events import Deleted, Failed, ObjectEvent, Updated
from policies.holdings import Holdings
from policies.objects import POLICY_KINDS, ObjectKey
from policies.reading.readers import Reading
from policies.repository import Change
from policies.rules import Policy
from policies.world import World


class Inventory:
    """The store. `world`, `problems` and `versions` are the state."""

    def __init__(self) -> None:
        self._holdings = Holdings()
        self._good: set[ObjectKey] = set()  # of which a good version is, or was, in force
        self._errors: dict[ObjectKey, tuple[PolicyError, ...]] = {}
        self._warnings: dict[ObjectKey, tuple[PolicyError, ...]] = {}
        self._policies: dict[ObjectKey, Policy] = {}
        self._failures: dict[str, PolicyError] = {}
        self._versions: dict[str, str] = {}

    def apply(self, event: ObjectEvent) -> Change:
        """What became of an object, or of the way to it."""
        if isinstance(event, Updated):
            return self._update(event.key, event.reading, event.version)
        if isinstance(event, Deleted):
            return self._delete(event.key)
        return self._fail(event)

    def world(self) -> World:
        """The immutable view. Unchanged kinds are the same mappings as before."""
        return self._holdings.world()

    @property
    def problems(self) -> tuple[PolicyError, ...]:
        """Everything that is wrong now."""
        errors = [error for errors in self._errors.values() for error in errors]
        return in_order([*self._failures.values(), *errors])

    @property
    def warnings(self) -> tuple[PolicyError, ...]:
        """What authors may not have meant."""
        found = [warning for warnings in self._warnings.values() for warning in warnings]
        return in_order([*found, *(advice for policy in self._policies.values() for advice in advise(policy))])

    @property
    def versions(self) -> Mapping[str, str]:
        """Policies by name, and the version of each that was read last."""
        return MappingProxyType(self._versions)

    def _update(self, key: ObjectKey, reading: Reading, version: str) -> Change:
        _set(self._errors, key, reading.errors)
        _set(self._warnings, key, reading.warnings)
        if key.kind in POLICY_KINDS:
            self._versions[str(key)] = version
        if reading.good is None:
            if key in self._good or reading.fallback is None:
                return Change(False, reading.errors)
            return Change(self._holdings.put(key, reading.fallback), reading.errors)
        self._good.add(key)
        if isinstance(reading.good, Policy):
            self._policies[key] = reading.good
        return Change(self._holdings.put(key, reading.good))

    def _delete(self, key: ObjectKey) -> Change:
        for book in (self._errors, self._warnings, self._policies):
            book.pop(key, None)
        self._versions.pop(str(key), None)
        self._good.discard(key)
        return Change(self._holdings.put(key, None))

    def _fail(self, event: Failed) -> Change:
        if not event.message:
            self._failures.pop(event.source, None)
            return Change(False)
        error = PolicyError("", "", "", "", Reason.UNREADABLE, event.message, event.source)
        self._failures[event.source] = error
        return Change(False, (error,))


def _set(book: dict[ObjectKey, tuple[PolicyError, ...]], key: ObjectKey, found: tuple[PolicyError, ...]) -> None:
    if found:
        book[key] = found
    else:
        book.pop(key, None)
