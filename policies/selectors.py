"""Selectors: predicates over labels. Pure values; policies/compiling/selections.py keeps their answers current.

A key with source `cidr` is a predicate over prefixes: `cidr:10.0.0.0/8` holds for every identity of a prefix that lies
within it (facts 2.6), so that CIDR rules and label rules are one kind of thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from policies.labels import ANY, CIDR, RESERVED, cidr_key, is_of_names, parse_label, prefix_of
from policies.prefixes import Prefix, PrefixMap, parse_prefix

_WORLD: Final = f"{RESERVED}:world"
_CIDR_SOURCE: Final = f"{CIDR}:"
OWN_PREFIX: Final = CIDR  # in a label map: the prefix that the identity is of


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

    @property
    def prefix(self) -> Prefix | None:
        """The prefix that it is about, if it is about one."""
        return _prefix(self.key) if self.key.startswith(_CIDR_SOURCE) else None

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds for labels in the form of `label_map`."""
        value = labels.get(self.key)
        if value is None and (prefix := self.prefix) is not None:
            value = _value_within(prefix, labels)
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


class Chooser:
    """A selector made ready to be asked often: its excepted prefixes are looked up, however many there are.

    Ten thousand exceptions, and as many identities that ask, took two minutes one by one.
    """

    __slots__ = ("_excepts", "_others")

    def __init__(self, selector: Selector) -> None:
        others: list[Requirement] = []
        self._excepts: PrefixMap[bool] = PrefixMap()
        for requirement in selector.requirements:
            prefix = requirement.prefix
            if requirement.operator is Operator.DOES_NOT_EXIST and prefix is not None and prefix.length:
                self._excepts[prefix] = True
            else:
                others.append(requirement)
        self._others = tuple(others)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """What `Selector.matches` says."""
        if not all(requirement.holds(labels) for requirement in self._others):
            return False
        own = labels.get(OWN_PREFIX)
        return own is None or not any(self._excepts.containing(parse_prefix(own)))


def exists(key: str) -> Requirement:
    """The key is there, with whatever value."""
    return Requirement(key, Operator.EXISTS)


def within(prefix: str, excepts: Iterable[str] = ()) -> Selector:
    """Identities of this prefix and of all that lie within it, less those of the excepts."""
    but = (Requirement(cidr_key(text), Operator.DOES_NOT_EXIST) for text in excepts)
    return Selector.of([exists(cidr_key(prefix)), *but])


def label_map(labels: Iterable[str]) -> dict[str, str]:
    """Labels by canonical key. `any:KEY` is the first label of that key, whatever its source; but for names, which
    nobody may be taken for who asks for a label of pods.

    Who is of the world of one family is of the world: in dual stack, `reserved:world` chooses 2, 9 and 10 (facts 2.5),
    and every prefix.
    """
    found: dict[str, str] = {}
    for label in labels:
        key, any_key, value = _keys(label)
        found.setdefault(key, value)
        if is_of_names(key):
            continue
        found.setdefault(any_key, value)
        if key.startswith(_CIDR_SOURCE):
            found[OWN_PREFIX] = prefix_of(key)
        elif key.startswith(f"{_WORLD}-ipv"):
            found.setdefault(_WORLD, value)
            found.setdefault(f"{ANY}:world", value)
    return found


@lru_cache(maxsize=65536)
def _keys(text: str) -> tuple[str, str, str]:
    label = parse_label(text)
    return f"{label.source}:{label.key}", f"{ANY}:{label.key}", label.value


@lru_cache(maxsize=65536)
def _prefix(key: str) -> Prefix | None:
    try:
        return parse_prefix(prefix_of(key))
    except ValueError:
        return None  # a key that nobody has


def _value_within(prefix: Prefix, labels: Mapping[str, str]) -> str | None:
    own = labels.get(OWN_PREFIX)
    if own is not None:
        return "" if prefix.contains(parse_prefix(own)) else None
    # /0 is the world of that family, whatever is not of a narrower prefix (facts 2.6).
    return labels.get(f"{_WORLD}-ipv{prefix.version}") if prefix.length == 0 else None
