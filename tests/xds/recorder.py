"""A server that keeps what it receives, as a strict parser reads it, and a client that sends bytes as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httptools
from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from conformance.bypass import CLOSED, Received

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BOUND_S = 10.0
Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]
SILENT = "silent"  # nothing came within BOUND_S


@dataclass
class Recorder:
    """`odd`: bytes that came where no request was due."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    odd: list[bytes] = field(default_factory=list)


class _Reader:
    """Collects requests from httptools' callbacks. A handshake is not agreed to."""

    def __init__(self) -> None:
        self.done: list[Received] = []
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._is_head = True
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        with suppress(httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._headers, self._is_head = b"", [], True

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
async def recorder() -> AsyncIterator[Recorder]:
    """A recorder on a free port of 127.0.0.1; it answers 200 to everything."""
    seen = Recorder()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.read(65536)
            await (_http2 if first.startswith(PREFACE[:3]) else _http1)(seen, first, reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()


async def _http1(seen: Recorder, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    parser = _Reader()
    while data:
        try:
            parser.feed(data)
        except httptools.HttpParserError:
            seen.odd.append(data)
            return
        for request in parser.done:
            seen.received.append(request)
            writer.write(OK)
        parser.done.clear()
        data = await reader.read(65536)


async def _http2(seen: Recorder, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    config = h2.config.H2Configuration(client_side=False, validate_inbound_headers=False, header_encoding="latin-1")
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    while data:
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                seen.received.append(_of_http2((str(n), str(v)) for n, v in event.headers or ()))
                connection.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        writer.write(connection.data_to_send())
        data = await reader.read(65536)


def _of_http2(fields: Iterable[tuple[str, str]]) -> Received:
    fields = list(fields)
    pseudo = dict(item for item in fields if item[0].startswith(":"))
    headers = [("host", pseudo[":authority"])] if ":authority" in pseudo else []
    headers += [item for item in fields if not item[0].startswith(":")]
    return Received(pseudo.get(":method", ""), pseudo.get(":path", ""), tuple(headers))


class _Answers:
    """Collects statuses from httptools' callbacks."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:  # not of the message: the answer to HEAD has no body
        self.statuses.append(str(self._parser.get_status_code()))


async def ask_http1(port: int, sent: bytes, count: int) -> list[str]:
    """The statuses of the first `count` answers; CLOSED where the connection ends before, SILENT where none comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = _Answers()
    try:
        writer.write(sent)
        async with asyncio.timeout(BOUND_S):
            while len(answers.statuses) < count and (data := await reader.read(65536)):
                answers.feed(data)
    except TimeoutError:
        return [*answers.statuses, SILENT]
    except (ConnectionError, httptools.HttpParserUpgrade):
        pass
    finally:
        writer.close()
    return answers.statuses if len(answers.statuses) >= count else [*answers.statuses, CLOSED]


async def ask_http2(port: int, fields: Fields) -> str:
    """The status that a stream ends with; CLOSED where it ends, or its connection, without one."""
    return (await ask_http2_streams(port, fields))[0]


async def ask_http2_streams(port: int, *requests: Fields) -> list[str]:
    """The same of several streams on one connection, opened at once."""
    ends: dict[int, str] = {}
    wanted = range(1, 2 * len(requests), 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    encoder, decoder = Encoder(), Decoder()
    try:
        writer.write(PREFACE + SettingsFrame(0).serialize())
        for stream, fields in zip(wanted, requests, strict=True):
            writer.write(_opening(stream, encoder.encode(list(fields), huffman=False), fields))
        async with asyncio.timeout(BOUND_S):
            while set(ends) != set(wanted):
                frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
                frame.parse_body(memoryview(await reader.readexactly(length)))
                if isinstance(frame, HeadersFrame):
                    ends.setdefault(frame.stream_id, _status(decoder.decode(frame.data)))
                elif isinstance(frame, RstStreamFrame):
                    ends.setdefault(frame.stream_id, CLOSED)
                elif isinstance(frame, GoAwayFrame) and frame.error_code:
                    break
    except TimeoutError:
        return [ends.get(stream, SILENT) for stream in wanted]
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
    return [ends.get(stream, CLOSED) for stream in wanted]


def _status(fields: Iterable[Any]) -> str:
    return next(str(value) for name, value in fields if name == ":status")


def _opening(stream: int, block: bytes, fields: Fields) -> bytes:
    frame = HeadersFrame(stream, data=block, flags=["END_HEADERS"])
    if (b":method", b"CONNECT") not in fields:
        frame.flags.add("END_STREAM")
    opening: bytes = frame.serialize()
    return opening
