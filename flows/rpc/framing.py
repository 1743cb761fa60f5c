"""gRPC over HTTP/2 as values: messages in a stream, statuses, requests (grpc/doc/PROTOCOL-HTTP2.md). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from urllib.parse import quote

REQUEST_MAX = 1 << 17  # bytes of one call that may wait to be read; a request of our services has a few hundred
REASON_MAX = 1000  # characters of a reason; all headers together may have 8 KiB (grpc's default)
IDENTITY = "identity"
_PREFIX = 5  # bytes before each message: whether it is compressed, and its length
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_CONTENT_TYPE = re.compile(r"application/grpc(\+proto)?\s*(;|\Z)")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])\Z")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
Headers = list[tuple[str, str]]


class Code(IntEnum):
    """The status codes that we use (grpc/doc/statuscodes.md)."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Refusal(Exception):
    """Ends a call with a status that is not OK; the text is for its caller."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def framed(messages: Iterable[bytes]) -> bytes:
    """Messages as they follow each other in a stream."""
    parts: list[bytes] = []
    for message in messages:
        parts += (b"\0", len(message).to_bytes(4, "big"), message)
    return b"".join(parts)


class Messages:
    """Cuts the bytes of a request into messages; `encoding` is what the request says of their compression."""

    def __init__(self, encoding: str = IDENTITY) -> None:
        self._encoding = encoding
        self._buffer = bytearray()

    def __len__(self) -> int:
        """Bytes of a message that is not complete yet."""
        return len(self._buffer)

    def feed(self, content: bytes) -> list[bytes]:
        """The messages that are complete now. Raises Refusal for one that is compressed or too long."""
        self._buffer += content
        found = []
        at = 0
        while len(self._buffer) - at >= _PREFIX:
            end = at + _PREFIX + self._length(at)
            if end > len(self._buffer):
                break
            found.append(bytes(self._buffer[at + _PREFIX : end]))
            at = end
        del self._buffer[:at]
        return found

    def _length(self, at: int) -> int:
        is_compressed, length = self._buffer[at], int.from_bytes(self._buffer[at + 1 : at + _PREFIX], "big")
        if is_compressed and self._encoding == IDENTITY:
            raise Refusal(Code.INTERNAL, "a message is compressed, and the request does not say how")
        if is_compressed:
            raise Refusal(Code.UNIMPLEMENTED, f"messages compressed by {self._encoding} are not understood here")
        if length > REQUEST_MAX:
            raise Refusal(Code.RESOURCE_EXHAUSTED, f"a message of {length} bytes is more than {REQUEST_MAX}")
        return length


def opening() -> Headers:
    """What every answer begins with."""
    return [(":status", "200"), ("content-type", "application/grpc"), ("grpc-accept-encoding", IDENTITY)]


def trailers(code: Code, text: str = "") -> Headers:
    """What every answer ends with."""
    status = [("grpc-status", str(int(code)))]
    reason = quote(text.strip()[:REASON_MAX], safe=_PRINTABLE, errors="replace")
    return [*status, ("grpc-message", reason)] if reason else status


def http_refusal(headers: Mapping[str, str]) -> Headers | None:
    """The answer to a request that is not gRPC; None if it is."""
    if headers.get(":method") != "POST":
        return [(":status", "405"), ("allow", "POST")]
    if not _CONTENT_TYPE.match(headers.get("content-type", "")):
        return [(":status", "415")]
    return None


def timeout(headers: Mapping[str, str]) -> float | None:
    """Seconds that the caller will wait; None: no limit. Raises Refusal."""
    text = headers.get("grpc-timeout")
    if text is None:
        return None
    match = _TIMEOUT.match(text)
    if match is None:
        raise Refusal(Code.INTERNAL, f"grpc-timeout {text[:20]!r} is not a number and a unit")
    return int(match[1]) * _SECONDS[match[2]]
