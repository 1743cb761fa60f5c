"""Queries and answers over TCP: one connection to the server for each of a pod's, both carrying many queries."""

from __future__ import annotations

import socket
from time import monotonic
from typing import Final

from l7proxy import transparent
from l7proxy.dns import sockets
from l7proxy.dns.configuration import Place
from l7proxy.dns.door import Door
from l7proxy.dns.judge import Reason
from l7proxy.dns.station import Station
from l7proxy.dns.streams import Listener, Stream
from l7proxy.dns.transactions import Admitted, Client, Transaction
from l7proxy.dns.wire import TRANSFERS
from policies.types import Protocol

CONNECTIONS_PER_POD: Final = 64
CONNECTIONS: Final = 1024
IN_FLIGHT: Final = 64  # open queries of one connection; then it is read no further
ACCEPTS_PER_TURN: Final = 32


class TcpConnection:
    """A pod's connection, and the one to its server."""

    def __init__(self, station: Station, connection: socket.socket, proxy_port: int) -> None:
        pod, pod_port = connection.getpeername()[:2]
        server, server_port = connection.getsockname()[:2]
        self._station = station
        self._number = station.next_number()
        self._base = Client(Protocol.TCP, proxy_port, pod, pod_port, server, server_port, self._number)
        self._queries = 0
        self._open: set[Transaction] = set()  # to be answered, or given up
        self._upstream: Stream | None = None
        self._channel = 0
        self._is_silent = False
        station.enter(self._number, self)
        self._stream = Stream(
            station.poller, connection, Listener(self._asked, self._silent, self._drained, self._ended)
        )

    @property
    def pod(self) -> str:
        """Its address."""
        return self._base.pod

    @property
    def place(self) -> Place:
        """The proxy port at which it came."""
        return (Protocol.TCP, self._base.proxy_port)

    def finish(self) -> None:
        """Close it as soon as what is open has been answered; nothing more is read."""
        self._is_silent = True
        self._stream.pause()
        if not self._open:
            self._stream.finish()

    def deliver(self, transaction: Transaction, message: bytes) -> None:
        """Send an answer to the pod."""
        self._stream.send(message)
        if self._stream.is_full and self._upstream is not None:
            self._upstream.pause()  # the pod reads more slowly than the server answers
        if not _is_transfer(transaction):
            self.expired(transaction)

    def expired(self, transaction: Transaction) -> None:
        """The query is open no more."""
        self._open.discard(transaction)
        if self._is_silent and not self._open:
            self._stream.finish()
        elif len(self._open) == IN_FLIGHT - 1 and not self._is_silent:
            self._stream.resume()

    def close(self) -> None:
        """Close it, whatever is open. Harmless the second time."""
        self._stream.close()

    def close_if_idle(self, since: float) -> None:
        """Close it if nothing is open, and nothing has been heard since then."""
        if not self._open and self._stream.active < since:
            self.close()

    def _asked(self, message: bytes) -> None:
        self._queries += 1
        client = self._base._replace(number=self._queries)
        admitted = self._station.desk.admit(client, message)
        reply = self._forward(client, message, admitted) if isinstance(admitted, Admitted) else admitted
        if reply is not None:
            self._stream.send(reply)

    def _forward(self, client: Client, message: bytes, admitted: Admitted) -> bytes | None:
        """Ask the server; or return what to reply."""
        desk = self._station.desk
        if self._upstream is None:
            try:
                made = sockets.upstream(client.pod, client.server, client.server_port, Protocol.TCP)
            except OSError as error:
                reason = Reason.OVERLOAD if transparent.is_exhausted(error) else Reason.UNREACHABLE
                return desk.refuse(client, message, admitted, reason)
            self._channel = self._station.next_number()
            ears = Listener(self._answered, self._lost, _nothing, self._lost)
            self._upstream = Stream(self._station.poller, made, ears)
        transaction = desk.open(self._channel, client, message, admitted, now=monotonic())
        if transaction is None:
            return desk.refuse(client, message, admitted, Reason.OVERLOAD)
        self._open.add(transaction)
        if len(self._open) >= IN_FLIGHT:
            self._stream.pause()
        self._upstream.send(transaction.outgoing())
        return None

    def _answered(self, message: bytes) -> None:
        now = monotonic()
        answered = self._station.desk.receive(self._channel, message, now)
        if answered is not None:
            self._station.answered(answered, now)

    def _lost(self) -> None:
        """The server has closed the connection, or there is none: what it owes will not come."""
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        upstream.close()
        transactions = self._station.desk.transactions
        for transaction in tuple(self._open):
            if transactions.awaited(self._channel, transaction.id) is not transaction:
                continue  # answered, and held
            if _is_transfer(transaction):
                transactions.settle(transaction)
                self.expired(transaction)
            else:
                reply = self._station.desk.withhold(transaction, Reason.UNREACHABLE, monotonic())
                self.deliver(transaction, reply)

    def _silent(self) -> None:
        self._is_silent = True
        if not self._open:
            self._stream.finish()

    def _drained(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    def _ended(self) -> None:
        """The pod is gone: nobody wants the answers."""
        self._station.leave(self._number)
        for transaction in tuple(self._open):
            self._station.desk.transactions.settle(transaction)
        self._open.clear()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()


class TcpDoor(Door):
    """Where the connections of one slot come in, for one family."""

    def _ready(self, _: int) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            connection.setblocking(False)
            self._welcome(connection, peer[0])

    def _welcome(self, connection: socket.socket, pod: str) -> None:
        station = self._station
        if len(station.connections) >= CONNECTIONS or station.pods[pod] >= CONNECTIONS_PER_POD:
            station.count("connections beyond the limit")
            connection.close()
            return
        try:
            if connection.getsockname()[1] == self._port:
                station.count("sent to the proxy itself")
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            TcpConnection(station, connection, self._port)
        except OSError:
            connection.close()  # the pod has gone already


def _nothing() -> None:
    """The server takes queries as it likes: they are few."""


def _is_transfer(transaction: Transaction) -> bool:
    return any(question.qtype in TRANSFERS for question in transaction.questions)
