"""UDP answers as IP packets, for raw sockets: they come from the address that the pod asked. Pure.

A UDP socket bound to a server's address would take the server's own packets where that is an address of this host (a
node-local cache), and could not be bound at all beside a server on the wildcard address. A packet binds nothing.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

SMALLEST_MTU: Final = 1280  # bytes; every IPv6 link has it (RFC 8200 5)
_UDP: Final = 17
_FRAGMENT: Final = 44
_HOPS: Final = 64
_MORE: Final = 0x2000
_IPV4: Final = Struct("!BBHHHBBH4s4s")
_IPV6: Final = Struct("!IHBB16s16s")
_HEADER: Final = Struct("!4H")
_PSEUDO4: Final = Struct("!4s4sxBH")
_PSEUDO6: Final = Struct("!16s16sI3xB")
_FRAGMENT6: Final = Struct("!BxHI")


class Way(NamedTuple):
    """From and to: packed addresses of one family, and ports."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int


def packet(way: Way, payload: bytes) -> bytes:
    """One packet with the whole payload (the kernel fills in the checksum of an IPv4 header)."""
    content = _datagram(way, payload)
    if len(way.source) == 4:
        return _ipv4(way, len(content), 0, 0) + content
    return _ipv6(way, len(content), _UDP) + content


def fragments(way: Way, payload: bytes, number: int, mtu: int = SMALLEST_MTU) -> list[bytes]:
    """The same in packets of at most `mtu` bytes; `number` tells them from those of other datagrams."""
    content = _datagram(way, payload)
    is_ipv4 = len(way.source) == 4
    room = (mtu - (20 if is_ipv4 else 48)) & ~7
    made = []
    for at in range(0, len(content), room):
        piece, more = content[at : at + room], at + room < len(content)
        if is_ipv4:
            made.append(_ipv4(way, len(piece), number & 0xFFFF, at >> 3 | (_MORE if more else 0)) + piece)
        else:
            extension = _FRAGMENT6.pack(_UDP, at | more, number & 0xFFFFFFFF)
            made.append(_ipv6(way, len(extension) + len(piece), _FRAGMENT) + extension + piece)
    return made


def _datagram(way: Way, payload: bytes) -> bytes:
    size = 8 + len(payload)
    if len(way.source) == 4:
        pseudo = _PSEUDO4.pack(way.source, way.destination, _UDP, size)
    else:
        pseudo = _PSEUDO6.pack(way.source, way.destination, size, _UDP)
    head = _HEADER.pack(way.source_port, way.destination_port, size, 0)
    padding = b"\0" if size & 1 else b""
    # The sum of 16-bit words in one's complement is the remainder of the whole number by 0xffff, as 0x10000 leaves 1.
    checksum = 0xFFFF - int.from_bytes(b"".join((pseudo, head, payload, padding)), "big") % 0xFFFF
    return head[:6] + checksum.to_bytes(2, "big") + payload


def _ipv4(way: Way, size: int, number: int, offset: int) -> bytes:
    return _IPV4.pack(0x45, 0, 20 + size, number, offset, _HOPS, _UDP, 0, way.source, way.destination)


def _ipv6(way: Way, size: int, following: int) -> bytes:
    return _IPV6.pack(0x60000000, size, following, _HOPS, way.source, way.destination)
