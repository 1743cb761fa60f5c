"""A client of the bypass corpus: sends a trick as it is, and says what came of it. Knows no policy.

HTTP/2 is written frame by frame: h2 would refuse to send most of what is to be tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httptools
from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from conformance.bypass import CLOSED, Trick, Wire
from conformance.speakers import HTTP2_PREFACE
from conformance.wire import Way

READ_SIZE = 1 << 16
PATIENCE = 10.0  # seconds until what should be answered is silent
SILENT = "silent"
STREAM = 1
FRAME_HEAD = 9

Fields = tuple[tuple[bytes, bytes], ...]


async def sneak(way: Way, trick: Trick) -> tuple[str, ...]:
    """The statuses that the client sees, in order; CLOSED where connection or stream ends before, SILENT where nothing
    comes. Raises OSError if there is no connection."""
    reader, writer = await way.stream()
    try:
        async with asyncio.timeout(PATIENCE):
            if trick.wire is Wire.HTTP2:
                return (await _http2(reader, writer, trick.fields()),)
            return tuple(await _http1(reader, writer, trick))
    except TimeoutError:
        return (SILENT,)
    finally:
        writer.close()


class _Answers:
    """Collects statuses from httptools' callbacks."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:  # not of the message: the answer to HEAD has no body
        self.statuses.append(str(self._parser.get_status_code()))


async def _http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, trick: Trick) -> list[str]:
    answers, count = _Answers(), len(trick.answers)
    try:
        writer.write(trick.raw())
        while len(answers.statuses) < count and (data := await reader.read(READ_SIZE)):
            answers.feed(data)
    except (ConnectionError, httptools.HttpParserUpgrade):
        pass
    return answers.statuses if len(answers.statuses) >= count else [*answers.statuses, CLOSED]


async def _http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: Fields) -> str:
    encoder, decoder = Encoder(), Decoder()
    try:
        writer.write(HTTP2_PREFACE + SettingsFrame(0).serialize() + _opening(encoder.encode(list(fields)), fields))
        while True:
            frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(FRAME_HEAD)))
            frame.parse_body(memoryview(await reader.readexactly(length)))
            if isinstance(frame, HeadersFrame):
                return _status(decoder.decode(frame.data))
            if isinstance(frame, RstStreamFrame) or (isinstance(frame, GoAwayFrame) and frame.error_code):
                return CLOSED
    except (ConnectionError, asyncio.IncompleteReadError):
        return CLOSED


def _status(fields: Iterable[Any]) -> str:
    return next(str(value) for name, value in fields if name == ":status")


def _opening(block: bytes, fields: Fields) -> bytes:
    frame = HeadersFrame(STREAM, data=block, flags=["END_HEADERS"])
    if (b":method", b"CONNECT") not in fields:
        frame.flags.add("END_STREAM")
    return frame.serialize()
