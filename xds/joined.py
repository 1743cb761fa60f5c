"""Join many path regexes to one that a DFA can run: common beginnings are written once.

Pure. `/[a-z]+/s1/x|/[a-z]+/s2/x|...` keeps thousands of alternatives alive while `[a-z]+` is read; RE2 factors only
literal beginnings by itself, runs out of DFA memory and falls back to its NFA (measured at 10,000 rules: 1.1 ms of CPU
per request instead of 10 us). Written as `/[a-z]+/s(?:1/x|2/x|...)` one alternative is alive at a time. Matching is of
whole values, so only the set of texts counts, and concatenation distributes over alternation.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby

# RE2 instructions of one joined regex. Its DFA for whole matches starts with 13,000 and refuses at 20,000 within the
# memory that RE2 allows by default (8 MiB, and Envoy changes nothing); below, it should have room for many states.
CHUNK_SIZE = 8000
MAX_NESTING = 64  # groups within groups; RE2 refuses a thousand

_REPEAT = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_SIMPLE_ESCAPES = frozenset(string.punctuation) | frozenset("dDsSwWCtnrfvaA")

Atoms = tuple[str, ...]


def can_join(pattern: str) -> bool:
    """Whether the pattern may stand in one regex with others: a name of a group may be given only once."""
    return "(?P<" not in pattern and "(?<" not in pattern


def chunks(sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Patterns in groups to be joined, given each one's RE2 program size. Sorted, so that neighbours share beginnings;
    what a pattern shares with the one before it is not counted again."""
    taken: list[str] = []
    total = 0.0
    before: Atoms = ()
    for pattern in sorted(sizes, key=lambda p: (not can_join(p), atoms(p))):
        cost = sizes[pattern] * _unshared(before, atoms(pattern)) if taken else sizes[pattern]
        if taken and (total + cost > CHUNK_SIZE or not can_join(pattern)):
            yield tuple(taken)
            taken, total, cost = [], 0.0, sizes[pattern]
        taken.append(pattern)
        total += cost
        before = atoms(pattern)
    if taken:
        yield tuple(taken)


def _unshared(before: Atoms, after: Atoms) -> float:
    """The part of `after` that does not begin as `before` does, between 0 and 1."""
    shared = 0
    for left, right in zip(before, after, strict=False):
        if left != right:
            break
        shared += 1
    return 1 - shared / max(len(after), 1)


def join(patterns: Iterable[str]) -> str:
    """A regex that matches what any of the patterns matches; the same patterns in any order give the same text."""
    return _alternatives(sorted({atoms(pattern) for pattern in patterns}), 0)


@lru_cache(maxsize=65536)
def atoms(pattern: str) -> Atoms:
    """The pattern's concatenated parts, each with its quantifier; in one piece where this reader is not certain."""
    found = tuple(_read(pattern))
    return found if "".join(found) == pattern else (f"(?:{pattern})",)


def _read(pattern: str) -> Iterator[str]:
    """Parts from the left; ends early at what it does not know, and the caller notices."""
    at = 0
    while at < len(pattern):
        end = _atom_end(pattern, at)
        if end is None:
            return
        repeat = _REPEAT.match(pattern, end)
        end = repeat.end() if repeat else end
        yield pattern[at:end]
        at = end


def _atom_end(pattern: str, at: int) -> int | None:
    """Where the atom that begins at `at` ends, without a quantifier; None at a top-level alternation or in doubt."""
    match pattern[at]:
        case "\\":
            return at + 2 if pattern[at + 1 : at + 2] in _SIMPLE_ESCAPES else None
        case "[":
            found = _CLASS.match(pattern, at)
            return found.end() if found else None
        case "(":
            return _group_end(pattern, at)
        case "|" | ")":
            return None
        case _:
            return at + 1


def _group_end(pattern: str, at: int) -> int | None:
    """The end of a group. `(?i)` is none: it changes what comes after it. `(?:` and plain ones only."""
    if pattern.startswith("(?", at) and not pattern.startswith("(?:", at):
        return None
    depth = 0
    while at < len(pattern):
        match pattern[at]:
            case "\\":
                if pattern[at + 1 : at + 2] not in _SIMPLE_ESCAPES:
                    return None
                at += 1
            case "[":
                found = _CLASS.match(pattern, at)
                if found is None:
                    return None
                at = found.end() - 1
            case "(":
                depth += 1
            case ")":
                depth -= 1
                if depth == 0:
                    return at + 1
        at += 1
    return None


def _alternatives(sequences: Sequence[Atoms], nesting: int) -> str:
    """The alternation of sorted sequences; those that begin alike share that beginning."""
    if nesting >= MAX_NESTING:
        return "|".join("".join(sequence) for sequence in sequences)
    parts: list[str] = []
    for first, group in groupby(sequences, key=lambda sequence: sequence[:1]):
        members = list(group)
        shared = len(first) if len(members) > 1 else len(members[0])
        while len(members) > 1 and shared < len(members[0]) and members[0][shared] == _last_at(members, shared):
            shared += 1
        rests = [member[shared:] for member in members]
        begin = "".join(members[0][:shared])
        parts.append(begin if rests == [()] else f"{begin}(?:{_alternatives(rests, nesting + 1)})")
    return "|".join(parts)


def _last_at(members: Sequence[Atoms], place: int) -> str | None:
    """The atom of the last member at that place. Members are sorted: what first and last share, all share."""
    return members[-1][place] if place < len(members[-1]) else None
