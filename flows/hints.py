"""Bytes that a serialised flow must hold if a filter is to match it: most flows need not be parsed then. Pure.

A hint may be missing, and what has the bytes need not match; but what matches always has them. It holds for flows that
were serialised as protobuf does: every number in its shortest form. Of a method that is not in upper case the form that
is has to be there too (flows.exchange).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from re import _parser  # type: ignore[attr-defined]  # the only reader of regular expressions in the standard library
from typing import Any

from flow import flow_pb2

from flows.wire import counted, tag, varint

ALTERNATIVES = 4  # with more of them looking for each costs as much as parsing
LITERAL_MIN = 2  # characters; shorter ones are everywhere
EXACT_CODE = re.compile(r"[1-5][0-9]{2}\Z")
_TRANSPORTS = (flow_pb2.TCP, flow_pb2.UDP, flow_pb2.SCTP)
_CODE, _METHOD = tag(flow_pb2.HTTP, "code"), tag(flow_pb2.HTTP, "method")
_KEY, _VALUE = tag(flow_pb2.HTTPHeader, "key"), tag(flow_pb2.HTTPHeader, "value")

Hints = tuple[bytes, ...]  # at least one of these is in whatever matches; none: nothing is known


def hints(field: str, values: Iterable[Any]) -> Hints:
    """What a flow must hold if this field of a filter, which has been checked, is to match."""
    compiler = _FIELDS.get(field)
    if compiler is None:
        return ()
    found = set[bytes]()
    for value in values:
        alternatives = compiler(value)
        if not alternatives:
            return ()
        found.update(alternatives)
    return tuple(sorted(found)) if len(found) <= ALTERNATIVES else ()


def literal(pattern: str) -> str:
    """The longest run of ASCII characters that is in every text in which this pattern is found; empty if unknown.

    The pattern is RE2's. What it and Python's reader take differently is not looked at: classes like [[:alpha:]].
    """
    if "[:" in pattern:
        return ""
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError):
        return ""
    if parsed.state.flags & re.IGNORECASE:
        return ""
    runs, run = [""], ""
    for kind, value in parsed:
        if kind is _parser.LITERAL and 0 < value < 128:
            run += chr(value)
            runs.append(run)
        else:
            run = ""
    longest = max(runs, key=len)
    return longest if len(longest) >= LITERAL_MIN else ""


def _text(value: str) -> Sequence[bytes]:
    return [value.encode()] if value else []


def _pattern(value: str) -> Sequence[bytes]:
    return _text(literal(value))


def _path(value: str) -> Sequence[bytes]:
    """A path is compared decoded: what is encoded may hold anything."""
    found = _pattern(value)
    return [*found, b"%"] if found else []


def _port(field: str) -> Callable[[str], Sequence[bytes]]:
    tags = sorted({tag(kind, field) for kind in _TRANSPORTS})
    return lambda value: [before + varint(int(value)) for before in tags] if int(value) else []


def _code(value: str) -> Sequence[bytes]:
    return [_CODE + varint(int(value))] if EXACT_CODE.match(value) else []


def _method(value: str) -> Sequence[bytes]:
    return [counted(_METHOD, value.casefold().upper().encode())] if value else []


def _header(value: flow_pb2.HTTPHeader) -> Sequence[bytes]:
    if value.value:
        return [counted(_VALUE, value.value.encode())]
    return [counted(_KEY, value.key.encode())] if value.key else []


_FIELDS: dict[str, Callable[[Any], Sequence[bytes]]] = {
    "uuid": _text,
    "trace_id": _text,
    "dns_query": _pattern,
    "http_url": _pattern,
    "http_path": _path,
    "http_status_code": _code,
    "http_method": _method,
    "http_header": _header,
    "source_port": _port("source_port"),
    "destination_port": _port("destination_port"),
}
