"""Learned names: which addresses a name has, who learned them, and until when (facts 6.3). Pure; time is an argument.

    learn      an answer that policy allowed: addresses are opened
    collect    what has expired, and carries no connection: addresses are closed

An address stays open beyond its TTL until a sweep over connections, made after it expired, finds none to it. One live
address keeps all addresses of its name. There is no cap on the addresses of a name: only a bound on what one endpoint,
and all together, may hold; whoever reaches it is told so, and nothing that another endpoint uses is given up for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from l7proxy.dns.answers import Learned

_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96: packets to it are IPv4 (RFC 4291 2.5.5.2)


class Sharing(StrEnum):
    """For whom a learned address is opened."""

    NODE = "node"  # every endpoint of the node whose policy selects the name, as Cilium does
    ENDPOINT = "endpoint"  # only who asked


@dataclass(frozen=True, slots=True)
class NameOptions:
    """Times in seconds. The bounds count addresses of names: (name, address, endpoint)."""

    min_ttl: int = 0
    sharing: Sharing = Sharing.NODE
    targets: bool = False  # the targets of CNAMEs are names as well. Then whoever answers for a name answers for these
    idle_grace: float = 0.0  # how long an address outlives its last connection
    per_endpoint: int = 20_000
    whole: int = 200_000  # some 130 MB
    reserved: int = 64  # what an endpoint may hold even when the whole is full


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


class Change(NamedTuple):
    """What learning did. `opened`: addresses that were not open before. `refused`: what the bounds did not admit."""

    opened: tuple[Holding, ...]
    renewed: tuple[Holding, ...]
    refused: tuple[Holding, ...]


@dataclass(slots=True)
class _Life:
    expires: float
    alive: float = 0.0


_Lives = dict[bytes, dict[int, _Life]]  # address -> endpoint -> life


@dataclass
class Names:
    """All learned names of a node. One writer. `now` is the time of day in seconds: it survives restarts."""

    options: NameOptions = field(default_factory=NameOptions)
    _names: dict[str, _Lives] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)
    _whole: int = 0

    def __len__(self) -> int:
        """How much of `options.whole` is in use."""
        return self._whole

    def learn(self, endpoint: int, learned: Learned, now: float) -> Change:
        """An endpoint was answered."""
        expires = now + max(learned.ttl, self.options.min_ttl)
        names = (learned.name, *learned.targets) if self.options.targets else (learned.name,)
        addresses = tuple(dict.fromkeys(map(canonical_address, learned.addresses)))
        opened, renewed, refused = [], [], []
        for name in names:
            for address in addresses:
                holding = Holding(endpoint, name, address, expires)
                was_open = self.is_open(name, address, endpoint)
                if not self._hold(holding):
                    refused.append(holding)
                elif was_open:
                    renewed.append(holding)
                else:
                    opened.append(holding)
        return Change(tuple(opened), tuple(renewed), tuple(refused))

    def restore(self, holdings: Iterable[Holding]) -> int:
        """Take over what a journal has kept; returns how many the bounds did not admit."""
        return sum(not self._hold(holding) for holding in holdings)

    def forget(self, endpoint: int, now: float) -> None:
        """An endpoint is gone. What it has learned may carry connections of others: it expires, and is collected."""
        for lives in self._names.values():
            for by_endpoint in lives.values():
                life = by_endpoint.get(endpoint)
                if life is not None:
                    life.expires = min(life.expires, now)

    def is_open(self, name: str, address: bytes, endpoint: int) -> bool:
        """Whether the address is open to the endpoint as one of the name's."""
        by_endpoint = self._names.get(name, {}).get(address)
        if by_endpoint is None:
            return False
        return self.options.sharing is Sharing.NODE or endpoint in by_endpoint

    def addresses(self, name: str, endpoint: int) -> tuple[bytes, ...]:
        """The name's addresses that are open to the endpoint, sorted."""
        return tuple(sorted(a for a in self._names.get(name, ()) if self.is_open(name, a, endpoint)))

    def holdings(self) -> Iterator[Holding]:
        """Everything, sorted: for lists, and for the snapshot of the journal."""
        for name in sorted(self._names):
            for address in sorted(self._names[name]):
                for endpoint, life in sorted(self._names[name][address].items()):
                    yield Holding(endpoint, name, address, life.expires, life.alive)

    def collect(self, sweep: Sweep) -> tuple[Holding, ...]:
        """Close what had expired when the sweep was made, and carries no connection; returns it, sorted. Takes a
        second for 1,000,000 addresses: not in the loop that answers queries."""
        gone: list[Holding] = []
        for name, lives in self._names.items():
            for endpoint in self._mark(lives, sweep):
                gone += self._due(name, lives, sweep, endpoint)
        for holding in gone:
            self._drop(holding)
        return tuple(sorted(gone))

    def _mark(self, lives: _Lives, sweep: Sweep) -> set[int | None]:
        """Note which addresses live, and return for whom the name as a whole may be collected: for an endpoint, or
        (None) for everybody, where addresses are shared."""
        shared = self.options.sharing is Sharing.NODE
        idle: dict[int | None, bool] = {}
        for address, by_endpoint in lives.items():
            connected = sweep.alive.get(address, frozenset())
            for endpoint, life in by_endpoint.items():
                if connected if shared else endpoint in connected:
                    life.alive = sweep.at
                scope = None if shared else endpoint
                rests = not life.alive or life.alive + self.options.idle_grace < sweep.at
                idle[scope] = idle.get(scope, True) and rests
        return {scope for scope, rests in idle.items() if rests}

    def _due(self, name: str, lives: _Lives, sweep: Sweep, scope: int | None) -> list[Holding]:
        return [
            Holding(endpoint, name, address, life.expires, life.alive)
            for address, by_endpoint in lives.items()
            for endpoint, life in by_endpoint.items()
            if scope in (None, endpoint) and life.expires < sweep.at
        ]

    def _hold(self, holding: Holding) -> bool:
        """Take in or renew one address; False where a bound is reached."""
        life = self._names.get(holding.name, {}).get(holding.address, {}).get(holding.endpoint)
        if life is not None:
            life.expires = max(life.expires, holding.expires)
            life.alive = max(life.alive, holding.alive)
            return True
        held = self._held.get(holding.endpoint, 0)
        if held >= self.options.per_endpoint or (self._whole >= self.options.whole and held >= self.options.reserved):
            return False
        lives = self._names.setdefault(holding.name, {})
        lives.setdefault(holding.address, {})[holding.endpoint] = _Life(holding.expires, holding.alive)
        self._held[holding.endpoint] = held + 1
        self._whole += 1
        return True

    def _drop(self, holding: Holding) -> None:
        lives = self._names[holding.name]
        del lives[holding.address][holding.endpoint]
        if not lives[holding.address]:
            del lives[holding.address]
        if not lives:
            del self._names[holding.name]
        self._whole -= 1
        self._held[holding.endpoint] -= 1
        if not self._held[holding.endpoint]:
            del self._held[holding.endpoint]


def canonical_address(packed: bytes) -> bytes:
    """The address that packets carry: an IPv4 address in IPv6 clothes is the IPv4 address."""
    return packed[12:] if len(packed) == 16 and packed.startswith(_MAPPED) else packed
