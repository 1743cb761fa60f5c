"""What the parts of the proxy that touch sockets share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from itertools import count
from time import monotonic
from typing import Final, Protocol

from l7proxy.dns.configuration import Place
from l7proxy.dns.desk import Answered, Desk
from l7proxy.dns.hold import Held, LearnedSink
from l7proxy.dns.judge import Reason
from l7proxy.dns.packets import Way
from l7proxy.dns.sockets import Postman
from l7proxy.dns.transactions import Client, Transaction
from l7proxy.poller import Poller
from l7proxy.transparent import packed

IDLE_SECONDS: Final = 30.0  # how long a TCP connection without open queries is kept (RFC 7766 6.2.3: of that order)


class Upstream(Protocol):
    """The socket of a UDP query."""

    def send(self) -> None:
        """Ask again."""

    def close(self) -> None:
        """Nothing is awaited any more."""


class Connection(Protocol):
    """A TCP connection of a pod's."""

    @property
    def pod(self) -> str:
        """Its address."""

    def deliver(self, transaction: Transaction, message: bytes) -> None:
        """Send an answer to the pod."""

    def expired(self, transaction: Transaction) -> None:
        """There will be no answer."""

    @property
    def place(self) -> Place:
        """The proxy port at which it came."""

    def finish(self) -> None:
        """Close it as soon as what is open has been answered; nothing more is read."""

    def close(self) -> None:
        """Close it, whatever is open."""

    def close_if_idle(self, since: float) -> None:
        """Close it if nothing is open, and nothing has been heard since then."""


class Station:
    """One worker's sockets and books."""

    def __init__(self, desk: Desk, learned: LearnedSink) -> None:
        self.desk = desk
        self.poller = Poller()
        self.postman = Postman()
        self.upstreams: dict[int, Upstream] = {}  # by channel
        self.connections: dict[int, Connection] = {}  # by stream number
        self.pods: Counter[str] = Counter()  # connections by pod
        self.counted: Counter[str] = Counter()
        self._learned = learned
        self._numbers = count(1)
        self._closed = False

    def next_number(self) -> int:
        """A number that no other channel or stream has ever had."""
        return next(self._numbers)

    def enter(self, number: int, connection: Connection) -> None:
        """A pod has connected."""
        self.connections[number] = connection
        self.pods[connection.pod] += 1

    def leave(self, number: int) -> None:
        """Its connection has ended. Harmless the second time."""
        connection = self.connections.pop(number, None)
        if connection is not None:
            self.pods[connection.pod] -= 1
            if not self.pods[connection.pod]:
                del self.pods[connection.pod]

    def finish(self, places: Set[Place]) -> None:
        """What is served there is gone: its connections end with the answers that are due."""
        for connection in list(self.connections.values()):
            if connection.place in places:
                connection.finish()

    def count(self, what: str) -> None:
        """Something was dropped that has no record of its own."""
        self.counted[what] += 1

    def answered(self, answered: Answered, now: float) -> None:
        """Release an answer; or hold it until its addresses are in force; or withhold it."""
        reason = answered.reason
        if reason is None and answered.gist.learned:
            waiting = self._learned.learned(answered.transaction.client.pod, answered.gist.learned)
            if waiting is not None:
                Held(waiting, self.desk.options.hold_limit, lambda outcome: self._held(answered, outcome))
                return
        self._conclude(answered, reason, now)

    def deliver(self, transaction: Transaction, message: bytes) -> None:
        """Send to the client, if it is still there."""
        client = transaction.client
        if not client.stream:
            self.send(client, message)
        elif (connection := self.connections.get(client.stream)) is not None:
            connection.deliver(transaction, message)

    def send(self, client: Client, message: bytes) -> None:
        """Send an answer over UDP, from the server's address."""
        way = Way(packed(client.server), client.server_port, packed(client.pod), client.pod_port)
        try:
            self.postman.send(way, message)
        except OSError:
            self.count("answers that the kernel did not take")

    def turn(self) -> None:
        """Give up what is overdue: queries without an answer, connections that nobody uses."""
        now = monotonic()
        for transaction in self.desk.expire(now):
            if (upstream := self.upstreams.get(transaction.channel)) is not None:
                upstream.close()
            elif (connection := self.connections.get(transaction.client.stream)) is not None:
                connection.expired(transaction)
        for connection in list(self.connections.values()):
            connection.close_if_idle(now - IDLE_SECONDS)

    def close(self) -> None:
        """Close everything but the doors."""
        self._closed = True
        for upstream in list(self.upstreams.values()):
            upstream.close()
        for connection in list(self.connections.values()):
            connection.close()
        self.poller.close()
        self.postman.close()

    def _held(self, answered: Answered, outcome: bool | None) -> None:
        if self._closed:
            return
        reason = None if outcome else Reason.NOT_OPENED
        if outcome is None:
            reason = None if self.desk.options.release_late else Reason.HELD_TOO_LONG
            self.count("answers held to the limit")
        self._conclude(answered, reason, monotonic())

    def _conclude(self, answered: Answered, reason: Reason | None, now: float) -> None:
        transaction = answered.transaction
        desk = self.desk
        message = desk.release(answered, now) if reason is None else desk.withhold(transaction, reason, now)
        self.deliver(transaction, message)
