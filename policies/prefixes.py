"""IP prefixes as numbers: containment, the longest match, all that lie within one. Pure.

Texts of one prefix are many (`10.1.2.3/8`, `fd00::0/8`); the value is one.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, insort
from collections.abc import Iterator
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Prefix(NamedTuple):
    """`network` has its host bits masked. Sorted, a prefix stands right before all that lie within it."""

    version: int  # 4 or 6
    network: int
    length: int

    @property
    def bits(self) -> int:
        return 32 if self.version == 4 else 128

    @property
    def is_host(self) -> bool:
        """Whether it is a single address."""
        return self.length == self.bits

    def shortened(self, length: int) -> Prefix:
        """The prefix of that length which it lies within; `length` is at most its own."""
        shift = self.bits - length
        return Prefix(self.version, self.network >> shift << shift, length)

    def contains(self, other: Prefix) -> bool:
        """Whether all of the other lies within it."""
        return self.version == other.version and self.length <= other.length and other.shortened(self.length) == self

    def __str__(self) -> str:
        family = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        return f"{family(self.network)}/{self.length}"


@lru_cache(maxsize=65536)
def parse_prefix(text: str) -> Prefix:
    """The prefix of a text; an address alone is all of itself, host bits are masked. Raises ValueError."""
    network = ipaddress.ip_network(text, strict=False)
    return Prefix(network.version, int(network.network_address), network.prefixlen)


class PrefixMap(Generic[T]):
    """Values by prefix, found by what they contain."""

    def __init__(self) -> None:
        self._by_length: dict[tuple[int, int], dict[Prefix, T]] = {}
        self._lengths: dict[int, list[int]] = {4: [], 6: []}  # in use, ascending

    def __setitem__(self, prefix: Prefix, value: T) -> None:
        key = (prefix.version, prefix.length)
        if key not in self._by_length:
            self._by_length[key] = {}
            insort(self._lengths[prefix.version], prefix.length)
        self._by_length[key][prefix] = value

    def __delitem__(self, prefix: Prefix) -> None:
        key = (prefix.version, prefix.length)
        del self._by_length[key][prefix]
        if not self._by_length[key]:
            del self._by_length[key]
            self._lengths[prefix.version].remove(prefix.length)

    def get(self, prefix: Prefix) -> T | None:
        """The value of exactly this prefix."""
        return self._by_length.get((prefix.version, prefix.length), {}).get(prefix)

    def containing(self, prefix: Prefix) -> Iterator[T]:
        """Values of all prefixes that it lies within, itself too, the broadest first."""
        for length in self._lengths[prefix.version]:
            if length > prefix.length:
                return
            value = self._by_length[prefix.version, length].get(prefix.shortened(length))
            if value is not None:
                yield value

    def longest(self, prefix: Prefix) -> T | None:
        """The value of the most specific prefix that it lies within."""
        found = None
        for value in self.containing(prefix):
            found = value
        return found


class PrefixNumbers:
    """Numbers of prefixes, in order: all that lie within a prefix are one run."""

    def __init__(self) -> None:
        self._ordered: list[tuple[Prefix, int]] = []

    def add(self, prefix: Prefix, number: int) -> None:
        """The prefix has this number."""
        insort(self._ordered, (prefix, number))

    def remove(self, prefix: Prefix, number: int) -> None:
        """The prefix has this number no more."""
        del self._ordered[bisect_left(self._ordered, (prefix, number))]

    def within(self, prefix: Prefix) -> list[int]:
        """Numbers of all prefixes that lie within it, itself too."""
        after = Prefix(prefix.version, prefix.network + (1 << prefix.bits - prefix.length), 0)
        start, end = bisect_left(self._ordered, (prefix, 0)), bisect_left(self._ordered, (after, 0))
        return [number for _, number in self._ordered[start:end]]
