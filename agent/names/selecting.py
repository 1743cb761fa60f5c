"""Which toFQDNs selectors select a name. Pure.

A selector is known by its key (policies.labels.fqdn_key). Patterns hang on the labels at their end that have no star,
so that a name is held only against those that it may match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from policies.compiling.fqdns import NO_KEYS, Keys, selector_of
from policies.dns_patterns import Dialect, NameSet

SAMPLE_LABEL: Final = "deflector-sample"  # in the place of stars: a name that nobody has
_EVERYTHING: Final = "*"
_STARS: Final = re.compile(r"\*+")


class SelectorTable:
    """The selectors of a node. Immutable once made."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = frozenset(keys)
        self._exact: dict[str, Keys] = {}
        self._patterned: dict[str, list[tuple[NameSet, str]]] = {}  # by the end of names without a star
        self._sets: dict[Keys, Keys] = {}  # each set once
        for key in sorted(self.keys):
            selector = selector_of(key)
            if selector.pattern:
                found = NameSet((), (selector.pattern,), Dialect.TO_FQDNS)
                self._patterned.setdefault(plain_end(selector.pattern), []).append((found, key))
            else:
                name = selector.name or "."
                self._exact[name] = self._exact.get(name, NO_KEYS) | {key}

    def __bool__(self) -> bool:
        return bool(self.keys)

    def of(self, name: str) -> Keys:
        """Keys of the selectors that select a name, which is in lower case with a trailing dot."""
        found = self._exact.get(name, NO_KEYS)
        if self._patterned:
            matching = {key for end in _ends(name) for names, key in self._patterned.get(end, ()) if name in names}
            if matching:
                found = found | matching
        return self._sets.setdefault(found, found)

    def likely(self) -> set[Keys]:
        """The sets that the names of these selectors have: those that are written, and a sample of each pattern."""
        names = [selector.pattern or selector.name or "." for selector in map(selector_of, self.keys)]
        return {self.of(sample(name)) for name in names} - {NO_KEYS}


def sample(written: str) -> str:
    """A name that a selector selects: itself, or with a label for every star."""
    if written == _EVERYTHING:
        return f"{SAMPLE_LABEL}."
    return _STARS.sub(SAMPLE_LABEL, written)


def plain_end(pattern: str) -> str:
    """The labels behind the last one with a star."""
    labels = pattern.split(".")
    last = max(i for i, label in enumerate(labels) if "*" in label)
    return ".".join(labels[last + 1 :])


def _ends(name: str) -> Iterable[str]:
    """Every way in which the name may end, after a dot; "" for all of it."""
    at = -1
    while (at := name.find(".", at + 1)) >= 0:
        yield name[at + 1 :]
