"""What a policy's regular expression provably is: a few exact texts, a few prefixes, or a regex that stays one.

Pure. Patterns are RE2 and match the whole value (facts: anchored at both ends whether or not they say so). A finite
alternation of literals (`GET|POST`, `/a|/b\\.html`, `/v(1|2)/x`, `/public(\\?.*)?`) can be looked up in a map; anything
that this reader does not know for certain is left to RE2. Not knowing costs speed, never correctness.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

import re2

MAX_LITERALS = 32  # texts that one pattern may expand to; more is left to the regex engine
MAX_DEPTH = 8  # nested groups that the reader follows
MAX_PATTERN = 64 * 1024  # characters of one pattern; Envoy limits a whole request head to less
REGEX_MAX_MEM = 8 << 20  # RE2's default budget, which Envoy keeps: what compiles here compiles there

# RE2 reads a backslash before these as the character itself (re2 syntax page: "\ punctuation literal").
_ESCAPABLE = frozenset(string.punctuation) - {"_"}
_META = frozenset("*+?{}[]()|^$.\\")


class PatternError(ValueError):
    """The pattern is not one that RE2 accepts; the text says why, in one line."""


@dataclass(frozen=True, slots=True, order=True)
class Literal:
    """An exact text, or every text that begins with it."""

    text: str
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """A pattern that RE2 accepts. `size` is its RE2 program size in instructions (what max_program_size counts)."""

    pattern: str
    size: int


def _options() -> re2.Options:
    """As Envoy compiles: Latin-1, so that `.` is any byte but a newline (bootstrap pins the runtime feature)."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = REGEX_MAX_MEM
    options.log_errors = False
    return options


OPTIONS = _options()

_EVERYTHING = (Literal("", is_prefix=True),)


@lru_cache(maxsize=65536)
def check(pattern: str) -> Compiled:
    """Compile with RE2; raise PatternError when it refuses."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"regex is longer than {MAX_PATTERN} characters")
    try:
        compiled = re2.compile(pattern.encode(), OPTIONS)
    except re2.error as failed:
        reason = failed.args[0] if failed.args else "refused by RE2"
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(f"regex {pattern!r}: {text}") from None
    return Compiled(pattern, compiled.programsize)


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches; raise PatternError where RE2 refuses the pattern."""
    check(pattern)
    return re2.compile(pattern.encode(), OPTIONS).fullmatch(text.encode()) is not None


def is_anything(pattern: str) -> bool:
    """Whether the pattern is known to match every value: `.*`, as no value has a newline."""
    return literals(pattern) == _EVERYTHING


def escape(literal: Literal) -> str:
    """The regex of a literal, for joining with others."""
    text: str = re2.escape(literal.text)
    return text + (".*" if literal.is_prefix else "")


@lru_cache(maxsize=65536)
def literals(pattern: str) -> tuple[Literal, ...] | None:
    """The finite set of literals that the pattern is equal to, sorted; None when it is not known to be one.

    `.*` at the end makes a prefix: equal to RE2's reading for values without newlines, and Envoy's codecs refuse
    newlines in methods, paths and hosts (tests/xds holds them to it).
    """
    if len(pattern) > MAX_PATTERN:
        return None
    try:
        found = _Reader(pattern).read()
    except _NotFinite:
        return None
    return tuple(sorted(_without_covered(found)))


def texts(pattern: str) -> tuple[str, ...] | None:
    """The exact texts that the pattern is equal to; None when it is anything else."""
    found = literals(pattern)
    if found is None or any(literal.is_prefix for literal in found):
        return None
    return tuple(literal.text for literal in found)


def _without_covered(found: set[Literal]) -> set[Literal]:
    """Leave out what a prefix of the same set matches anyway."""
    prefixes = tuple({p.text for p in found if p.is_prefix})
    if not prefixes:
        return found
    return {
        one
        for one in found
        if not any(one.text.startswith(p) and (p != one.text or not one.is_prefix) for p in prefixes)
    }


