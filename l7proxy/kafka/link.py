"""A client's connection, the one to its server, and the exchange between them."""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

from l7proxy import transparent
from l7proxy.kafka.exchange import Exchange
from l7proxy.kafka.judge import Post
from l7proxy.kafka.records import Connection, Reason
from l7proxy.kafka.station import HELD_MAX, Station
from l7proxy.kafka.wires import Listener, Wire
from l7proxy.transparent import Marks
from policies.types import Protocol

KEEPALIVE: Final = 60  # seconds of silence after which a peer is asked whether it is still there


class Call(NamedTuple):
    """Who is connected to whom, who judges that, and how packets of it are marked."""

    about: Connection
    post: Post
    marks: Marks


class Link:
    """One connection through the proxy. The server is called when there is something to tell it."""

    def __init__(self, station: Station, accepted: socket.socket, call: Call) -> None:
        self._station = station
        self._about = call.about
        self._marks = call.marks
        self._post = call.post
        self._exchange = Exchange(call.about, call.post, station.records)
        self._held = 0
        _prepare(accepted)
        heard = Listener(self._asked, self._client_silent, self._settle, self.close)
        self._client = Wire(station.poller, accepted, station.buffer, heard, connected=True)
        self._server: Wire | None = None
        station.enter(self)

    @property
    def client(self) -> str:
        """Its address."""
        return self._about.client

    @property
    def post(self) -> Post:
        """Who judges it."""
        return self._post

    def retire(self) -> None:
        """The rules have gone: end when what was forwarded is answered."""
        self._exchange.retire()
        self._settle()

    def turn(self, now: float) -> None:
        """Time has passed."""
        self._client.expire(now)
        if self._server is not None:
            self._server.expire(now)
        self._leave_if_closed()

    def close(self) -> None:
        """Close both ends at once. Harmless the second time."""
        self._client.close()
        if self._server is not None:
            self._server.close()
        self._leave_if_closed()

    # --- what the wires say ---

    def _asked(self, view: memoryview) -> None:
        self._exchange.from_client(view)
        self._settle()

    def _answered(self, view: memoryview) -> None:
        self._exchange.from_server(view)
        self._settle()

    def _client_silent(self) -> None:
        self._exchange.client_ended()
        self._settle()

    def _server_lost(self) -> None:
        """The server has ended the connection, or there is none: what it owes will not come."""
        if self._server is not None and not self._server.was_connected:
            self._exchange.server_failed(Reason.UNREACHABLE)
        self._end()

    # --- what follows ---

    def _settle(self) -> None:
        """Send what is to be sent, and listen to whom can be listened to."""
        exchange = self._exchange
        if exchange.to_server:
            pieces, exchange.to_server = exchange.to_server, []
            if self._server is None:
                self._call()
            if self._server is not None:
                self._server.send(pieces)
        if exchange.answers.out:
            pieces_back, exchange.answers.out = exchange.answers.out, []
            self._client.send(pieces_back)
        self._book()
        if exchange.is_over:
            self._end()
            return
        server = self._server
        self._client.hear(exchange.wants_client and (server is None or not server.is_full))
        if server is not None:
            server.hear(not self._client.is_full)
            if exchange.is_said:
                server.finish()
        self._leave_if_closed()

    def _call(self) -> None:
        about = self._about
        try:
            made = transparent.upstream(
                about.client, (about.server, about.server_port), Protocol.TCP, mark=self._marks.upstream, patience=0
            )
            _prepare(made)
        except OSError as error:
            failed = Reason.OVERLOAD if transparent.is_exhausted(error) else Reason.UNREACHABLE
            self._exchange.server_failed(failed)
            return
        heard = Listener(self._answered, self._server_lost, self._settle, self._server_lost)
        self._server = Wire(self._station.poller, made, self._station.buffer, heard, connected=False)

    def _book(self) -> None:
        """Keep account of what is held."""
        held = self._exchange.held
        self._station.held += held - self._held
        self._held = held
        if held and self._station.held > HELD_MAX:
            self._exchange.server_failed(Reason.OVERLOAD)

    def _end(self) -> None:
        """Both ends get what is still theirs, and are closed."""
        self._client.leave()
        if self._server is not None:
            self._server.leave()
        self._leave_if_closed()

    def _leave_if_closed(self) -> None:
        if self._client.is_closed and (self._server is None or self._server.is_closed):
            self._station.held -= self._held
            self._held = 0
            self._station.leave(self)


def _prepare(made: socket.socket) -> None:
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
