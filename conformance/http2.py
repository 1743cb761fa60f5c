"""One HTTP/2 request without TLS (prior knowledge), where curl is not at hand. Uses the connection that it is given."""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from conformance.expectation import Answer, Reaction
from conformance.scenario import Request

READ_SIZE = 1 << 16


class Exchange:
    """Sans-I/O: the bytes of a request, and the answer in those that come back."""

    def __init__(self, request: Request, authority: str) -> None:
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._stream = self._h2.get_next_available_stream_id()
        self._headers: list[tuple[str, str]] = []
        self._body = b""
        self.answer: Answer | None = None
        body = (request.body or "").encode()
        self._h2.send_headers(self._stream, head(request, authority), end_stream=not body)
        if body:  # what a probe sends is below any window and any frame
            self._h2.send_data(self._stream, body, end_stream=True)

    def to_send(self) -> bytes:
        return self._h2.data_to_send()

    def feed(self, received: bytes) -> None:
        """Sets `answer` as soon as there is one."""
        try:
            events = self._h2.receive_data(received)
        except h2.exceptions.ProtocolError as error:
            self.answer = Answer(Reaction.FAILED, note=f"not HTTP/2: {error}")
            return
        for event in events:
            self._on_event(event)

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                self._headers = [(str(name).lower(), str(value)) for name, value in event.headers]
            case h2.events.DataReceived():
                self._body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                self.answer = self.answer or Answer(Reaction.RESET, note=f"ended with code {event.error_code}")
            case h2.events.StreamEnded():
                self.answer = self._whole()

    def _whole(self) -> Answer:
        named = dict(self._headers)
        headers = tuple((name, value) for name, value in self._headers if not name.startswith(":"))
        return Answer(Reaction.ANSWERED, int(named.get(":status", "0")), self._body.decode("utf-8", "replace"), headers)


def head(request: Request, authority: str) -> list[tuple[str, str]]:
    """The header list. A body of known length says so, as curl does."""
    pseudo = [
        (":method", request.method),
        (":scheme", "http"),
        (":authority", request.host or authority),
        (":path", request.path),
    ]
    length = [("content-length", str(len(request.body.encode())))] if request.body and not request.chunked else []
    return [*pseudo, *((name.lower(), value) for name, value in request.headers), *length]


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, authority: str) -> Answer:
    """The request's answer; without one, RESET. Raises OSError."""
    exchange = Exchange(request, authority)
    while exchange.answer is None:
        writer.write(exchange.to_send())
        received = await reader.read(READ_SIZE)
        if not received:
            return Answer(Reaction.RESET, note="closed by the peer")
        exchange.feed(received)
    return exchange.answer
