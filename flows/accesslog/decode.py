"""Envoy's access-log entries -> records. Pure; takes messages that have been parsed, trusts nothing in them.

Three outcomes per entry: a record, None (an entry that says nothing we need), or DecodeError. This is the hot path of
the flow pipeline, hence a reader's view of the messages (proto/seen), local names and cached parsing of what repeats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, TypeVar

from envoy.config.core.v3.base_pb2 import Metadata
from envoy.data.accesslog.v3.accesslog_pb2 import TCPAccessLogEntry
from google.protobuf.message import DecodeError as WireError
from google.protobuf.wrappers_pb2 import BytesValue, StringValue, UInt32Value
from seen import seen_pb2

from flows.record import Headers, HttpExchange, HttpRecord, Leg, SlotRef, TlsRefusal
from policies.types import PORT_MAX, Direction

# A listener's only route bears the name of its slot. Where a request was refused before routing, the slot is in this
# filter state object instead.
SLOT_KEY = "deflector.slot"
REFUSED_KEY, SERVER_NAME_KEY = "deflector.refused", "deflector.server-name"  # as xds.denial has them

# envoy.data.accesslog.v3.AccessLogType
DOWNSTREAM_PERIODIC = 5
DOWNSTREAM_END = 6

RBAC = "envoy.filters.http.rbac"  # the name of the filter's dynamic metadata; what it holds says that it has judged
RBAC_RESULT = "enforced_engine_result"
RBAC_POLICY = "enforced_effective_policy_id"
MISSING_HEADERS, REJECTED_HEADERS = "deflector.headers.missing", "deflector.headers.rejected"  # as xds.denial has them
ALLOWED = "allowed"

# envoy.config.core.v3.RequestMethod; a method that is not listed arrives as 0, and by name only as header ":method".
METHODS = ("", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
# envoy.data.accesslog.v3.HTTPAccessLogEntry.HTTPVersion -> the words of Hubble ("HTTP/1" is 1.0)
PROTOCOLS = {1: "HTTP/1", 2: "HTTP/1.1", 3: "HTTP/2"}

LATENCY_MAX = 10**18  # ns, thirty years: what is above is no latency, and might not fit the flow's 64 bits
DENIED = re.compile(r"rbac_access_denied(?:_matched_policy\[(.*)\])?\Z", re.DOTALL)
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?\Z")
CODE_MAX = 999
CODES = {UInt32Value(value=code).SerializeToString(): code for code in range(CODE_MAX + 1)}
NO_HEADERS: Mapping[str, str] = {}
KEPT, KEPT_LENGTH = 4096, 256  # parsed parts that are remembered of each kind; longer ones (bytes) are parsed each time
T = TypeVar("T")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 5.6.2


class DecodeError(ValueError):
    """An entry that does not say what every entry of ours says; the text names the field."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message of the stream held, in order. `complaint` tells what is wrong with the last malformed entry."""

    records: tuple[HttpRecord, ...]
    malformed: int = 0
    complaint: str = ""
    refusals: tuple[TlsRefusal, ...] = ()


