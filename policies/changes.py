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
    old, new = list(before.values()), list(after.values())
    start = _common(old, new)
    if start == len(old) == len(new):
        return set()
    old.reverse()
    new.reverse()
    end = _common(old, new, min(len(old), len(new)) - start)
    was = dict(islice(before.items(), start, len(old) - end))
    now = dict(islice(after.items(), start, len(new) - end))
    return {key for key, value in now.items() if was.get(key) is not value} | (was.keys() - now.keys())


def _common(old: Sequence[Any], new: Sequence[Any], most: int | None = None) -> int:
    """How many values both begin with, `most` at the most."""
    limit = min(len(old), len(new)) if most is None else most
    at = 0
    while at + _STRETCH <= limit and old[at : at + _STRETCH] == new[at : at + _STRETCH]:
        at += _STRETCH
    while at < limit and old[at] is new[at]:
        at += 1
    return at
