"""Learned names: which addresses a name has, who learned them, and until when (facts 6.3). Pure; time is an argument.

    learn      an answer that policy allowed: addresses are opened
    collect    what has expired, and carries no connection: addresses are closed

An address stays open beyond its TTL until a sweep over connections, made after it expired, finds none to it. One live
address keeps all addresses of its name. There is no cap on the addresses of a name: only a bound on what one endpoint,
and all together, may hold; whoever reaches it is told so, and nothing that another endpoint uses is given up for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96: packets to it are IPv4 (RFC 4291 2.5.5.2)
ORPHANED_MAX: Final = 300.0  # seconds that what an endpoint has learned outlives it: others were told by it, too
RENEWAL_STEP: Final = 1.0  # seconds: an answer that moves an expiry by less is no news
NOBODY: Final[frozenset[int]] = frozenset()


class Sharing(StrEnum):
    """For whom a learned address is opened."""

    NODE = "node"  # every endpoint of the node whose policy selects the name, as Cilium does
    ENDPOINT = "endpoint"  # only who asked


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many addresses of names, (name, address, endpoint), a book holds."""

    per_endpoint: int = 20_000
    whole: int = 100_000
    reserved: int = 64  # what an endpoint may hold even when the whole is full
    evicts: bool = False  # at its bound, an endpoint's oldest goes; else its newest is refused


class Holding(NamedTuple):
    """An address that an endpoint has learned for a name. `alive`: when a sweep last saw a connection to it, or 0."""

    endpoint: int
    name: str
    address: bytes
    expires: float
    alive: float = 0.0


class Sweep(NamedTuple):
    """What connection tracking said at a time: for each address the endpoints with connections to it."""

    at: float
    alive: Mapping[bytes, Set[int]]


class Rest(NamedTuple):
    """How long an address is kept, in seconds: after it expired at least, since clients connect a moment after they
    were told; and after its last connection."""

    linger: float = 30.0
    idle_grace: float = 0.0


@dataclass
class Change:
    """What learning did. `opened`: addresses that the name did not have before, or not for that endpoint."""

    opened: list[Holding] = field(default_factory=list)
    renewed: list[Holding] = field(default_factory=list)  # news only
    refused: list[Holding] = field(default_factory=list)  # what the bounds did not admit
    evicted: list[Holding] = field(default_factory=list)


@dataclass(slots=True)
class _Life:
    expires: float
    alive: float = 0.0


_Lives = dict[bytes, dict[int, _Life]]  # address -> endpoint -> life