def remembered(parse: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """The same function, quick about what it has parsed before."""
    recall = lru_cache(KEPT)(parse)
    return lambda raw: recall(raw) if len(raw) <= KEPT_LENGTH else parse(raw)


def decode_message(message: seen_pb2.Log, slot_key: str = SLOT_KEY) -> Batch:
    """Decode one message of the stream. Never raises: bad entries are counted."""
    records: list[HttpRecord] = []
    refusals: list[TlsRefusal] = []
    malformed = 0
    complaint = ""
    for raw in message.tcp_logs.log_entry:
        try:
            refusals.append(decode_refusal(raw, slot_key))
        except DecodeError as error:
            malformed += 1
            complaint = str(error)
    for entry in message.http_logs.log_entry:
        try:
            record = decode_entry(entry, slot_key)
        except DecodeError as error:
            malformed += 1
            complaint = str(error)
        else:
            if record is not None:
                records.append(record)
    return Batch(tuple(records), malformed, complaint, tuple(refusals))


def decode_refusal(raw: bytes, slot_key: str = SLOT_KEY) -> TlsRefusal:
    """Decode one entry of the log of refused TLS connections, the only ones without HTTP. Raises DecodeError."""
    try:
        common = TCPAccessLogEntry.FromString(raw).common_properties
        states = {key: _text_of(any_.TypeName(), any_.value) for key, any_ in common.filter_state_objects.items()}
    except (WireError, UnicodeDecodeError) as error:
        raise DecodeError(f"an entry that does not keep to Envoy's API: {error}") from None
    if slot_key not in states or REFUSED_KEY not in states:
        raise DecodeError("tcp_logs: not of a connection that was refused")
    client = _end(common.downstream_remote_address.socket_address, "downstream_remote_address")
    server = _end(common.downstream_local_address.socket_address, "downstream_local_address")
    leg = Leg(_named_slot(states[slot_key]), *client, *server)
    return TlsRefusal(leg, states.get(SERVER_NAME_KEY, ""), states[REFUSED_KEY])


def decode_entry(entry: seen_pb2.Entry, slot_key: str = SLOT_KEY) -> HttpRecord | None:
    """Decode one entry; None for one that is neither the end of an exchange nor an allowed one's middle.

    Raises DecodeError.
    """
    try:
        return _decode(entry, slot_key)
    except WireError as error:
        raise DecodeError(f"an entry that does not keep to Envoy's API: {error}") from None


def _decode(entry: Any, slot_key: str) -> HttpRecord | None:
    common = entry.common_properties
    stage = common.access_log_type
    metadata = common.metadata
    result, rule = judged(metadata)
    if stage != DOWNSTREAM_END and (stage != DOWNSTREAM_PERIODIC or result != ALLOWED):
        return None  # until the filter has judged it and let it pass, an open request is nobody's business
    allowed_by = rule if result == ALLOWED else ""
    route = common.route_name
    slot = _named_slot(route) if route else _stated_slot(common.filter_state_objects, slot_key)
    request = entry.request
    sent = request.request_headers
    headers = dict(map(_header, sent)) if sent else NO_HEADERS
    authority = request.authority
    path = request.path
    client_ip, client_port = _end(common.downstream_remote_address.socket_address, "downstream_remote_address")
    server_ip, server_port = _local_end(common.downstream_local_address)
    number = request.request_method
    method = METHODS[number] if 0 < number < len(METHODS) else headers.get(":method", "")
    started = common.start_time
    exchange = HttpExchange(client_ip, client_port, server_ip, server_port, method, authority, path, started)
    url = f"{headers.get('x-forwarded-proto') or request.scheme or 'http'}://{authority}{path}"
    protocol = PROTOCOLS.get(entry.protocol_version, "Unknown")
    seen = _request_headers(request, headers)
    trace = _trace_id(headers["traceparent"]) if "traceparent" in headers else ""
    if stage == DOWNSTREAM_PERIODIC:
        missing, rejected = header_faults(metadata)
        return HttpRecord(
            *(exchange, slot, False, url, protocol, seen, trace),
            allowed_by=allowed_by,
            missing_headers=missing,
            rejected_headers=rejected,
        )
    response = entry.response
    status = response.response_code
    code = CODES[status] if status in CODES else _odd_code(status)
    if not (code or method or path):
        return None  # the client went away before it had asked for anything
    denied_by = _denied_by(response.response_code_details, bool(route))
    wait = common.time_to_first_downstream_tx_byte
    latency = wait.seconds * 1_000_000_000 + wait.nanos
    if not 0 <= latency < LATENCY_MAX:
        raise DecodeError(f"common_properties.time_to_first_downstream_tx_byte: {wait.seconds} s is no latency")
    answered = _response_headers(response.response_headers, request.request_id or headers.get("x-request-id", ""))
    return HttpRecord(
        *(exchange, slot, True, url, protocol, seen, trace, code, denied_by, latency, answered, allowed_by),
        *header_faults(metadata),
    )


@remembered
def judged(raw: bytes) -> tuple[str, str]:
    """What the filter has said of the request (`allowed`, `denied`), and the name of the rule by which; empty if it has
    not been asked."""
    told = Metadata.FromString(raw).filter_metadata.get(RBAC)
    if told is None:
        return "", ""
    result, rule = (told.fields[key].string_value if key in told.fields else "" for key in (RBAC_RESULT, RBAC_POLICY))
    return result, rule


NO_FAULTS: tuple[Headers, Headers] = ((), ())
_FAULTS = b"deflector.headers."


def header_faults(raw: bytes) -> tuple[Headers, Headers]:
    """The headers that were missing, and those that were rejected: what actions of policies have found."""
    return _header_faults(raw) if _FAULTS in raw else NO_FAULTS


@remembered
def _header_faults(raw: bytes) -> tuple[Headers, Headers]:
    told = Metadata.FromString(raw).filter_metadata
    missing, rejected = (
        tuple(sorted((canonical(name), value.string_value) for name, value in told[key].fields.items()))
        if key in told
        else ()
        for key in (MISSING_HEADERS, REJECTED_HEADERS)
    )
    return missing, rejected


def is_denied(entry: seen_pb2.Entry) -> bool:
    """Whether this end of an exchange will be a denial; cheaper than to decode it."""
    routed = bool(entry.common_properties.route_name)
    return _denied_by(entry.response.response_code_details, routed) is not None


def _denied_by(details: str, is_routed: bool) -> str | None:
    """What refused the request: the rule's name, or Envoy's own reason where it never came to be judged; None: nothing.

    Malformed requests are answered before routing (400, or a redirect to the normal form of their path).
    """
    if details.startswith("rbac_access_denied"):
        match = DENIED.match(details)
        return (match[1] or "") if match else ""
    return None if is_routed else details


def _end(socket: Any, field: str) -> tuple[str, int]:
    port = socket.port_value
    ip = _canonical_ip(socket.address)
    if not ip or not 0 < port <= PORT_MAX:
        raise DecodeError(f"common_properties.{field}: {socket.address[:80]!r} port {port} is no end of a connection")
    return ip, port


@remembered
def _local_end(raw: bytes) -> tuple[str, int]:
    return _end(seen_pb2.Address.FromString(raw).socket_address, "downstream_local_address")


def _odd_code(raw: bytes) -> int:
    """A status that is not written as everybody writes it."""
    code = UInt32Value.FromString(raw).value
    if code > CODE_MAX:
        raise DecodeError(f"response.response_code: {code} is not an HTTP status")
    return int(code)


@remembered
def _header(raw: bytes) -> tuple[str, str]:
    header = seen_pb2.Header.FromString(raw)
    return header.key, header.value


@lru_cache(maxsize=4096)
def _canonical_ip(text: str) -> str:
    """The address as everybody else in the house writes it; "" if it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


@lru_cache(maxsize=4096)
def _named_slot(name: str) -> SlotRef:
    direction, _, rest = name.partition(":")
    group = rest.partition(":")[0]
    if direction not in _DIRECTIONS or not (group.isascii() and group.isdigit() and len(group) <= 10):
        raise DecodeError(f"common_properties: slot {name[:80]!r} is not direction:group:...")
    return SlotRef(name, _DIRECTIONS[direction], int(group))


def _stated_slot(states: Iterable[bytes], slot_key: str) -> SlotRef:
    """The slot named by a filter state object: a StringValue or BytesValue, or the bare text."""
    value = {state.key: state.value for state in map(seen_pb2.State.FromString, states)}.get(slot_key)
    if value is None:
        raise DecodeError(f"common_properties: neither route_name nor filter_state_objects[{slot_key!r}]")
    try:
        return _named_slot(_text_of(value.type_url.rpartition("/")[2], value.value))
    except (WireError, UnicodeDecodeError):
        field = f"common_properties.filter_state_objects[{slot_key!r}]"
        raise DecodeError(f"{field}: no text in a {value.type_url[:80]!r}") from None


def _text_of(type_name: str, value: bytes) -> str:
    if type_name == StringValue.DESCRIPTOR.full_name:
        return str(StringValue.FromString(value).value)
    if type_name == BytesValue.DESCRIPTOR.full_name:
        value = BytesValue.FromString(value).value
    return value.decode()


_DIRECTIONS = {direction.value: direction for direction in Direction}


@lru_cache(maxsize=4096)
def _trace_id(parent: str) -> str:
    match = TRACEPARENT.match(parent)
    return match[1] if match else ""


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """A header's name in canonical MIME case (`x-request-id` -> `X-Request-Id`); names that are no token stay."""
    return "-".join(part.capitalize() for part in name.split("-")) if TOKEN.match(name) else name


def _request_headers(request: Any, sent: Mapping[str, str]) -> Headers:
    """What the entry tells of the request's headers: those asked for by name, and those with a field of their own."""
    found = [(canonical(name), value) for name, value in sent.items() if name[:1] != ":"]
    if (value := request.user_agent) and "user-agent" not in sent:
        found.append(("User-Agent", value))
    if (value := request.referer) and "referer" not in sent:
        found.append(("Referer", value))
    if (value := request.forwarded_for) and "x-forwarded-for" not in sent:
        found.append(("X-Forwarded-For", value))
    if (value := request.request_id) and "x-request-id" not in sent:
        found.append(("X-Request-Id", value))
    if len(found) > 1:
        found.sort()
    return tuple(found)


def _response_headers(sent: Iterable[bytes], request_id: str) -> Headers:
    """The response's headers that were asked for, and the request's id."""
    if not sent:
        return (("X-Request-Id", request_id),) if request_id else ()
    headers = dict(map(_header, sent))
    found = [(canonical(name), value) for name, value in headers.items() if name[:1] != ":"]
    if request_id and "x-request-id" not in headers:
        found.append(("X-Request-Id", request_id))
    if len(found) > 1:
        found.sort()
    return tuple(found)
