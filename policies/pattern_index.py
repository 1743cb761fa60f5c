"""Many patterns of one field: which of them match a value, without trying them one by one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyroaring import BitMap

from policies.evaluate import full_match
from policies.patterns import texts

_META: Final = frozenset("\\.+*?()|[]{}^$")
_REPEATS: Final = frozenset("*?{+")


class PatternIndex:
    """The patterns of one field: which rules have a pattern that matches a value."""

    def __init__(self, patterns: Sequence[str]) -> None:
        by_pattern: dict[str, list[int]] = {}
        for i, pattern in enumerate(patterns):
            by_pattern.setdefault(pattern, []).append(i)
        self._any = BitMap(by_pattern.pop("", ()))
        self._literal = {p: BitMap(rules) for p, rules in by_pattern.items() if _META.isdisjoint(p)}
        self._by_pattern = {p: BitMap(rules) for p, rules in by_pattern.items()}
        regexes = (p for p in by_pattern if p not in self._literal)
        self._regexes = [(_beginning(p), p, BitMap(by_pattern[p])) for p in regexes]

    def matching(self, value: str) -> BitMap:
        """The rules; those without a pattern too."""
        found = self._any | self._literal.get(value, BitMap())
        for beginning, pattern, rules in self._regexes:
            if value.startswith(beginning) and full_match(pattern, value):
                found |= rules
        return found

    def covering(self, pattern: str) -> BitMap:
        """The rules that are sure to match whatever this pattern matches."""
        if not pattern:
            return self._any | self._by_pattern.get(".*", BitMap())
        literal = texts(pattern)
        if literal is not None:
            return BitMap.intersection(*map(self.matching, literal))
        return self._any | self._by_pattern[pattern] | self._by_pattern.get(".*", BitMap())


def _beginning(pattern: str) -> str:
    """Text that every match begins with; "" where that is not plain to see."""
    if "|" in pattern:
        return ""
    end = next(i for i, char in enumerate(pattern) if char in _META)
    return pattern[: end - 1] if pattern[end] in _REPEATS and end else pattern[:end]
