"""Queries and answers over UDP."""

from __future__ import annotations

import socket
from time import monotonic
from typing import Final

from l7proxy.dns import sockets
from l7proxy.dns.door import Door
from l7proxy.dns.judge import Reason
from l7proxy.dns.station import Station
from l7proxy.dns.transactions import Admitted, Client, Transaction
from l7proxy.dns.wire import MESSAGE_MAX
from l7proxy.poller import READ
from l7proxy.transparent import is_exhausted, text
from policies.types import Protocol

QUERY_MAX: Final = 4096  # bytes of a query over UDP; a longer one arrives cut, and is malformed
DATAGRAMS_PER_TURN: Final = 64


class UdpUpstream:
    """The socket of one query, from the pod's address to its server."""

    __slots__ = ("_socket", "_station", "transaction")

    def __init__(self, station: Station, connection: socket.socket, transaction: Transaction) -> None:
        self._station = station
        self._socket = connection
        self.transaction = transaction
        station.upstreams[transaction.channel] = self
        station.poller.watch(connection.fileno(), READ, self._ready)
        self.send()

    def send(self) -> None:
        """Ask, or ask again."""
        try:
            self._socket.send(self.transaction.outgoing())
        except BlockingIOError:
            pass  # lost, as any datagram may be
        except OSError:
            self._give_up()

    def close(self) -> None:
        """Nothing is awaited here any more."""
        if self._station.upstreams.pop(self.transaction.channel, None) is not None:
            self._station.poller.forget(self._socket.fileno())
            self._socket.close()

    def _ready(self, _: int) -> None:
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                message = self._socket.recv(MESSAGE_MAX)
            except BlockingIOError:
                return
            except OSError:  # ICMP: nobody listens there, or there is no way
                self._give_up()
                return
            now = monotonic()
            answered = self._station.desk.receive(self.transaction.channel, message, now)
            if answered is not None:
                self.close()
                self._station.answered(answered, now)
                return

    def _give_up(self) -> None:
        self.close()
        transaction = self.transaction
        reply = self._station.desk.withhold(transaction, Reason.UNREACHABLE, monotonic())
        self._station.deliver(transaction, reply)


class UdpDoor(Door):
    """Where the queries of one slot come in, for one family."""

    def _ready(self, _: int) -> None:
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                message, ancillary, _flags, peer = self._socket.recvmsg(QUERY_MAX, sockets.ANCILLARY_SIZE)
            except OSError:
                return
            destination = sockets.original_destination(ancillary)
            if destination is None or destination[1] == self._port:
                self._station.count("sent to the proxy itself")
                continue
            if "%" in peer[0]:
                self._station.count("from a link-local address")
                continue
            client = Client(Protocol.UDP, self._port, peer[0], peer[1], text(destination[0]), destination[1])
            self._take(client, message)

    def _take(self, client: Client, message: bytes) -> None:
        station = self._station
        again = station.desk.transactions.repeated(client, message)
        if again is not None:
            if (upstream := station.upstreams.get(again.channel)) is not None:
                upstream.send()
            return
        admitted = station.desk.admit(client, message)
        reply = self._forward(client, message, admitted) if isinstance(admitted, Admitted) else admitted
        if reply is not None:
            station.send(client, reply)

    def _forward(self, client: Client, message: bytes, admitted: Admitted) -> bytes | None:
        """Ask the server; or return what to reply."""
        station = self._station
        try:
            connection = sockets.upstream(client.pod, client.server, client.server_port, Protocol.UDP)
        except OSError as error:
            reason = Reason.OVERLOAD if is_exhausted(error) else Reason.UNREACHABLE
            return station.desk.refuse(client, message, admitted, reason)
        transaction = station.desk.open(station.next_number(), client, message, admitted, now=monotonic())
        if transaction is None:
            connection.close()
            return station.desk.refuse(client, message, admitted, Reason.OVERLOAD)
        UdpUpstream(station, connection, transaction)
        return None
