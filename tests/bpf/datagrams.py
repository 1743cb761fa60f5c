"""Proxies of datagrams in place of the DNS proxy, where only the way to them matters, not what they do."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass

from l7proxy.dns.packets import Way, fragments, packet
from tests.bpf.galaxy import Galaxy, inside
from tests.bpf.proxy import IP_TRANSPARENT, IPV6_TRANSPARENT, SO_MARK

IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR = 20, 74
FAMILIES = (socket.AF_INET, socket.AF_INET6)


def transparent(family: int, mark: int) -> socket.socket:
    """A datagram socket that may have any address."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    return made


def door(family: int, port: int, mark: int, shared: bool) -> socket.socket:
    """Takes what is redirected to the port, and tells where it was sent to."""
    made = transparent(family, mark)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1)
    else:
        made.setsockopt(socket.SOL_IP, IP_RECVORIGDSTADDR, 1)
    made.bind(("", port))
    return made


def upstream(galaxy: Galaxy, pod: tuple[str, int], to: tuple[str, int], mark: int) -> socket.socket:
    """From a pod's address to a server, as a proxy's; port 0: any."""
    with inside(galaxy.node):
        made = transparent(socket.AF_INET6 if ":" in pod[0] else socket.AF_INET, mark)
    made.settimeout(3.0)
    made.bind(pod)
    made.connect(to)
    return made


def original_destination(content: bytes) -> tuple[str, int]:
    """Of a struct sockaddr_in or sockaddr_in6."""
    family = int.from_bytes(content[:2], "little")
    at, size = (8, 16) if family == socket.AF_INET6 else (4, 4)
    return socket.inet_ntop(family, content[at : at + size]), int.from_bytes(content[2:4], "big")


@dataclass(frozen=True)
class Marks:
    """Of the sockets of a proxy for one direction (docs/architecture.md, section B)."""

    upstream: int
    answer: int


class DatagramProxy:
    """Sends every datagram on to where it was meant for, from the client's own address, and what comes back with
    `proxy:` before it to the client, from the address that it had asked. `sizes` says how long the datagrams were;
    answers above `mtu` bytes leave in fragments."""

    def __init__(self, galaxy: Galaxy, port: int, marks: Marks, shared: bool = False) -> None:
        self._galaxy = galaxy
        self._marks = marks
        self.sizes: list[int] = []
        self._closed = False
        self._raw: dict[int, socket.socket] = {}
        with inside(galaxy.node):
            self._doors = [door(family, port, marks.answer, shared) for family in FAMILIES]
            for family in FAMILIES:
                self._raw[family] = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                self._raw[family].setsockopt(socket.SOL_SOCKET, SO_MARK, marks.answer)
        for one in self._doors:
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()
        galaxy.at_end(self.close)

    def _serve(self, listener: socket.socket) -> None:
        while not self._closed:
            try:
                message, ancillary, _, client = listener.recvmsg(65535, socket.CMSG_SPACE(28))
            except OSError:
                return
            if self._closed:
                return
            self.sizes.append(len(message))
            server = original_destination(ancillary[0][2])
            threading.Thread(target=self._forward, args=(message, client[:2], server), daemon=True).start()

    def _forward(self, message: bytes, client: tuple[str, int], server: tuple[str, int]) -> None:
        with upstream(self._galaxy, (client[0], 0), server, self._marks.upstream) as made:
            try:
                made.send(message)
                answer = b"proxy:" + made.recv(65535)
            except ConnectionRefusedError:
                answer = b"proxy:refused"
            except OSError:
                return
        family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
        way = Way(socket.inet_pton(family, server[0]), server[1], socket.inet_pton(family, client[0]), client[1])
        for part in [packet(way, answer)] if len(answer) < 1400 else fragments(way, answer, len(self.sizes)):
            self._raw[family].sendto(part, (client[0], 0))

    def close(self) -> None:
        """As if the process were killed."""
        self._closed = True
        for one in self._doors:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not connected, which wakes the reader all the same
            one.close()
        for raw in self._raw.values():
            raw.close()
