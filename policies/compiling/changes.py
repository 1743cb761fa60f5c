"""What differs between two views of the same kind of object, found without looking into most of them. Pure.

Views are sorted and share what did not change, so a change leaves long stretches of one and the same objects before and
after it. These are passed over by comparing lists, which is done in C and stops at identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_STRETCH: Final = 1024


def changed_keys(before: Mapping[K, V], after: Mapping[K, V]) -> set[K]:
    """Keys that came or went, or have another value now. A value knows its own key."""
    if before is after:
        return set()
    start, end = _common_ends(list(before.values()), list(after.values()))
    was = dict(islice(before.items(), start, len(before) - end))
    now = dict(islice(after.items(), start, len(after) - end))
    return {key for key, value in now.items() if was.get(key) is not value} | (was.keys() - now.keys())


def changed_values(before: Sequence[V], after: Sequence[V]) -> tuple[Sequence[V], Sequence[V]]:
    """Stretches of both that hold all that differs."""
    start, end = _common_ends(list(before), list(after))
    return before[start : len(before) - end], after[start : len(after) - end]


def _common_ends(old: list[Any], new: list[Any]) -> tuple[int, int]:
    """How many values both begin with, and how many others both end with."""
    start = _common(old, new)
    if start == len(old) == len(new):
        return start, 0
    old.reverse()
    new.reverse()
    return start, _common(old, new, min(len(old), len(new)) - start)


def _common(old: Sequence[Any], new: Sequence[Any], most: int | None = None) -> int:
    """How many values both begin with, `most` at the most."""
    limit = min(len(old), len(new)) if most is None else most
    at = 0
    while at + _STRETCH <= limit and old[at : at + _STRETCH] == new[at : at + _STRETCH]:
        at += _STRETCH
    while at < limit and old[at] is new[at]:
        at += 1
    return at
