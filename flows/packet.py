"""Flows of packets: what packets that are alike share, and when each was seen and between which ports. Pure.

Most packets of a node are like many others: one pod with another, opened, answered, closed. What they share is built
once (flows.build); the rest is serialised by hand here.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

from flow import flow_pb2

from flows.exchange import stamped
from flows.record import PacketKind, PacketRecord, PacketVerdict, TlsRefusal
from flows.wire import counted, tag, varint
from policies.types import Protocol

FLAG_FIELDS: Final = (
    ("FIN", 0x01),
    ("SYN", 0x02),
    ("RST", 0x04),
    ("PSH", 0x08),
    ("ACK", 0x10),
    ("URG", 0x20),
    ("ECE", 0x40),
    ("CWR", 0x80),
    ("NS", 0x100),
)
POLICY_DENIED: Final = 133  # flow.DropReason: no rule allows it
PORTS: Final = ("source_port", "destination_port")
# Everything about a packet that is not its own: a tuple for each, to be compared.
alike = attrgetter(*(field for field in PacketRecord.__dataclass_fields__ if field not in PORTS))

_L4 = tag(flow_pb2.Flow, "l4")
# protocol -> what stands before the ports of a flow, and the tags of both
_PORTED: Final = {
    protocol: (tag(flow_pb2.Layer4, kind.DESCRIPTOR.name), *(tag(kind, port) for port in PORTS))
    for protocol, kind in ((Protocol.TCP, flow_pb2.TCP), (Protocol.UDP, flow_pb2.UDP), (Protocol.SCTP, flow_pb2.SCTP))
}


def of_refusal(record: TlsRefusal) -> PacketRecord:
    """A TLS connection that was closed, as the drop of a packet that no rule allows."""
    leg = record.leg
    return PacketRecord(
        PacketKind.DROP,
        leg.client_ip,
        leg.server_ip,
        source_port=leg.client_port,
        destination_port=leg.server_port,
        verdict=PacketVerdict.DROPPED,
        direction=leg.slot.direction,
        drop_reason=POLICY_DENIED,
    )


def own(record: PacketRecord, time_ns: int, uuid: bytes) -> bytes:
    """What is special about the flow of a packet. `uuid` is 36 characters of ASCII."""
    before: Any = _PORTED.get(record.protocol)  # type: ignore[call-overload]  # any number compares with an IntEnum
    if before is None:
        return stamped(time_ns, uuid)
    kind, source, destination = before
    ports = source + varint(record.source_port) + destination + varint(record.destination_port)
    return stamped(time_ns, uuid) + counted(_L4, counted(kind, ports))


def layer4(record: PacketRecord) -> flow_pb2.Layer4 | None:
    """What packets that are alike share of it: all but the ports."""
    icmp = {"type": record.icmp_type, "code": record.icmp_code}
    match record.protocol:
        case Protocol.TCP:
            flags = flow_pb2.TCPFlags(**{name: bool(record.tcp_flags & bit) for name, bit in FLAG_FIELDS})
            return flow_pb2.Layer4(TCP=flow_pb2.TCP(flags=flags))
        case Protocol.UDP:
            return flow_pb2.Layer4(UDP=flow_pb2.UDP())
        case Protocol.SCTP:
            return flow_pb2.Layer4(SCTP=flow_pb2.SCTP())
        case Protocol.ICMP:
            return flow_pb2.Layer4(ICMPv4=flow_pb2.ICMPv4(**icmp))
        case Protocol.ICMPV6:
            return flow_pb2.Layer4(ICMPv6=flow_pb2.ICMPv6(**icmp))
    return None
