"""Packets that no tool here can send: ICMP of any type, and SCTP on kernels without SCTP. Pure bytes.

An SCTP probe is an INIT chunk, as every association begins; its answer is an INIT ACK (RFC 9260 3.3.2, 3.3.3).
"""

from __future__ import annotations

import struct

ICMP_PROTOCOL, ICMPV6_PROTOCOL, SCTP_PROTOCOL = 1, 58, 132
ECHO_REQUESTS = {4: 8, 6: 128}
ICMP_TIMESTAMP = 13  # the only other request that Linux answers, with 14 (RFC 792)
INIT, INIT_ACK = 1, 2
TAG = 0x0DEA7450
WINDOW = 0x10000
_COMMON = struct.Struct("!HHII")  # source port, destination port, verification tag, checksum
_INIT = struct.Struct("!BBHIIHHI")  # type, flags, length, tag, window, streams out, streams in, first TSN
_CASTAGNOLI = 0x82F63B78


def icmp_packet(kind: int, identifier: int, family: int) -> bytes:
    """A request of this type with room for three timestamps; the kernel fills in ICMPv6's checksum."""
    body = struct.pack("!HH", identifier, 1) + bytes(12)
    head = struct.pack("!BBH", kind, 0, 0)
    checksum = internet_checksum(head + body) if family == 4 else 0
    return struct.pack("!BBH", kind, 0, checksum) + body


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[n : n + 2]) for n in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def sctp_init(source_port: int, destination_port: int) -> bytes:
    """The first packet of an association: verification tag 0 (RFC 9260 8.5.1)."""
    return _sctp(source_port, destination_port, 0, INIT)


def sctp_answer(packet: bytes) -> bytes | None:
    """The INIT ACK to an INIT, back where it came from; None to anything else."""
    if len(packet) < _COMMON.size + _INIT.size or packet[_COMMON.size] != INIT:
        return None
    source, destination, _, _ = _COMMON.unpack_from(packet)
    tag = _INIT.unpack_from(packet, _COMMON.size)[3]
    return _sctp(destination, source, tag, INIT_ACK)


def sctp_payload(packet: bytes, has_ip_header: bool) -> bytes:
    """What a raw socket has read, without the IPv4 header that only IPv4 sockets show."""
    return packet[(packet[0] & 0x0F) * 4 :] if has_ip_header and packet else packet


def sctp_ports(packet: bytes) -> tuple[int, int] | None:
    """Source and destination port, or None for what is too short."""
    return struct.unpack_from("!HH", packet) if len(packet) >= _COMMON.size else None


def _sctp(source: int, destination: int, tag: int, kind: int) -> bytes:
    chunk = _INIT.pack(kind, 0, _INIT.size, TAG, WINDOW, 1, 1, 1)
    checksum = struct.unpack("<I", struct.pack(">I", crc32c(_COMMON.pack(source, destination, tag, 0) + chunk)))[0]
    return _COMMON.pack(source, destination, tag, checksum) + chunk


def crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 9260 appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
