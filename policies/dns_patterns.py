"""matchName and matchPattern: the one grammar by which policies are read, names are judged and addresses are learned
(facts 6.1, Cilium 1.19). Compiled per rule set into a tree of labels. Pure.

Names are compared from their last label on, so that a rule set of 10,000 patterns costs what its longest name costs
(docs/dns.md has the figures against a joined regex). `regex_of` says the same as a regular expression: it is what the
tree is tested against, and what is shown to people.

    *        in toFQDNs: every name of host characters; in a DNS rule: everything. So are ** and **.
    *.x.io   one label before x.io       **.x.io   one or more labels before x.io (two stars or more)
    *x.io    x.io and subx.io            a.**.x.io the same as a.*.x.io: stars elsewhere are one star
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Final

_CHARACTERS: Final = "[-a-zA-Z0-9_]"
_PLAIN: Final = re.compile(r"[-a-z0-9_.]+")
_STARS: Final = re.compile(r"\*+")
_REMEMBERED: Final = 1024  # names that a set was asked about last; 0.4 MB at most
_EVERYTHING: Final = re.compile(r"\*+|\*\*+\.")


class Dialect(Enum):
    """What a lone `*` means, as a regular expression: the two places where patterns stand differ for odd names."""

    TO_FQDNS = rf"(^({_CHARACTERS}+[.])+$)|(^[.]$)"
    DNS_RULE = ".*"


def canonical(written: str) -> str:
    """A name or pattern as it is compared: trimmed, in lower case, with a trailing dot. "" is the root."""
    text = written.strip().lower()
    return text if text.endswith(".") else text + "."


def canonical_pattern(written: str) -> str:
    """A pattern in the one form of all that mean the same by their letters: a lone star, in whatever number, is `*`."""
    return "*" if is_everything(written) else canonical(written)


def is_everything(pattern: str) -> bool:
    """Whether the pattern is a lone star, or several."""
    return _EVERYTHING.fullmatch(pattern.strip()) is not None


def covers(broad: str, narrow: str) -> bool:
    """Whether every name that is selected by `narrow`, a pattern or a name, is selected by the pattern `broad`: in a
    DNS rule, and as far as labels are compared one by one. "Yes" is sure."""
    if broad == "*":
        return True
    if narrow == "*":
        return False
    wide, slim = canonical(broad)[:-1].split("."), canonical(narrow)[:-1].split(".")
    if _is_deep(wide):
        rest = wide[1:]
        return len(slim) > len(rest) and all(map(_label_covers, rest, slim[len(slim) - len(rest) :]))
    return not _is_deep(slim) and len(wide) == len(slim) and all(map(_label_covers, wide, slim))


def _label_covers(broad: str, narrow: str) -> bool:
    """`*` and its likes are any label; other globs are held against labels without stars."""
    if broad == narrow or not broad.strip("*"):
        return True
    return "*" in broad and "*" not in narrow and _fits(tuple(_STARS.split(broad)), narrow)


def _is_deep(labels: list[str]) -> bool:
    """Whether the first stands for one or more."""
    return len(labels) > 1 and labels[0].startswith("**") and not labels[0].strip("*")


def regex_of(pattern: str, dialect: Dialect) -> str:
    """The anchored regular expression of a pattern, as the facts have it."""
    if is_everything(pattern):
        return dialect.value
    text = canonical(pattern)
    deep = ""
    if text.startswith("**") and text.lstrip("*").startswith("."):
        deep, text = f"({_CHARACTERS}+([.]{_CHARACTERS}+){{0,}})", text.lstrip("*")
    return f"^{deep}" + _STARS.sub(f"{_CHARACTERS}*", text.replace(".", "[.]")) + "$"


def bare_regex(pattern: str) -> str:
    """RE2 of the names that a pattern of toFQDNs selects as they stand in a Host or a ClientHello: without the dot at
    the end. The last label has a character at least: a star for none would take that dot for the one before it."""
    if is_everything(pattern):
        return f"(?:{_CHARACTERS}+[.])*{_CHARACTERS}+"
    body = regex_of(pattern, Dialect.TO_FQDNS).removeprefix("^").removesuffix("[.]$")
    before, star, last = body.rpartition(f"{_CHARACTERS}*")
    return f"{before}{_CHARACTERS}+" if star and not last and (not before or before.endswith("[.]")) else body


class _Node:
    """Where labels lead to, read from the end of a name."""

    __slots__ = ("any", "deep", "ends", "globs", "literal")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.any: _Node | None = None  # a lone star
        self.globs: dict[tuple[str, ...], _Node] = {}  # stars within a label: what stands between them
        self.ends: int | None = None  # a name may end here: the place of what says so
        self.deep: int | None = None  # one or more labels, whatever they are, may follow: likewise

    def child(self, label: str) -> _Node:
        if "*" not in label:
            return self.literal.setdefault(label, _Node())
        if not label.strip("*"):
            self.any = self.any or _Node()
            return self.any
        return self.globs.setdefault(tuple(_STARS.split(label)), _Node())


class NameSet:
    """The names that some names and patterns select. Immutable once made."""

    def __init__(self, names: Iterable[str], patterns: Iterable[str], dialect: Dialect) -> None:
        self._exact: dict[str, int] = {}
        self._root = _Node()
        self._patterned = False
        self._everything: int | None = None
        self._every_plain: int | None = None
        place = 0
        for place, name in enumerate(names, 1):
            self._exact.setdefault(canonical(name), place - 1)
        for behind, pattern in enumerate(patterns, place):
            self._add(pattern, dialect, behind)
        self._by_pattern = lru_cache(_REMEMBERED)(self._fitting)

    @property
    def is_everything(self) -> bool:
        """Whether no name at all is refused."""
        return self._everything is not None

    def __contains__(self, name: str) -> bool:
        """Whether a name is selected; it is in lower case with a trailing dot, as the codec gives it."""
        return self.which(name) is not None

    def which(self, name: str) -> int | None:
        """What selects the name, by its place: names as they were given, then patterns. None if nothing does."""
        if (place := self._exact.get(name)) is not None:
            return place
        if self._everything is not None:
            return self._everything
        return self._by_pattern(name) if self._patterned else None

    def _fitting(self, name: str) -> int | None:
        if not _PLAIN.fullmatch(name):
            return None
        return self._every_plain if self._every_plain is not None else self._walk(name[:-1].split("."))

    def _add(self, pattern: str, dialect: Dialect, place: int) -> None:
        if is_everything(pattern):
            self._patterned = True
            self._every_plain = place if self._every_plain is None else self._every_plain
            if dialect is Dialect.DNS_RULE:
                self._everything = self._every_plain
            return
        text = canonical(pattern)
        if "*" not in text:
            self._exact.setdefault(text, place)
            return
        self._patterned = True
        labels = text[:-1].split(".")
        deep = _is_deep(labels)
        node = self._root
        for label in reversed(labels[1:] if deep else labels):
            node = node.child(label)
        if deep:
            node.deep = place if node.deep is None else node.deep
        else:
            node.ends = place if node.ends is None else node.ends

    def _walk(self, labels: list[str]) -> int | None:
        """Depth first over the branches that fit; each node of the tree is visited once at most."""
        waiting = [(self._root, len(labels))]
        while waiting:
            node, left = waiting.pop()
            if not left:
                if node.ends is not None:
                    return node.ends
                continue
            if node.deep is not None:
                return node.deep
            label = labels[left - 1]
            if (found := node.literal.get(label)) is not None:
                waiting.append((found, left - 1))
            if node.any is not None:
                waiting.append((node.any, left - 1))
            for parts, child in node.globs.items():
                if _fits(parts, label):
                    waiting.append((child, left - 1))
        return None


def _fits(parts: tuple[str, ...], label: str) -> bool:
    """Whether the label has the parts in their order, the first at its beginning, the last at its end. Linear: the
    first place where a part between two stars fits is as good as any later one."""
    at, end = len(parts[0]), len(label) - len(parts[-1])
    if at > end or not label.startswith(parts[0]) or not label.endswith(parts[-1]):
        return False
    for part in parts[1:-1]:
        at = label.find(part, at, end) + len(part)
        if at < len(part):
            return False
    return True
