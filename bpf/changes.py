"""From the entries that are to those that should be: steps in an order that never shows a verdict of neither. Pure.

A lookup takes the entry of the highest rank that covers the packet (bpf/src/policy.h). So entries are written from the
highest rank down (an entry only comes into view when everything above it is in place) and deleted from the lowest up
(what is uncovered last is already the new policy's). The same holds for the longest prefix of the ipcache.
Between maps: peers before pods, and pods gone before their peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyroaring import FrozenBitMap

from bpf.constants import POLICY_BITS_ANY
from bpf.encoding import prefix_length
from bpf.entries import NO_ENTRIES, Desired, Entries, GroupEntries, Run, split
from bpf.layout import MAPS
from policies.ir import WILDCARD

SIZES = {spec.name: (spec.key_size, spec.value_size) for spec in MAPS}
Rank = tuple[bool, bool, int, bytes]


@dataclass(frozen=True, slots=True)
class Step:
    """Entries of one map to write, or keys to delete where there are no values; in this order, packed one after the
    other, as the kernel takes them."""

    map: str
    keys: bytes
    values: bytes = b""

    @property
    def count(self) -> int:
        return len(self.keys) // SIZES[self.map][0]

    @property
    def writes(self) -> list[tuple[bytes, bytes]]:
        key, value = SIZES[self.map]
        return list(zip(split(self.keys, key), split(self.values, value), strict=True)) if self.values else []

    @property
    def deletes(self) -> list[bytes]:
        return [] if self.values else list(split(self.keys, SIZES[self.map][0]))


@dataclass(frozen=True, slots=True)
class Ops:
    """Steps in the order in which they must be taken; empty ones are left out."""

    steps: tuple[Step, ...]

    @property
    def count(self) -> int:
        """How many entries change."""
        return sum(step.count for step in self.steps)


def diff(wanted: Desired, realized: Desired) -> Ops:
    """Steps that make `wanted` of `realized`, in a safe order (see the head of this file)."""
    steps = [
        _policy_steps(wanted.policy, realized.policy),
        _steps("services", wanted.services, realized.services, bytes),
        _steps("ipcache", wanted.ipcache, realized.ipcache, lambda key: (prefix_length(key), key)),
        _steps("endpoints", wanted.endpoints, realized.endpoints, bytes),
    ]
    ordered = (*(write for write, _ in steps), *(delete for _, delete in reversed(steps)))
    return Ops(tuple(step for step in ordered if step.keys))


def _steps(name: str, new: Entries, old: Entries, order: Callable[[bytes], Any]) -> tuple[Step, Step]:
    """What to write and what to delete in one map."""
    if new is old:
        return Step(name, b""), Step(name, b"")
    changed = [key for key, value in new.items() if old.get(key) != value]
    gone = [key for key in old if key not in new]
    changed.sort(key=order, reverse=True)
    gone.sort(key=order)
    return Step(name, b"".join(changed), b"".join(new[key] for key in changed)), Step(name, b"".join(gone))


# --- policy ------------------------------------------------------------------------------------------------------


def _policy_steps(new: Mapping[int, GroupEntries], old: Mapping[int, GroupEntries]) -> tuple[Step, Step]:
    writes: list[tuple[Rank, bytes, bytes]] = []
    deletes: list[tuple[Rank, bytes]] = []
    for group in {**new, **old}:
        for run in _missing(new.get(group, NO_ENTRIES), old.get(group, NO_ENTRIES)):
            for part in _of_one_rank(run):
                keys = part.keys(group)
                if part.value:
                    writes.append((_order(part, keys), keys, part.value * len(part.identities)))
                else:
                    deletes.append((_order(part, keys), keys))
    writes.sort(reverse=True)
    deletes.sort()
    written = b"".join(keys for _, keys, _ in writes), b"".join(values for _, _, values in writes)
    return Step("policy", *written), Step("policy", b"".join(keys for _, keys in deletes))


def _order(run: Run, keys: bytes) -> Rank:
    """Precedence, as bpf/src/policy.h looks entries up; the first key makes it total. Entries of one rank never cover
    the same packet."""
    bits = run.place.bits
    return bits > POLICY_BITS_ANY, run.identities != WILDCARD, bits, keys[: SIZES["policy"][0]]


def _of_one_rank(run: Run) -> Iterator[Run]:
    named = run.identities - WILDCARD
    if len(named) < len(run.identities):
        yield Run(run.place, run.value, WILDCARD)
    if named:
        yield Run(run.place, run.value, named)


def _missing(new: GroupEntries, old: GroupEntries) -> Iterator[Run]:
    """What to write of a group; with no value: what to delete."""
    if new is old or new.runs == old.runs:
        return
    wanted, had = new.by_place(), old.by_place()
    for place in {**wanted, **had}:
        now, before = wanted.get(place, []), had.get(place, [])
        if now == before:
            continue
        for value, identities in now:
            yield Run(place, value, identities - _all(held for old_value, held in before if old_value == value))
        yield Run(place, b"", _all(held for _, held in before) - _all(kept for _, kept in now))


def _all(sets: Iterable[FrozenBitMap]) -> FrozenBitMap:
    return FrozenBitMap.union(FrozenBitMap(), *sets)
