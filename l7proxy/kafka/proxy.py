"""The Kafka proxy: doors (listening sockets) as configured, one station behind them, driven by an asyncio loop.

proxy = KafkaProxy(records)
proxy.start()                # refuses everything, until it is told
proxy.apply(configuration)   # swapped whole; raises, and keeps the last, if it cannot be
proxy.stop()
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Final

from l7proxy import transparent
from l7proxy.kafka.configuration import Configuration, ConfigurationError
from l7proxy.kafka.door import CONNECTIONS, Door, Place
from l7proxy.kafka.judge import Judge, Post
from l7proxy.kafka.records import Reason, RecordSink
from l7proxy.kafka.station import Station
from l7proxy.transparent import MARKS
from policies.ir import Slot
from policies.types import Protocol

TURN_SECONDS: Final = 0.5  # how often connections that linger are looked for
OTHER_DESCRIPTORS: Final = 1024  # listeners, files, and whatever else the process has
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class KafkaProxy:
    """One worker. Everything happens in the loop that `start` was called in."""

    def __init__(self, records: RecordSink) -> None:
        self._station = Station(records)
        self._places: dict[int, Place] = {}
        self._doors: dict[int, list[Door]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.configuration: Configuration | None = None

    @property
    def counted(self) -> dict[str, int]:
        """What was dropped without a record, by kind, since the start."""
        return dict(self._station.counted)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._station.connections)

    def start(self) -> None:
        """Serve."""
        self._loop = asyncio.get_running_loop()
        transparent.allow(2 * CONNECTIONS + OTHER_DESCRIPTORS)
        self._loop.add_reader(self._station.poller.fileno(), self._station.poller.turn)
        self._turn()

    def stop(self) -> None:
        """Close everything. Harmless the second time."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._station.poller.fileno())
        if self._timer is not None:
            self._timer.cancel()
        for port in tuple(self._doors):
            self._close(port)
        self._station.close()
        self._loop = None

    def apply(self, configuration: Configuration) -> None:
        """Judge by this from the next request on. ConfigurationError where it cannot be used: nothing has changed
        then."""
        wanted = configuration.places
        opened: dict[int, list[socket.socket]] = {}
        try:
            for port in sorted(wanted.keys() - self._doors.keys()):
                opened[port] = []
                for family in _FAMILIES:
                    if (made := _listen(family, port, wanted[port])) is not None:
                        opened[port].append(made)
        except OSError as error:
            for one in (made for some in opened.values() for made in some):
                one.close()
            why = f"cannot listen on TCP port {port}: {error.strerror}"
            raise ConfigurationError(f"slot {wanted[port].name}: {why}") from None
        before = self.configuration.places if self.configuration else {}
        hides = configuration.options.hide_topics
        self.configuration = configuration
        for port, slot in wanted.items():
            if port in opened:
                self._open(port, opened[port], slot)
            self._appoint(port, slot, changed=before.get(port) != slot)
            self._places[port].post.hide_topics = hides
        for port in self._doors.keys() - wanted.keys():
            self._dismiss(self._places.pop(port))
            self._close(port)

    def _open(self, port: int, listeners: list[socket.socket], slot: Slot) -> None:
        place = Place(port, slot.name, Post(Judge(slot)), MARKS[slot.direction])
        self._places[port] = place
        self._doors[port] = [Door(self._station, listener, place) for listener in listeners]

    def _appoint(self, port: int, slot: Slot, *, changed: bool) -> None:
        """The rules of this slot hold at the port. Connections that came for another slot's are not judged by them."""
        place = self._places[port]
        if place.slot != slot.name:
            self._dismiss(place)
            place.slot, place.post = slot.name, Post(Judge(slot))
        elif changed:
            place.post.judge = Judge(slot)
            if place.post.judge.is_retired:
                self._station.retire(place.post)
        if place.marks != MARKS[slot.direction]:
            place.marks = MARKS[slot.direction]
            for door in self._doors[port]:
                door.mark()

    def _dismiss(self, place: Place) -> None:
        place.post.judge = Judge(None, Reason.UNKNOWN_SLOT)
        self._station.retire(place.post)

    def _close(self, port: int) -> None:
        for door in self._doors.pop(port):
            door.close()

    def _turn(self) -> None:
        assert self._loop is not None
        self._station.turn()
        self._timer = self._loop.call_later(TURN_SECONDS, self._turn)


def _listen(family: socket.AddressFamily, port: int, slot: Slot) -> socket.socket | None:
    """A listening socket; None for IPv6 where the kernel has none."""
    try:
        return transparent.listener(family, Protocol.TCP, port, mark=MARKS[slot.direction].accepted)
    except OSError as error:
        if family == socket.AF_INET6 and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return None
        raise
