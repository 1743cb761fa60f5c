"""The head of a request: length, key, version, correlation id and client id. Pure.

Every version of the request header begins alike but that of ControlledShutdown version 0, which has no client id
(KIP-482). What follows it depends on the API: tagged fields, in versions with compact types.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Final, NamedTuple

from l7proxy.kafka import schema
from l7proxy.kafka.codec import Message, read
from l7proxy.kafka.scan import TAGGED, Plan
from l7proxy.kafka.wire import Cursor, WireError

LENGTH: Final = 4  # bytes before a frame that say how long it is
SIZE_MIN: Final = 8  # of a frame: key, version, correlation id
_FIXED: Final = Layout(">ihhi")
_CLIENT_ID: Final = Layout(">h")
_CONTROLLED_SHUTDOWN: Final = 7
_NO_TAGS: Final = schema.Struct(True, (), {})


class Head(NamedTuple):
    """Of one request. `size`: bytes of the frame with its length; `at`: where its body begins, tagged fields first."""

    size: int
    key: int
    version: int
    correlation: int
    client_id: str
    at: int


def head(view: memoryview) -> Head | None:
    """The head of the frame that begins here; None if it is not there as a whole. WireError if it is none."""
    if len(view) < _FIXED.size:
        if len(view) >= LENGTH:
            _check(int.from_bytes(view[:LENGTH], "big", signed=True))
        return None
    size, key, version, correlation = _FIXED.unpack_from(view)
    _check(size)
    at = _FIXED.size
    if key == _CONTROLLED_SHUTDOWN and version == 0:
        return Head(size + LENGTH, key, version, correlation, "", at)
    if len(view) < at + _CLIENT_ID.size:
        if size + LENGTH < at + _CLIENT_ID.size:
            raise WireError("request ends within its header")
        return None
    (length,) = _CLIENT_ID.unpack_from(view, at)
    at += _CLIENT_ID.size
    end = at + max(length, 0)
    if length < -1 or end > size + LENGTH:
        raise WireError("client id is longer than the request")
    if end > len(view):
        return None
    client_id = Cursor(view, at).text(end - at) if length > 0 else ""
    return Head(size + LENGTH, key, version, correlation, client_id, end)


def _check(size: int) -> None:
    if size < SIZE_MIN:
        raise WireError("frame of impossible size")


def is_tls(view: memoryview) -> bool:
    """Whether a connection that begins so is TLS: a record of a handshake, which as a length would be 369 MB."""
    return len(view) >= 2 and view[0] == 0x16 and view[1] == 3


def with_header(key: int, version: int, body: Plan) -> Plan:
    """The plan of what follows the client id: the tagged fields of the header, then the body."""
    if not schema.is_flexible(key, version):
        return body
    return Plan(body.flexible, (TAGGED, *body.steps), None)


def decode(key: int, version: int, frame: memoryview, at: int) -> tuple[Message, int]:
    """The request whose whole frame this is, and where its body begins behind the header's tagged fields."""
    cursor = Cursor(frame, at)
    if schema.is_flexible(key, version):
        read(_NO_TAGS, cursor)
    begins = cursor.at
    message = read(schema.request(key, version), cursor)  # what comes after it, brokers do not mind
    return message, begins
