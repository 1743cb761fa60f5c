"""Identities of learned addresses: one for each set of selectors that the names of an address have (facts 2.6). Pure.

A name's addresses come and go while nobody edits a policy, so they are not part of the IR: what is compiled are label
sets, the selectors of names beside what policies say of the prefix around (an address of a name within 10.0.0.0/8 is
still of 10.0.0.0/8). A label set has its identity before any address has the labels, if it is a likely one: then a
freshly learned address needs one entry in the ipcache, and no compiling (`open`). Every other set is made by the next
compilation. Addresses of pods, nodes and services never have names (facts 2.6, 6.3).

An address moves only to identities that are in force; `FqdnBook` knows which these are as long as it is told when
what was compiled is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple, Protocol

from policies.compiling.cidrs import CidrBook
from policies.compiling.identity import IdentitiesExhausted, IdentityAllocator, Scope
from policies.compiling.selections import SelectorCache
from policies.errors import PolicyError, Reason
from policies.ir import FqdnSelector
from policies.labels import FQDN, RESERVED, is_of_names
from policies.prefixes import Prefix, PrefixMap

Labels = tuple[str, ...]
Keys = frozenset[str]  # `fqdn:` labels


class Home(NamedTuple):
    """An address as everybody on the node knows it, or (with its number) one endpoint alone."""

    prefix: Prefix
    endpoint: int = 0


SETS_MAX: Final = 16_384  # of the 65,535 numbers that prefixes need too
LIKELY_MAX: Final = SETS_MAX // 2
NO_KEYS: Final[Keys] = frozenset()


class LearnedNames(Protocol):
    """The book of names, as a compilation asks it."""

    def follow(self, keys: Keys) -> None:
        """These selectors are in use now."""

    def drain(self) -> Mapping[Home, Keys]:
        """Addresses whose names have other selectors than when last asked, and which; none: nothing is known of it."""

    def likely(self) -> Iterable[Keys]:
        """Sets that a name which is yet to be learned will probably have."""


class NoNames:
    """Nobody learns anything: offline."""

    def follow(self, keys: Keys) -> None:
        pass

    def drain(self) -> Mapping[Home, Keys]:
        return {}

    def likely(self) -> Iterable[Keys]:
        return ()


class Opening(Enum):
    """What is to be done for an address that is learned."""

    DONE = "done"  # nothing: it is what it should be, or no name makes a difference there
    WRITE = "write"  # its identity is in force: tell the kernel where it is
    COMPILE = "compile"  # it needs an identity that is not in force yet


class FqdnBook:
    """Address -> identity, for addresses of names. `is_dual`: each family has a world of its own."""

    def __init__(
        self, identities: IdentityAllocator, selectors: SelectorCache, cidrs: CidrBook, *, is_dual: bool
    ) -> None:
        self.addresses: dict[Home, int] = {}
        self.selectors: tuple[FqdnSelector, ...] = ()
        self.errors: tuple[PolicyError, ...] = ()
        self._allocator = identities
        self._selectors = selectors
        self._cidrs = cidrs
        self._is_dual = is_dual
        self._keys: dict[Home, Keys] = {}  # of every address that has some
        self._labels: dict[Home, Labels] = {}  # of every address in `addresses`
        self._users: Counter[Labels] = Counter()
        self._likely: set[Labels] = set()
        self._numbers: dict[Labels, int] = {}
        self._in_force: set[int] = set()
        self._bases: PrefixMap[Labels] = PrefixMap()
        self._based_on: Mapping[Prefix, Labels] = {}
        self._moved: dict[Home, int | None] = {}
        self._on_the_way: set[Home] = set()  # moved by what was compiled last, or before; not in force yet
        self._unnamed: set[Home] = set()  # addresses without a number
        self._version = -1
        self._is_taken: Callable[[Prefix], bool] = lambda prefix: False
        self._is_first = True

    # --- compiling ---

    def follow(self, keys: Iterable[str], version: int, learned: LearnedNames) -> None:
        """These selectors are in use; the same version is the same selectors."""
        if version != self._version:
            self._version = version
            known = frozenset(keys)
            self.selectors = tuple(sorted({selector_of(key) for key in known}))
            learned.follow(known)

    def take(self, learned: LearnedNames, moved: Iterable[Prefix], is_taken: Callable[[Prefix], bool]) -> None:
        """Follow prefixes of policies and names. `moved`: addresses where somebody else may live now; `is_taken`:
        whether an address is of somebody whom no name selects."""
        self._is_taken = is_taken
        doubtful = self._rebase()
        if around := set(moved):
            doubtful.update(home for home in self._keys if home.prefix in around)
        doubtful |= self._unnamed
        drained = learned.drain()
        doubtful |= drained.keys()
        for home, keys in drained.items():
            self._note(home, keys)
        self._likely = self._likely_labels(learned)
        for home in sorted(doubtful):
            self._settle(home)
        self._number()

    def drain_moves(self) -> Mapping[Home, int | None]:
        """What `take` has moved since the last call: for the kernel, together with what was compiled."""
        moved, self._moved = self._moved, {}
        self._on_the_way |= moved.keys()
        return moved

    def enforced(self) -> None:
        """What was compiled last is in force."""
        self._in_force = set(self._numbers.values())
        self._on_the_way = set()

    # --- learning ---

    def open(self, home: Home, keys: Keys) -> Opening:
        """The names of an address have these selectors now. After WRITE, `addresses` has its identity, or nothing if it
        is only of the prefix around it. After COMPILE the address must be among those that LearnedNames drains."""
        self._note(home, keys)
        wanted = self._wanted(home)
        if self._labels.get(home) == wanted:
            is_settled = home not in self._on_the_way and home not in self._moved and home not in self._unnamed
            return Opening.DONE if is_settled else Opening.COMPILE
        number = self._numbers.get(wanted) if wanted is not None else None
        if wanted is not None and (number is None or number not in self._in_force):
            return Opening.COMPILE
        self._put(home, wanted, number)
        self._on_the_way.discard(home)
        return Opening.WRITE

    def is_settled(self, home: Home) -> bool:
        """Whether the address has the identity in the kernel that its selectors, as they were last told, gave it."""
        return home in self.addresses and home not in self._on_the_way and home not in self._moved

    def is_hopeless(self, home: Home) -> bool:
        """Whether there was no identity for the address when last compiled."""
        return home in self._unnamed

    def doubt(self, home: Home) -> None:
        """The kernel does not hold what it should of an address: the next compilation tells it again."""
        self._put(home, None, None)

    @property
    def numbers(self) -> Collection[int]:
        """Every identity that an address of names has, or may have soon."""
        return self._numbers.values()

    def number_of(self, home: Home) -> int | None:
        """The identity of an address of names."""
        return self.addresses.get(home)

    # --- parts ---

    def _note(self, home: Home, keys: Keys) -> None:
        if keys:
            self._keys[home] = keys
        else:
            self._keys.pop(home, None)

    def _wanted(self, home: Home) -> Labels | None:
        """The labels that an address should have; None if it is to be what it is without names."""
        keys = self._keys.get(home, NO_KEYS)
        return self._with_base(home.prefix, keys) if keys and not self._is_taken(home.prefix) else None

    def _with_base(self, prefix: Prefix, keys: Keys) -> Labels:
        base = self._bases.longest(prefix)
        if base is None:
            base = (f"{RESERVED}:world-ipv{prefix.version}" if self._is_dual else f"{RESERVED}:world",)
        return tuple(sorted({*base, *keys}))

    def _rebase(self) -> set[Home]:
        """Follow the prefixes of policies; the addresses around which they have changed."""
        before, now = self._based_on, self._cidrs.labels
        if before is now:
            return set()
        self._based_on = now
        touched: PrefixMap[bool] = PrefixMap()
        for prefix in before.keys() | now.keys():
            if before.get(prefix) == now.get(prefix):
                continue
            touched[prefix] = True
            if prefix in now:
                self._bases[prefix] = now[prefix]
            else:
                del self._bases[prefix]
        return {home for home in self._keys if touched.longest(home.prefix)}

    def _likely_labels(self, learned: LearnedNames) -> set[Labels]:
        families = (Prefix(4, 0, 0), Prefix(6, 0, 0)) if self._is_dual else (Prefix(4, 0, 0),)
        likely = (self._with_base(family, keys) for keys in learned.likely() if keys for family in families)
        return set(islice(likely, LIKELY_MAX))

    def _settle(self, home: Home) -> None:
        wanted = self._wanted(home)
        if self._labels.get(home) != wanted or home in self._unnamed:
            self._put(home, wanted, None)
            self._moved[home] = None  # until it has a number

    def _put(self, home: Home, labels: Labels | None, number: int | None) -> None:
        """The address has these labels from now on. Without a number, it gets one in `_number`."""
        before = self._labels.pop(home, None)
        if before is not None:
            self._users[before] -= 1
        self._moved.pop(home, None)
        self._unnamed.discard(home)
        self.addresses.pop(home, None)
        if labels is None:
            return
        self._labels[home] = labels
        self._users[labels] += 1
        if number is not None:
            self.addresses[home] = number

    def _number(self) -> None:
        """Numbers for all label sets that are wanted, the others given back; then for the addresses that moved."""
        wanted = {labels for labels, users in self._users.items() if users > 0} | self._likely
        for labels in [labels for labels, users in self._users.items() if users <= 0]:
            del self._users[labels]
        self._release(wanted)
        failed = 0
        for labels in sorted(wanted - self._numbers.keys(), key=lambda labels: (not self._users[labels], labels)):
            failed += not self._enter(labels) and bool(self._users[labels])
        self._in_force &= set(self._numbers.values())
        for home in self._moved:
            if home not in self._labels:
                continue
            number = self._numbers.get(self._labels[home])
            if number is None:
                self._unnamed.add(home)
            else:
                self.addresses[home] = self._moved[home] = number
        self.errors = (_no_number(failed),) if failed else ()

    def _release(self, wanted: set[Labels]) -> None:
        gone = {labels: number for labels, number in self._numbers.items() if labels not in wanted}
        numbers = set(gone.values())
        if self._is_first:  # what an earlier agent knew and this world does not
            mine = {
                n: labels for n, labels in self._allocator.in_use(Scope.LOCAL).items() if any(map(is_of_names, labels))
            }
            numbers |= {number for number, labels in mine.items() if labels not in wanted}
            self._is_first = False
        for labels in gone:
            del self._numbers[labels]
        for number in sorted(numbers):
            self._allocator.release(number)
            self._selectors.remove(number)

    def _enter(self, labels: Labels) -> bool:
        if len(self._numbers) >= SETS_MAX:
            return False
        try:
            number = self._allocator.allocate(labels, Scope.LOCAL)
        except IdentitiesExhausted:
            return False
        self._numbers[labels] = number
        self._selectors.add(number, labels)
        return True


def selector_of(key: str) -> FqdnSelector:
    """The selector that a key (policies.labels.fqdn_key) is of."""
    text = key.removeprefix(f"{FQDN}:")
    if text == ".":
        return FqdnSelector()
    if "*" in text:
        return FqdnSelector(pattern=text if text == "*" else f"{text}.")
    return FqdnSelector(name=f"{text}.")


def _no_number(count: int) -> PolicyError:
    message = f"{count:,} sets of selectors have no identity: names that they select are not opened; use fewer toFQDNs"
    return PolicyError("FQDN", "", "identities", "", Reason.NO_IDENTITY, message)
