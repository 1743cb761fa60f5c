"""What the parts of the proxy that touch sockets share."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import Final, Protocol

from l7proxy.kafka.judge import Post
from l7proxy.kafka.records import RecordSink
from l7proxy.kafka.wires import BUFFER
from l7proxy.poller import Poller

HELD_MAX: Final = 256 << 20  # bytes of requests that are kept until they are judged, of all connections


class Connection(Protocol):
    """A client's connection."""

    @property
    def client(self) -> str:
        """Its address."""

    @property
    def post(self) -> Post:
        """Who judges it."""

    def retire(self) -> None:
        """The rules have gone."""

    def turn(self, now: float) -> None:
        """Time has passed."""

    def close(self) -> None:
        """Close it, whatever is open."""


class Station:
    """One worker's sockets and books."""

    def __init__(self, records: RecordSink) -> None:
        self.records = records
        self.poller = Poller()
        self.buffer = memoryview(bytearray(BUFFER))
        self.connections: set[Connection] = set()
        self.clients: Counter[str] = Counter()  # connections by client
        self.counted: Counter[str] = Counter()
        self.held = 0

    def count(self, what: str) -> None:
        """Something was dropped that no record tells of."""
        self.counted[what] += 1

    def enter(self, connection: Connection) -> None:
        """A client has connected."""
        self.connections.add(connection)
        self.clients[connection.client] += 1

    def leave(self, connection: Connection) -> None:
        """Its connection has ended. Harmless the second time."""
        if connection in self.connections:
            self.connections.remove(connection)
            self.clients[connection.client] -= 1
            if not self.clients[connection.client]:
                del self.clients[connection.client]

    def retire(self, post: Post) -> None:
        """Nobody judges at this post any more: its connections end when what was forwarded is answered."""
        for connection in tuple(self.connections):
            if connection.post is post:
                connection.retire()

    def turn(self) -> None:
        """Close what has lingered long enough."""
        now = monotonic()
        for connection in tuple(self.connections):
            connection.turn(now)

    def close(self) -> None:
        """Close everything but the doors."""
        for connection in tuple(self.connections):
            connection.close()
        self.poller.close()
