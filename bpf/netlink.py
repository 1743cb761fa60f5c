"""A small rtnetlink codec and a blocking socket for it. Touches the kernel of the current network namespace.

Why not pyroute2: its synchronous API cannot be used while an asyncio loop runs in the thread (0.9.7 calls
run_until_complete), it costs 22 MB and 150 ms to import, and the agent has a budget for both. We need a dozen messages.
Each call takes well under a millisecond, so the agent may make it from its event loop.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

NETLINK_ROUTE = 0
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12

NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK = 0x1, 0x2, 0x4
NLM_F_ROOT, NLM_F_MATCH, NLM_F_DUMP = 0x100, 0x200, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLM_F_DUMP_INTR = 0x10
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
NLMSGERR_ATTR_MSG = 1

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_GETADDR = 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

RECEIVE_BYTES = 1 << 17  # larger than the kernel's largest dump skb (32 KiB) by far
TIMEOUT_SECONDS = 5.0  # netlink answers at once, or somebody holds the RTNL lock for very long
DUMP_TRIES = 8

HEADER = struct.Struct("=IHHII")


class NetlinkError(OSError):
    """The kernel refused a request. The message names the act and, where the kernel gives one, its reason."""


@dataclass(frozen=True, slots=True)
class Message:
    type: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(inner))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(raw: bytes) -> dict[int, bytes]:
    """Attribute type -> payload; the last of a type wins. A malformed rest is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(raw):
        length, kind = struct.unpack_from("=HH", raw, at)
        if length < 4 or at + length > len(raw):
            break
        found[kind & NLA_TYPE_MASK] = raw[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def zero_terminated(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode(errors="replace")


def messages(raw: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message of a datagram. A malformed rest is left out."""
    at = 0
    while at + HEADER.size <= len(raw):
        length, kind, flags, sequence, _ = HEADER.unpack_from(raw, at)
        if length < HEADER.size or at + length > len(raw):
            return
        yield kind, flags, sequence, raw[at + HEADER.size : at + length]
        at += (length + 3) & ~3


class Netlink:
    """One request at a time. A context manager; cheap enough to open for each piece of work."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def change(self, kind: int, body: bytes, act: str, flags: int = 0) -> None:
        """Send a request that is acknowledged. `act` goes into the error message."""
        self._send(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body)
        for _ in self._receive(act, many=False):
            pass

    def get(self, kind: int, body: bytes, act: str) -> Message:
        """Send a request that is answered by one message."""
        self._send(kind, NLM_F_REQUEST, body)
        for message in self._receive(act, many=False):
            return message
        raise NetlinkError(errno.ENODATA, f"{act}: no answer")

    def dump(self, kind: int, body: bytes, act: str) -> list[Message]:
        """Every object; asks again when the table changed while it was read."""
        for _ in range(DUMP_TRIES):
            self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
            self._interrupted = False
            found = list(self._receive(act, many=True))
            if not self._interrupted:
                return found
        raise NetlinkError(errno.EINTR, f"{act}: the table changed each of {DUMP_TRIES} times that it was read")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0)
        self._socket.send(header + body)

    def _receive(self, act: str, *, many: bool) -> Iterator[Message]:
        while True:
            try:
                raw = self._socket.recv(RECEIVE_BYTES)
            except TimeoutError as error:
                raise NetlinkError(errno.ETIMEDOUT, f"{act}: the kernel did not answer") from error
            for kind, flags, sequence, body in messages(raw):
                if sequence != self._sequence:
                    continue  # the rest of an exchange that failed half-way
                self._interrupted = bool(flags & NLM_F_DUMP_INTR) or getattr(self, "_interrupted", False)
                if kind == NLMSG_ERROR:
                    _raise(flags, body, act)
                    return
                if kind == NLMSG_DONE:
                    code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code < 0:
                        raise NetlinkError(-code, f"{act}: {os.strerror(-code)}")
                    return
                if kind == NLMSG_OVERRUN:
                    raise NetlinkError(errno.ENOBUFS, f"{act}: messages were lost")
                yield Message(kind, body)
                if not many:
                    return


def _raise(flags: int, body: bytes, act: str) -> None:
    code = -struct.unpack_from("=i", body)[0]
    if not code:
        return
    said = ""
    if flags & NLM_F_ACK_TLVS:
        start = 4 + HEADER.size
        if not flags & NLM_F_CAPPED:
            start = 4 + ((struct.unpack_from("=I", body, 4)[0] + 3) & ~3)
        message = attributes(body[start:]).get(NLMSGERR_ATTR_MSG)
        said = f" ({zero_terminated(message)})" if message else ""
    raise NetlinkError(code, f"{act}: {os.strerror(code)}{said}")
