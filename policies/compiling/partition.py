"""Identities and ports split into pieces that nobody has to compare again (docs/decisions/0002). Pure.

A *class* is a set of identities that are in exactly the same peer sets; it is known by a mask with one bit per set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from pyroaring import BitMap

from policies.types import PORT_MAX, PortRange

Class = tuple[int, BitMap]  # mask, members


def classes(sets: Sequence[BitMap]) -> list[Class]:
    """Split the union of these sets: bit i of a class says that it is within set i. No order, none empty."""
    found: list[Class] = []
    for i, members in enumerate(sets):
        bit, rest = 1 << i, None
        split: list[Class] = []
        for mask, known in found:
            if known.isdisjoint(members):
                split.append((mask, known))
                continue
            split.append((mask | bit, known & members))
            if not known.issubset(members):
                split.append((mask, known - members))
            rest = (members if rest is None else rest) - known
        rest = members if rest is None else rest
        if rest:
            split.append((bit, rest))
        found = split
    return found


def port_pieces(ranges: Sequence[PortRange]) -> Iterator[tuple[PortRange, list[int]]]:
    """Disjoint port ranges, in order, each with the indexes of all ranges that cover it; none that nothing covers."""
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for i, ports in enumerate(ranges):
        begins.setdefault(ports.first, []).append(i)
        ends.setdefault(ports.last + 1, []).append(i)
    active: set[int] = set()
    for here, after in pairwise([*sorted({*begins, *ends}), PORT_MAX + 1]):
        active -= set(ends.get(here, ()))
        active |= set(begins.get(here, ()))
        if active:
            yield PortRange(here, after - 1), sorted(active)


def bits(mask: int) -> Iterable[int]:
    """Numbers of the bits that are set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
