"""Where the connections of one slot come in, for one family."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from l7proxy.kafka.judge import Post
from l7proxy.kafka.link import Call, Link
from l7proxy.kafka.records import AccessRecord, Connection, Reason
from l7proxy.kafka.station import Station
from l7proxy.poller import READ
from l7proxy.transparent import Marks

CONNECTIONS: Final = 8192
CONNECTIONS_PER_CLIENT: Final = 1024
ACCEPTS_PER_TURN: Final = 32


@dataclass
class Place:
    """A proxy port: the slot that is served there, and who judges for it."""

    port: int
    slot: str
    post: Post
    marks: Marks


class Door:
    """Open from the start, until it is closed."""

    def __init__(self, station: Station, listener: socket.socket, place: Place) -> None:
        self._station = station
        self._socket = listener
        self._place = place
        station.poller.watch(listener.fileno(), READ, self._ready)

    def mark(self) -> None:
        """The place has other marks from now on."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._place.marks.accepted)

    def close(self) -> None:
        """Let nobody in any more; who is in stays."""
        self._station.poller.forget(self._socket.fileno())
        self._socket.close()

    def _ready(self, _: int) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, peer = self._socket.accept()
            except OSError:
                return
            accepted.setblocking(False)
            try:
                self._welcome(accepted, peer)
            except OSError:
                accepted.close()  # the client has gone already

    def _welcome(self, accepted: socket.socket, peer: tuple[str, int]) -> None:
        station, place = self._station, self._place
        server, server_port = accepted.getsockname()[:2]
        about = Connection(place.slot, place.port, *peer[:2], server, server_port)
        if server_port == place.port:
            station.count("sent to the proxy itself")
            accepted.close()
        elif len(station.connections) >= CONNECTIONS or station.clients[about.client] >= CONNECTIONS_PER_CLIENT:
            station.records.seen(AccessRecord(about, reason=Reason.OVERLOAD))
            accepted.close()
        else:
            Link(station, accepted, Call(about, place.post, place.marks))