class NameBook:
    """Learned names of a node. One writer. `now` is the time of day in seconds: it survives restarts."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._names: dict[str, _Lives] = {}
        self._names_of: dict[bytes, str | set[str]] = {}  # a set where there are several
        self._held: dict[int, int] = {}
        self._oldest: dict[int, OrderedDict[tuple[str, bytes], None]] = {}  # by endpoint, if it evicts
        self._whole = 0

    def __len__(self) -> int:
        """How much of `bounds.whole` is in use."""
        return self._whole

    # --- what is known ---

    def names(self) -> list[str]:
        """Every name, in no order."""
        return list(self._names)

    def names_of(self, address: bytes) -> Set[str]:
        """The names that have the address."""
        found = self._names_of.get(address)
        return {found} if isinstance(found, str) else found or frozenset()

    def addresses(self, name: str) -> list[bytes]:
        """The name's addresses, in no order."""
        return list(self._names.get(name, ()))

    def holders(self, name: str, address: bytes) -> Set[int]:
        """The endpoints that have learned the address for the name."""
        return self._names.get(name, {}).get(address, {}).keys()

    def has_expired(self, name: str, before: float) -> bool:
        """Whether some address of the name expired before that time."""
        lives = self._names.get(name, {})
        return any(life.expires < before for by_endpoint in lives.values() for life in by_endpoint.values())

    def endpoints(self) -> Set[int]:
        """Whoever has learned something."""
        return self._held.keys()

    def held(self, name: str, address: bytes) -> list[Holding]:
        """Who has learned the address for the name, and until when."""
        lives = self._names.get(name, {}).get(address, {})
        return [Holding(endpoint, name, address, life.expires, life.alive) for endpoint, life in lives.items()]

    def holdings(self) -> Iterator[Holding]:
        """Everything, sorted: for lists, and for the snapshot of the journal."""
        for name in sorted(self._names):
            for address in sorted(self._names[name]):
                for endpoint, life in sorted(self._names[name][address].items()):
                    yield Holding(endpoint, name, address, life.expires, life.alive)

    # --- learning ---

    def learn(self, endpoint: int, names: Iterable[str], addresses: Iterable[bytes], expires: float) -> Change:
        """An endpoint was answered: each of these names has all of these addresses."""
        change = Change()
        canonical = tuple(dict.fromkeys(map(canonical_address, addresses)))
        for name in names:
            for address in canonical:
                self._learn(Holding(endpoint, name, address, expires), change)
        return change

    def restore(self, holdings: Iterable[Holding]) -> int:
        """Take over what a journal has kept; returns how many the bounds did not admit."""
        change = Change()
        for holding in holdings:
            self._learn(holding, change)
        return len(change.refused)

    def forget(self, endpoint: int, now: float) -> None:
        """An endpoint is gone. Others may be about to use what it has learned: it stays for a while, expires, and is
        collected where nobody has connections."""
        if endpoint not in self._held:
            return
        for lives in self._names.values():
            for by_endpoint in lives.values():
                life = by_endpoint.get(endpoint)
                if life is not None:
                    life.expires = min(life.expires, now + ORPHANED_MAX)

    def _learn(self, holding: Holding, change: Change) -> None:
        life = self._names.get(holding.name, {}).get(holding.address, {}).get(holding.endpoint)
        if life is not None:
            life.alive = max(life.alive, holding.alive)
            if holding.expires > life.expires + RENEWAL_STEP:
                life.expires = holding.expires
                change.renewed.append(holding)
        elif self._has_room(holding.endpoint, change):
            self._hold(holding)
            change.opened.append(holding)
        else:
            change.refused.append(holding)

    def _has_room(self, endpoint: int, change: Change) -> bool:
        held, bounds = self._held.get(endpoint, 0), self.bounds
        if held < bounds.per_endpoint and (self._whole < bounds.whole or held < bounds.reserved):
            return True
        if not bounds.evicts or not held:
            return False
        name, address = next(iter(self._oldest[endpoint]))
        life = self._names[name][address][endpoint]
        evicted = Holding(endpoint, name, address, life.expires, life.alive)
        self.drop(evicted)
        change.evicted.append(evicted)
        return True

    def _hold(self, holding: Holding) -> None:
        endpoint, name, address, expires, alive = holding
        lives = self._names.setdefault(name, {})
        if address not in lives:
            lives[address] = {}
            known = self._names_of.get(address)
            if known is None:
                self._names_of[address] = name
            elif isinstance(known, str):
                self._names_of[address] = {known, name}
            else:
                known.add(name)
        lives[address][endpoint] = _Life(expires, alive)
        self._held[endpoint] = self._held.get(endpoint, 0) + 1
        self._whole += 1
        if self.bounds.evicts:
            self._oldest.setdefault(endpoint, OrderedDict())[name, address] = None

    def drop(self, holding: Holding) -> None:
        """Hold this no more."""
        endpoint, name, address = holding[:3]
        lives = self._names[name]
        del lives[address][endpoint]
        if not lives[address]:
            del lives[address]
            known = self._names_of[address]
            if isinstance(known, str):
                del self._names_of[address]
            else:
                known.discard(name)
                if len(known) == 1:
                    self._names_of[address] = known.pop()
        if not lives:
            del self._names[name]
        self._whole -= 1
        self._held[endpoint] -= 1
        if not self._held[endpoint]:
            del self._held[endpoint]
        if self.bounds.evicts:
            del self._oldest[endpoint][name, address]
            if not self._oldest[endpoint]:
                del self._oldest[endpoint]

    # --- collecting ---

    def collect(self, names: Iterable[str], sweep: Sweep, rest: Rest, sharing: Sharing) -> list[Holding]:
        """Close what of these names had expired when the sweep was made, and carries no connection; returns it. Takes
        a second for 1,000,000 addresses: in pieces, where somebody waits."""
        gone: list[Holding] = []
        for name in names:
            lives = self._names.get(name)
            if lives is None:
                continue
            for scope in _idle(lives, sweep, rest, sharing):
                gone += _due(name, lives, sweep.at - rest.linger, scope)
        for holding in gone:
            self.drop(holding)
        return gone


def _idle(lives: _Lives, sweep: Sweep, rest: Rest, sharing: Sharing) -> set[int | None]:
    """Note which addresses live, and return for whom the name as a whole may be collected: for an endpoint, or (None)
    for everybody, where addresses are shared."""
    shared = sharing is Sharing.NODE
    idle: dict[int | None, bool] = {}
    for address, by_endpoint in lives.items():
        connected = sweep.alive.get(address, NOBODY)
        for endpoint, life in by_endpoint.items():
            if connected if shared else endpoint in connected:
                life.alive = sweep.at
            scope = None if shared else endpoint
            rests = not life.alive or life.alive + rest.idle_grace < sweep.at
            idle[scope] = idle.get(scope, True) and rests
    return {scope for scope, rests in idle.items() if rests}


def _due(name: str, lives: _Lives, before: float, scope: int | None) -> list[Holding]:
    return [
        Holding(endpoint, name, address, life.expires, life.alive)
        for address, by_endpoint in lives.items()
        for endpoint, life in by_endpoint.items()
        if scope in (None, endpoint) and life.expires < before
    ]


def canonical_address(packed: bytes) -> bytes:
    """The address that packets carry: an IPv4 address in IPv6 clothes is the IPv4 address."""
    return packed[12:] if len(packed) == 16 and packed.startswith(_MAPPED) else packed
