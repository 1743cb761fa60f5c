"""A client that sends bytes as they are, and tells the statuses that it got."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeAlias

import httptools
from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from conformance.bypass import CLOSED

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BOUND_S = 10.0
Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]
SILENT = "silent"  # nothing came within BOUND_S


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
