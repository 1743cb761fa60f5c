"""The sockets of the DNS proxy: transparent ones, and one that sends answers over UDP from the servers' addresses."""

from __future__ import annotations

import errno
import os
import socket
from struct import Struct
from typing import Final

from l7proxy import transparent
from l7proxy.dns.packets import Way, fragments, packet
from l7proxy.transparent import IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR, MARKS, text
from policies.types import Direction, Protocol

_MARKS: Final = MARKS[Direction.EGRESS]
_SOCKADDR4: Final = Struct("2x2s4s")
_SOCKADDR6: Final = Struct("2x2s4x16s")
ANCILLARY_SIZE: Final = socket.CMSG_SPACE(28)

Ancillary = list[tuple[int, int, bytes]]


def listener(family: socket.AddressFamily, protocol: Protocol, port: int, shared: bool = False) -> socket.socket:
    """Takes what is redirected to this port, for whatever address it was meant. `shared`: with other workers."""
    return transparent.listener(family, protocol, port, mark=_MARKS.accepted, shared=shared)


def upstream(pod: str, server: str, port: int, protocol: Protocol) -> socket.socket:
    """A socket from the pod's own address to the server: one per query on UDP, so that nobody can guess where an answer
    must go. OSError where that fails at once."""
    return transparent.upstream(pod, (server, port), protocol, mark=_MARKS.upstream)


def original_destination(ancillary: Ancillary) -> tuple[bytes, int] | None:
    """Packed address and port that a datagram was sent to."""
    for level, kind, content in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_RECVORIGDSTADDR:
            port, address = _SOCKADDR4.unpack_from(content)
        elif level == socket.IPPROTO_IPV6 and kind == IPV6_RECVORIGDSTADDR:
            port, address = _SOCKADDR6.unpack_from(content)
        else:
            continue
        return address, int.from_bytes(port, "big")
    return None


class Postman:
    """Delivers UDP answers that come from the servers' addresses."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        for size, family in ((4, socket.AF_INET), (16, socket.AF_INET6)):
            made = socket.socket(
                family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW
            )
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARKS.accepted)
            self._sockets[size] = made

    def send(self, way: Way, payload: bytes) -> None:
        """Send a datagram, in fragments where it does not fit. OSError where the kernel does not take it."""
        via = self._sockets[len(way.source)]
        to = (text(way.destination), 0)
        try:
            via.sendto(packet(way, payload), to)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            for fragment in fragments(way, payload, int.from_bytes(os.urandom(4), "big")):
                via.sendto(fragment, to)

    def close(self) -> None:
        """Send no more."""
        for one in self._sockets.values():
            one.close()
