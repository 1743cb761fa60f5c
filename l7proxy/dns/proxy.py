"""The DNS proxy: doors (listening sockets) as configured, one station behind them, driven by an asyncio loop.

proxy = DnsProxy(learned, records)
proxy.start()                # refuses everything, until it is told
proxy.apply(configuration)   # swapped whole; raises, and keeps the last, if it cannot be
proxy.stop()
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass, field
from typing import Final

from l7proxy import transparent
from l7proxy.dns import sockets
from l7proxy.dns.configuration import Configuration, ConfigurationError, Place
from l7proxy.dns.desk import Desk
from l7proxy.dns.door import Door
from l7proxy.dns.hold import LearnedSink
from l7proxy.dns.records import RecordSink
from l7proxy.dns.station import Station
from l7proxy.dns.tcp import CONNECTIONS, TcpDoor
from l7proxy.dns.transactions import Limits
from l7proxy.dns.udp import UdpDoor
from policies.types import Protocol

TURN_SECONDS: Final = 0.25  # how often overdue queries and idle connections are looked for
OTHER_DESCRIPTORS: Final = 1024  # listeners, files, and whatever else the process has
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not change while it runs. `shared`: other workers listen on the same ports."""

    limits: Limits = field(default_factory=Limits)
    shared: bool = False


class DnsProxy:
    """One worker. Everything happens in the loop that `start` was called in."""

    def __init__(self, learned: LearnedSink, records: RecordSink, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._desk = Desk(records, self._settings.limits, Draws().draw)
        self._station = Station(self._desk, learned)
        self._doors: dict[Place, list[Door]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.configuration: Configuration | None = None

    @property
    def counted(self) -> dict[str, int]:
        """What was dropped without a record, by kind, since the start."""
        return dict(self._station.counted)

    @property
    def open_queries(self) -> int:
        """Queries without an answer yet, and answers that are held."""
        return len(self._desk.transactions)

    def start(self) -> None:
        """Serve."""
        self._loop = asyncio.get_running_loop()
        transparent.allow(self._settings.limits.whole + 2 * CONNECTIONS + OTHER_DESCRIPTORS)
        self._loop.add_reader(self._station.poller.fileno(), self._station.poller.turn)
        self._turn()

    def stop(self) -> None:
        """Close everything. Harmless the second time."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._station.poller.fileno())
        if self._timer is not None:
            self._timer.cancel()
        for doors in self._doors.values():
            for door in doors:
                door.close()
        self._doors.clear()
        self._station.close()
        self._loop = None

    def apply(self, configuration: Configuration) -> None:
        """Judge by this from now on. ConfigurationError where it cannot be used: nothing has changed then."""
        wanted = configuration.places
        opened: dict[Place, list[socket.socket]] = {}
        try:
            for place in sorted(wanted.keys() - self._doors.keys()):
                opened[place] = []
                for family in _FAMILIES:
                    if (made := self._listen(family, place)) is not None:
                        opened[place].append(made)
        except OSError as error:
            for one in (made for some in opened.values() for made in some):
                one.close()
            protocol, port = place
            why = f"cannot listen on {protocol.name} port {port}: {error.strerror}"
            raise ConfigurationError(f"slot {wanted[place].name}: {why}") from None
        before = self.configuration.places if self.configuration else {}
        self._desk.appoint(configuration)
        self._station.finish({p for p, slot in before.items() if p not in wanted or wanted[p].name != slot.name})
        self.configuration = configuration
        for place, made_here in opened.items():
            self._doors[place] = [self._open(place, made) for made in made_here]
        for place in self._doors.keys() - wanted.keys():
            for door in self._doors.pop(place):
                door.close()

    def _listen(self, family: socket.AddressFamily, place: Place) -> socket.socket | None:
        """A listening socket; None for IPv6 where the kernel has none."""
        try:
            return sockets.listener(family, *place, shared=self._settings.shared)
        except OSError as error:
            if family == socket.AF_INET6 and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                return None
            raise

    def _open(self, place: Place, listener: socket.socket) -> Door:
        protocol, port = place
        if protocol is Protocol.UDP:
            return UdpDoor(self._station, listener, port)
        return TcpDoor(self._station, listener, port)

    def _turn(self) -> None:
        assert self._loop is not None
        self._station.turn()
        self._timer = self._loop.call_later(TURN_SECONDS, self._turn)


class Draws:
    """Random numbers of 16 bits from the kernel, fetched many at a time."""

    def __init__(self) -> None:
        self._drawn: list[int] = []

    def draw(self) -> int:
        """A number that nobody can guess."""
        if not self._drawn:
            self._drawn = list(memoryview(os.urandom(4096)).cast("H"))
        return self._drawn.pop()
