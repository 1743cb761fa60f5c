"""The one-line summary of a flow, and the words for what the kernel knows by number. Pure.

Texts are those of Hubble (facts 5.2), and of gopacket for ICMP types, since people search and scripts match for them.
"""

from __future__ import annotations

from flows.gotext import quoted
from flows.record import DnsRecord, HttpRecord, KafkaRecord, PacketRecord, TlsRefusal
from flows.words import DNS_RCODES
from policies.types import Protocol

# bit on the wire -> name, in the order in which Hubble lists them
TCP_FLAGS = (
    (0x02, "SYN"),
    (0x10, "ACK"),
    (0x04, "RST"),
    (0x01, "FIN"),
    (0x08, "PSH"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
    (0x100, "NS"),
)

# type -> (name, names of codes); None: the type has no codes
IcmpNames = dict[int, tuple[str, tuple[str, ...] | None]]

_UNREACHABLE_4 = (
    "Net Host Protocol Port FragmentationNeeded SourceRoutingFailed NetUnknown HostUnknown SourceIsolated "
    "NetAdminProhibited HostAdminProhibited NetTOS HostTOS CommAdminProhibited HostPrecedence PrecedenceCutoff"
)
ICMP4: IcmpNames = {
    0: ("EchoReply", None),
    3: ("DestinationUnreachable", tuple(_UNREACHABLE_4.split())),
    4: ("SourceQuench", None),
    5: ("Redirect", ("Net", "Host", "TOS+Net", "TOS+Host")),
    8: ("EchoRequest", None),
    9: ("RouterAdvertisement", None),
    10: ("RouterSolicitation", None),
    11: ("TimeExceeded", ("TTLExceeded", "FragmentReassemblyTimeExceeded")),
    12: ("ParameterProblem", ("PointerIndicatesError", "MissingOption", "BadLength")),
    13: ("TimestampRequest", None),
    14: ("TimestampReply", None),
    15: ("InfoRequest", None),
    16: ("InfoReply", None),
    17: ("AddressMaskRequest", None),
    18: ("AddressMaskReply", None),
}

_UNREACHABLE_6 = (
    "NoRouteToDst AdminProhibited BeyondScopeOfSrc AddressUnreachable PortUnreachable SrcAddressFailedPolicy "
    "RejectRouteToDst"
)
ICMP6: IcmpNames = {
    1: ("DestinationUnreachable", tuple(_UNREACHABLE_6.split())),
    2: ("PacketTooBig", None),
    3: ("TimeExceeded", ("HopLimitExceeded", "FragmentReassemblyTimeExceeded")),
    # gopacket has this name for code 2 too (RFC 4443: unrecognised option)
    4: ("ParameterProblem", ("ErroneousHeaderField", "UnrecognizedNextHeader", "UnrecognizedNextHeader")),
    128: ("EchoRequest", None),
    129: ("EchoReply", None),
    133: ("RouterSolicitation", None),
    134: ("RouterAdvertisement", None),
    135: ("NeighborSolicitation", None),
    136: ("NeighborAdvertisement", None),
    137: ("Redirect", None),
}


def http_summary(record: HttpRecord, is_response: bool) -> str:
    """`HTTP/1.1 GET http://host/path`, or `HTTP/1.1 200 12ms (GET http://host/path)`; milliseconds are cut off."""
    if not is_response:
        return f"{record.protocol} {record.exchange.method} {record.url}"
    return f"{record.protocol} {record.code} {record.latency_ns // 1_000_000}ms ({record.exchange.method} {record.url})"


def dns_summary(record: DnsRecord) -> str:
    """`DNS Query example.com. A`, or `DNS Answer "1.2.3.4" CNAMEs: "a." TTL: 30 (Proxy example.com. A)`."""
    asked, answer = f"{record.query} {','.join(record.types)}", record.answer
    if answer is None:
        return f"DNS Query {asked}"
    parts = []
    if answer.rcode:
        parts.append(f"RCode: {DNS_RCODES.get(answer.rcode, 'Unknown')}")
    else:
        parts += [quoted(",".join(answer.addresses))] if answer.addresses else []
        parts += [f"CNAMEs: {quoted(','.join(answer.cnames))}"] if answer.cnames else []
    where = "Proxy" if record.source == "proxy" else "Query"
    return f"DNS Answer {' '.join(parts)} TTL: {answer.ttl} ({where} {asked})"


def kafka_summary(record: KafkaRecord, topic: str) -> str:
    """`Kafka request produce correlation id 2 topic 't'`; a response tells its return code."""
    what = f"{record.api_key} correlation id {record.correlation_id} topic '{topic}'"
    return f"Kafka response {what} return code {record.error_code}" if record.is_response else f"Kafka request {what}"


def packet_summary(record: PacketRecord) -> str:
    """`TCP Flags: SYN, ACK`, `UDP`, `SCTP`, `ICMPv4 EchoRequest`; empty for protocols without a summary."""
    match record.protocol:
        case Protocol.TCP:
            return f"TCP Flags: {', '.join(name for bit, name in TCP_FLAGS if record.tcp_flags & bit)}"
        case Protocol.UDP:
            return "UDP"
        case Protocol.SCTP:
            return "SCTP"
        case Protocol.ICMP:
            return f"ICMPv4 {icmp_name(ICMP4, record.icmp_type, record.icmp_code)}"
        case Protocol.ICMPV6:
            return f"ICMPv6 {icmp_name(ICMP6, record.icmp_type, record.icmp_code)}"
    return ""


def icmp_name(names: IcmpNames, kind: int, code: int) -> str:
    """`EchoRequest`, `DestinationUnreachable(Port)`, `EchoRequest(Code: 1)`, `99(1)`."""
    if kind not in names:
        return f"{kind}({code})"
    name, codes = names[kind]
    if codes is None:
        return name if code == 0 else f"{name}(Code: {code})"
    return f"{name}({codes[code]})" if code < len(codes) else f"{name}(Code: {code})"


def refusal_summary(record: TlsRefusal) -> str:
    """Of a connection that was closed before it had reached anybody; Hubble has no words for it."""
    return f"TLS server name {record.server_name}" if record.server_name else "no TLS server name"
