"""Which identities a selector chooses, kept current as identities and selectors come and go. Pure.

A new selector is answered by bitmap algebra over an index of labels, without a look at single identities; a new
identity is shown once to each distinct selector. Nothing ever loops over identities times selectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pyroaring import BitMap

from policies.labels import ANY, parse_label
from policies.types import IDENTITY_WORLD, IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6, RESERVED_LABELS

# In dual stack, selecting reserved:world chooses 2, 9 and 10 (facts 2.5).
_ALSO: Final = {
    IDENTITY_WORLD_IPV4: RESERVED_LABELS[IDENTITY_WORLD],
    IDENTITY_WORLD_IPV6: RESERVED_LABELS[IDENTITY_WORLD],
}


class Operator(StrEnum):
    """Operators of matchExpressions. NotIn and DoesNotExist hold where the key is absent."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One condition. `key` is canonical (`any:app`, `k8s:app`); `values` is sorted, empty for the Exists pair."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds for labels in the form of `label_map`."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; none at all chooses everything. Sorted: equal meaning, equal value."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, requirements: Iterable[Requirement]) -> Selector:
        return cls(tuple(sorted(set(requirements))))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it chooses labels in the form of `label_map`."""
        return all(requirement.holds(labels) for requirement in self.requirements)


def label_map(labels: Iterable[str], identity: int = 0) -> dict[str, str]:
    """Labels by canonical key. `any:KEY` is the first label of that key, whatever its source."""
    found: dict[str, str] = {}
    for label in map(parse_label, (*labels, *_ALSO.get(identity, ()))):
        found.setdefault(f"{label.source}:{label.key}", label.value)
        found.setdefault(f"{ANY}:{label.key}", label.value)
    return found


class Selection:
    """The living answer to one selector. `version` rises with every change of `members`."""

    __slots__ = ("members", "selector", "users", "version")

    def __init__(self, selector: Selector, members: BitMap) -> None:
        self.selector = selector
        self.members = members
        self.version = 1
        self.users = 0


class SelectorCache:
    """The selections in use, each distinct selector once. Reserved identities are always known."""

    def __init__(self) -> None:
        self.version = 0  # rises with every change of any selection
        self._selections: dict[Selector, Selection] = {}
        self._labels: dict[int, dict[str, str]] = {}
        self._all = BitMap()
        self._with_key: dict[str, BitMap] = {}
        self._with_value: dict[tuple[str, str], BitMap] = {}
        for identity, labels in RESERVED_LABELS.items():
            if identity:  # 0 is nobody: the wildcard of the policy map
                self.add(identity, labels)

    def add(self, identity: int, labels: Iterable[str]) -> None:
        """An identity comes into use."""
        if identity in self._labels:
            return
        known = label_map(labels, identity)
        self._labels[identity] = known
        self._all.add(identity)
        for key, value in known.items():
            self._with_key.setdefault(key, BitMap()).add(identity)
            self._with_value.setdefault((key, value), BitMap()).add(identity)
        for selection in self._selections.values():
            if selection.selector.matches(known):
                selection.members.add(identity)
                self._changed(selection)

    def remove(self, identity: int) -> None:
        """An identity is in use no more."""
        known = self._labels.pop(identity, None)
        if known is None:
            return
        self._all.discard(identity)
        for key, value in known.items():
            _discard(self._with_key, key, identity)
            _discard(self._with_value, (key, value), identity)
        for selection in self._selections.values():
            if identity in selection.members:
                selection.members.discard(identity)
                self._changed(selection)

    def acquire(self, selector: Selector) -> Selection:
        """The selection of this selector; give it back with `release`."""
        selection = self._selections.get(selector)
        if selection is None:
            selection = self._selections[selector] = Selection(selector, self._evaluate(selector))
        selection.users += 1
        return selection

    def release(self, selection: Selection) -> None:
        """The last user's release forgets the selection."""
        selection.users -= 1
        if selection.users == 0:
            del self._selections[selection.selector]

    def __len__(self) -> int:
        return len(self._selections)

    def _changed(self, selection: Selection) -> None:
        selection.version += 1
        self.version += 1

    def _evaluate(self, selector: Selector) -> BitMap:
        members = self._all.copy()
        for requirement in selector.requirements:
            with_key = self._with_key.get(requirement.key, BitMap())
            match requirement.operator:
                case Operator.IN:
                    members &= self._with_any_value(requirement)
                case Operator.NOT_IN:
                    members -= self._with_any_value(requirement)
                case Operator.EXISTS:
                    members &= with_key
                case Operator.DOES_NOT_EXIST:
                    members -= with_key
        return members

    def _with_any_value(self, requirement: Requirement) -> BitMap:
        found = BitMap()
        for value in requirement.values:
            found |= self._with_value.get((requirement.key, value), BitMap())
        return found


def _discard(index: dict[Any, BitMap], key: object, identity: int) -> None:
    members = index[key]
    members.discard(identity)
    if not members:
        del index[key]