class _NotFinite(Exception):
    """The pattern is not a finite alternation that this reader knows."""


_EMPTY = frozenset({Literal("")})
_ANYTHING = frozenset({Literal("", is_prefix=True)})


@dataclass(slots=True)
class _Group:
    """An open group: alternatives that are complete, and the atoms of the one being read."""

    alternatives: set[Literal] = field(default_factory=set)
    atoms: list[frozenset[Literal]] = field(default_factory=list)

    def end_alternative(self) -> None:
        self.alternatives |= _concatenate(self.atoms)
        if len(self.alternatives) > MAX_LITERALS:
            raise _NotFinite
        self.atoms = []


def _concatenate(atoms: list[frozenset[Literal]]) -> set[Literal]:
    """Every text that the atoms spell, one after the other. A prefix can only be the last thing."""
    found: set[Literal] = {Literal("")}
    for atom in atoms:
        if len(found) * len(atom) > MAX_LITERALS:
            raise _NotFinite
        joined: set[Literal] = set()
        for left, right in product(found, atom):
            if left.is_prefix and right != Literal(""):
                raise _NotFinite
            joined.add(Literal(left.text + right.text, left.is_prefix or right.is_prefix))
        found = joined
    return found


class _Reader:
    """Reads a pattern left to right with a stack of open groups; raises _NotFinite at the first thing it doubts."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._stack = [_Group()]

    def read(self) -> set[Literal]:
        while self._at < len(self._pattern):
            char = self._pattern[self._at]
            self._at += 1
            step = _STEPS.get(char)
            if step is not None:
                step(self)
            elif char in _META:
                raise _NotFinite
            else:
                self._stack[-1].atoms.append(frozenset({Literal(char)}))
        if len(self._stack) != 1:
            raise _NotFinite
        self._stack[0].end_alternative()
        return self._stack[0].alternatives

    def _peek(self, length: int = 1) -> str:
        return self._pattern[self._at : self._at + length]

    def escape(self) -> None:
        char = self._peek()
        if char not in _ESCAPABLE:  # also "" at the end: a trailing backslash
            raise _NotFinite
        self._at += 1
        self._stack[-1].atoms.append(frozenset({Literal(char)}))

    def dot(self) -> None:
        if self._peek() != "*" or self._pattern[self._at + 1 : self._at + 2] in ("?", "*", "+", "{"):
            raise _NotFinite
        self._at += 1
        self._stack[-1].atoms.append(_ANYTHING)

    def open(self) -> None:
        if self._peek() == "?":
            if self._peek(2) != "?:":
                raise _NotFinite
            self._at += 2
        if len(self._stack) > MAX_DEPTH:
            raise _NotFinite
        self._stack.append(_Group())

    def close(self) -> None:
        if len(self._stack) == 1:
            raise _NotFinite
        group = self._stack.pop()
        group.end_alternative()
        self._stack[-1].atoms.append(frozenset(group.alternatives))

    def alternative(self) -> None:
        self._stack[-1].end_alternative()

    def optional(self) -> None:
        atoms = self._stack[-1].atoms
        if not atoms or self._peek() in ("?", "*", "+", "{"):
            raise _NotFinite
        atoms[-1] |= _EMPTY

    def begin_anchor(self) -> None:
        if len(self._stack) != 1 or self._stack[0].atoms or self._peek() in ("?", "*", "+", "{"):
            raise _NotFinite

    def end_anchor(self) -> None:
        if len(self._stack) != 1 or self._peek() not in ("", "|"):
            raise _NotFinite


_STEPS = {
    "\\": _Reader.escape,
    ".": _Reader.dot,
    "(": _Reader.open,
    ")": _Reader.close,
    "|": _Reader.alternative,
    "?": _Reader.optional,
    "^": _Reader.begin_anchor,
    "$": _Reader.end_anchor,
}
