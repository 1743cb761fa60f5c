"""Where what pods send to one slot comes in, for one family: a listening socket that the poller watches."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod

from l7proxy.dns.station import Station
from l7proxy.poller import READ


class Door(ABC):
    """Open from the start, until it is closed."""

    def __init__(self, station: Station, listener: socket.socket, proxy_port: int) -> None:
        self._station = station
        self._socket = listener
        self._port = proxy_port
        station.poller.watch(listener.fileno(), READ, self._ready)

    def close(self) -> None:
        """Let nothing in any more. What came before goes on: open connections, whose queries are judged by what rules
        there are, and answers to open queries."""
        self._station.poller.forget(self._socket.fileno())
        self._socket.close()

    @abstractmethod
    def _ready(self, _: int) -> None:
        """Something has come."""
