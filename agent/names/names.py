"""Names and what they make of an address: the book of what was learned, and the selectors that are in use. Pure.

Satisfies policies.compiling.fqdns.LearnedNames. A name that no selector selects is remembered as well, for flows and
for a policy that comes later, in a book of its own that forgets the oldest: a flood of such names costs no other name
its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.names.book import Bounds, Holding, NameBook, Rest, Sharing, Sweep, canonical_address
from agent.names.selecting import SelectorTable
from policies.compiling.fqdns import NO_KEYS, Home, Keys
from policies.prefixes import Prefix

OVERHEARD: Final = Bounds(per_endpoint=1_000, whole=20_000, reserved=16, evicts=True)


@dataclass(frozen=True, slots=True)
class NameOptions:
    """Times in seconds. `targets`: the targets of CNAMEs are names as well; then whoever answers for a name answers for
    these."""

    min_ttl: int = 0
    sharing: Sharing = Sharing.NODE
    targets: bool = False
    rest: Rest = field(default_factory=Rest)
    bounds: Bounds = field(default_factory=Bounds)


class Lesson(NamedTuple):
    """What an answer taught: the addresses of a name (4 or 16 bytes each) for `ttl` seconds from `at` (Unix time) on.
    The name and the targets of its CNAMEs are in lower case with a trailing dot."""

    name: str
    addresses: Sequence[bytes]
    ttl: int
    at: float
    targets: Sequence[str] = ()


@dataclass
class Learnt:
    """What became of a lesson. `changed`: addresses whose selectors are others now; `matters`: whether some selector
    selects the name."""

    homes: tuple[Home, ...] = ()
    changed: set[Home] = field(default_factory=set)
    kept: list[Holding] = field(default_factory=list)  # news for the journal
    refused: int = 0
    matters: bool = False


class Names:
    """All that is learned on a node. One writer."""

    def __init__(self, options: NameOptions | None = None) -> None:
        self.options = options or NameOptions()
        self.book = NameBook(self.options.bounds)
        self.overheard = NameBook(OVERHEARD)
        self.promoted: list[Holding] = []  # overheard before a policy selected them; for the journal
        self._table = SelectorTable(())
        self._keys: dict[Home, Keys] = {}  # of every address that has some
        self._dirty: set[Home] = set()

    # --- LearnedNames ---

    def follow(self, keys: Keys) -> None:
        """These selectors are in use now."""
        before, self._table = self._table, SelectorTable(keys)
        for holding in [h for h in self.overheard.holdings() if self._table.of(h.name)]:
            self.overheard.drop(holding)
            if self.book.restore([holding]) == 0:
                self.promoted.append(holding)
                self._dirty.add(self._home(holding.address, holding.endpoint))
        others = SelectorTable(before.keys ^ keys)
        for name in self.book.names() if others else ():
            if others.of(name):
                self._dirty |= {
                    self._home(a, who) for a in self.book.addresses(name) for who in self.book.holders(name, a)
                }

    def drain(self) -> Mapping[Home, Keys]:
        """Addresses whose names have other selectors than when last asked, and which."""
        dirty, self._dirty = self._dirty, set()
        return {home: self._look_up(home) for home in dirty}

    def likely(self) -> Iterable[Keys]:
        """Sets that a name which is yet to be learned will probably have."""
        return sorted(self._table.likely(), key=sorted)

    # --- learning ---

    def restore(self, holdings: Iterable[Holding]) -> int:
        """Take over what a journal has kept; returns how many the bounds did not admit."""
        refused = 0
        for holding in holdings:
            refused += self.book.restore([holding])
            self._dirty.add(self._home(holding.address, holding.endpoint))
        return refused

    def learn(self, endpoint: int, lesson: Lesson, now: float) -> Learnt:
        """An endpoint was answered."""
        names = (lesson.name, *lesson.targets) if self.options.targets else (lesson.name,)
        expires = min(lesson.at, now) + max(lesson.ttl, self.options.min_ttl)
        selected = [name for name in names if self._table.of(name)]
        if len(selected) < len(names):
            self.overheard.learn(endpoint, [n for n in names if n not in selected], lesson.addresses, expires)
        if not selected:
            return Learnt()
        addresses = dict.fromkeys(map(canonical_address, lesson.addresses))
        change = self.book.learn(endpoint, selected, addresses, expires)
        refused = {holding.address for holding in change.refused}
        learnt = Learnt(kept=[*change.opened, *change.renewed], refused=len(refused), matters=True)
        learnt.homes = tuple(self._home(address, endpoint) for address in addresses if address not in refused)
        for holding in change.opened:
            home = self._home(holding.address, endpoint)
            known = self._keys.get(home, NO_KEYS)
            if not (own := self._table.of(holding.name)) <= known:
                self._keys[home] = known | own
                learnt.changed.add(home)
        return learnt

    def keys(self, home: Home) -> Keys:
        """Of the selectors that one of the address's names has."""
        return self._keys.get(home, NO_KEYS)

    def mark(self, homes: Iterable[Home]) -> None:
        """The next `drain` has these."""
        self._dirty.update(homes)

    def matters(self, name: str) -> bool:
        """Whether some selector selects the name."""
        return bool(self._table.of(name))

    def selectors(self, name: str) -> Keys:
        """Keys of the selectors that select the name."""
        return self._table.of(name)

    def names_of(self, address: bytes, endpoint: int) -> tuple[str, ...]:
        """The names under which an endpoint knows an address, sorted."""
        found = {
            name
            for book in (self.book, self.overheard)
            for name in book.names_of(address)
            if endpoint in book.holders(name, address)
        }
        return tuple(sorted(found))

    # --- forgetting ---

    def forget(self, endpoint: int, now: float) -> None:
        """An endpoint is gone."""
        self.book.forget(endpoint, now)
        self.overheard.forget(endpoint, now)

    def collect(self, names: Sequence[str], sweep: Sweep) -> tuple[list[Holding], list[Home]]:
        """Close what of these names may be; what was closed, and the addresses whose selectors are others now."""
        gone = self.book.collect(names, sweep, self.options.rest, self.options.sharing)
        changed = []
        for home in {self._home(holding.address, holding.endpoint): None for holding in gone}:
            before = self.keys(home)
            if self._look_up(home) != before:
                changed.append(home)
        return gone, changed

    # --- parts ---

    def _home(self, address: bytes, endpoint: int) -> Home:
        """For whom an address is that an endpoint has learned."""
        return Home(host_prefix(address), 0 if self.options.sharing is Sharing.NODE else endpoint)

    def _look_up(self, home: Home) -> Keys:
        """The keys of an address, from its names."""
        address = packed(home.prefix)
        names = self.book.names_of(address)
        if home.endpoint:
            names = {name for name in names if home.endpoint in self.book.holders(name, address)}
        keys = NO_KEYS.union(*map(self._table.of, names))
        if keys:
            self._keys[home] = keys
        else:
            self._keys.pop(home, None)
        return keys


def host_prefix(address: bytes) -> Prefix:
    """A packed address as a prefix."""
    return Prefix(4 if len(address) == 4 else 6, int.from_bytes(address, "big"), len(address) * 8)


def packed(prefix: Prefix) -> bytes:
    """A prefix of one address, as that address, packed."""
    return prefix.network.to_bytes(prefix.bits // 8, "big")
