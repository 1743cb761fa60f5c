"""A server that keeps what it receives, as a strict parser reads it, and answers 200 to everything.

Its sockets may have been made inside a pod's network namespace: they are used from here, so that what arrived is known
at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import httptools

from conformance import netns
from conformance.bypass import Received
from conformance.speakers import HTTP2_PREFACE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
READ_SIZE = 1 << 16
BACKLOG = 64


@dataclass(slots=True)
class Recorder:
    """`odd`: bytes that came where no request was due."""

    received: list[Received] = field(default_factory=list)
    odd: list[bytes] = field(default_factory=list)


class _Reader:
    """Collects requests from httptools' callbacks. A handshake is not agreed to."""

    def __init__(self) -> None:
        self.done: list[Received] = []
        self.on_message_begin()
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        with suppress(httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._is_head = b"", True
        self._headers: list[tuple[str, str]] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head:  # trailers are no headers
            self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._is_head = False

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        self.done.append(Received(method, self._url.decode("latin-1"), tuple(self._headers)))


@asynccontextmanager
async def recording(listeners: Iterable[socket.socket]) -> AsyncIterator[Recorder]:
    """A recorder behind these listening sockets, which it closes, for as long as the block runs."""
    seen = Recorder()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.read(READ_SIZE)
            is_http2 = first.startswith(HTTP2_PREFACE[:3])
            await (_http2 if is_http2 else _http1)(seen, first, reader, writer)
        except ConnectionError:
            pass  # a trick that ends like that
        finally:
            writer.close()

    async with AsyncExitStack() as stack:
        for listener in listeners:
            server = await asyncio.start_server(serve, sock=listener)
            stack.callback(server.close)
        yield seen


def listening(namespace: str, port: int) -> list[socket.socket]:
    """Sockets that listen at this port of the namespace, one in each family."""
    return [_listening(namespace, family, port) for family in (socket.AF_INET, socket.AF_INET6)]


def _listening(namespace: str, family: socket.AddressFamily, port: int) -> socket.socket:
    sock = netns.socket_in(namespace, family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family is socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("::" if family is socket.AF_INET6 else "0.0.0.0", port))
    sock.listen(BACKLOG)
    return sock


async def _http1(seen: Recorder, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    parser = _Reader()
    while data:
        try:
            parser.feed(data)
        except httptools.HttpParserError:
            seen.odd.append(data)
            return
        seen.received += parser.done
        writer.write(OK * len(parser.done))
        parser.done.clear()
        data = await reader.read(READ_SIZE)


async def _http2(seen: Recorder, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    config = h2.config.H2Configuration(client_side=False, validate_inbound_headers=False, header_encoding="latin-1")
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    while data:
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                seen.received.append(_of_http2((str(name), str(value)) for name, value in event.headers))
                connection.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        writer.write(connection.data_to_send())
        data = await reader.read(READ_SIZE)


def _of_http2(fields: Iterable[tuple[str, str]]) -> Received:
    fields = list(fields)
    pseudo = dict(item for item in fields if item[0].startswith(":"))
    headers = [("host", pseudo[":authority"])] if ":authority" in pseudo else []
    headers += [item for item in fields if not item[0].startswith(":")]
    return Received(pseudo.get(":method", ""), pseudo.get(":path", ""), tuple(headers))
