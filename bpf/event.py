"""What the kernel tells: one event, read from the bytes of the ring. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bpf.constants import EVENT_VERSION
from bpf.encoding import address_text
from bpf.layout import EVENT


@dataclass(frozen=True, slots=True)
class Event:
    """One kernel event. Enumerations are given as numbers, as they came: a newer program may know more than we do."""

    type: int  # EventType
    sub_type: int  # drop: Reason; trace: Observed; verdict: 0
    trace_reason: int  # TraceReason
    direction: int  # Dir, of the connection as the endpoint sees it
    reply: int  # Reply
    family: int  # 4, 6; 0 where the packet was not readable as IP
    protocol: int
    time_ns: int  # nanoseconds of CLOCK_MONOTONIC; ringbuf adds the offset to real time
    endpoint: int  # interface index of the pod's veth (ir.Endpoint.id); 0 on the helper device
    ifindex: int
    source_identity: int
    destination_identity: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    match_type: int  # Match, of a verdict
    verdict: int  # of a verdict: -reason, 0 or the proxy port
    length: int  # bytes, with the link header
    proxy_port: int
    source_mac: bytes
    destination_mac: bytes


_EVENT = struct.Struct(EVENT.format)


class LayoutError(ValueError):
    """Bytes that are not in this version's layout."""


def unpack_event(raw: bytes | memoryview, clock_offset_ns: int = 0) -> Event:
    """One record of the ring. `clock_offset_ns` is added to its time. LayoutError for another size or version."""
    if len(raw) != _EVENT.size or raw[0] != EVENT_VERSION:
        raise LayoutError(f"event of {len(raw)} bytes, version {raw[0] if len(raw) else '?'}")
    _, kind, sub, trace, direction, reply, family, protocol, time, *rest = _EVENT.unpack(raw)
    endpoint, ifindex, source_id, destination_id, source, destination, *tail = rest
    return Event(
        kind,
        sub,
        trace,
        direction,
        reply,
        family,
        protocol,
        time + clock_offset_ns,
        endpoint,
        ifindex,
        source_id,
        destination_id,
        address_text(family, source),
        address_text(family, destination),
        *tail,
    )
