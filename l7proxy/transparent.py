"""Sockets of a transparent proxy: they take what was sent to others, and send with addresses that are not the host's.

Marks are those of docs/architecture.md section B: bpf knows the proxy's packets by them.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from functools import lru_cache
from typing import Final, NamedTuple

from policies.types import Direction, Protocol


class Marks(NamedTuple):
    """Of the sockets of one direction: towards the server, and towards the client."""

    upstream: int
    accepted: int


MARKS: Final = {Direction.EGRESS: Marks(0xB00, 0xD00), Direction.INGRESS: Marks(0xA00, 0xC00)}
LISTEN_BUFFER: Final = 4 << 20  # bytes of datagrams that may wait in the kernel while the proxy is busy
UPSTREAM_TIMEOUT: Final = 10_000  # milliseconds without a sign of life, also while connecting
BACKLOG: Final = 512
# <linux/in.h>, <linux/in6.h>; Python has names for some of them only.
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR = 20, 74
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_SO_RCVBUFFORCE: Final = 33
_ORIGINAL: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_RECVORIGDSTADDR),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR),
}
# Plain numbers, as each DNS query needs them all: an enum costs a call in Python wherever it is compared or hashed.
_DATAGRAM: Final = int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_SOL_IP, _SOL_IPV6, _SOL_SOCKET, _SO_MARK = 0, 41, 1, 36

_CACHED: Final = 65536  # addresses whose other form is remembered

_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRINUSE, errno.EAGAIN))


def family_of(address: str) -> socket.AddressFamily:
    """By the look of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@lru_cache(_CACHED)
def packed(address: str) -> bytes:
    """The bytes of an address."""
    return socket.inet_pton(family_of(address), address)


@lru_cache(_CACHED)
def text(address: bytes) -> str:
    """The text of an address."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def allow(count: int) -> None:
    """Let this process have that many descriptors, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listener(
    family: socket.AddressFamily, protocol: Protocol, port: int, *, mark: int, shared: bool = False
) -> socket.socket:
    """Takes what is redirected to this port, for whatever address it was meant. `shared`: with other workers."""
    made = _socket(family, protocol, mark)
    try:
        if protocol is Protocol.TCP:  # on UDP it would let anybody take the port over
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol is Protocol.UDP:
            made.setsockopt(*_ORIGINAL[family], 1)
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, LISTEN_BUFFER)
        made.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        if protocol is Protocol.TCP:
            made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def upstream(
    pod: str, server: tuple[str, int], protocol: Protocol, *, mark: int, patience: int = UPSTREAM_TIMEOUT
) -> socket.socket:
    """A socket from the pod's own address, at a port that the kernel draws, connected (or connecting) to the server.

    Connected, a UDP socket takes the server's packets only, and hears of a server that is not there. `patience`: of
    TCP, in milliseconds without a sign of life; 0 for the kernel's own. OSError where it fails at once.
    """
    made = _socket(family_of(pod), protocol, mark)
    try:
        if protocol is Protocol.TCP:
            made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        made.bind((pod, 0))
        failed = made.connect_ex(server)
        if failed not in (0, errno.EINPROGRESS):
            raise OSError(failed, os.strerror(failed))
    except OSError:
        made.close()
        raise
    return made


def is_exhausted(error: OSError) -> bool:
    """Whether a socket could not be made because there are too many, rather than because there is no way."""
    return error.errno in _EXHAUSTED


def _socket(family: socket.AddressFamily, protocol: Protocol, mark: int) -> socket.socket:
    is_ipv6 = family == socket.AF_INET6
    made = socket.socket(family, _DATAGRAM if protocol == Protocol.UDP else _STREAM)
    try:
        if is_ipv6:
            made.setsockopt(_SOL_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            made.setsockopt(_SOL_IP, _IP_TRANSPARENT, 1)
        made.setsockopt(_SOL_SOCKET, _SO_MARK, mark)
    except OSError:
        made.close()
        raise
    return made
