"""Probes that speak bytes of their own: raw HTTP, WebSockets, datagrams, ICMP of any type, SCTP.

Sockets are made inside the pod's network namespace and used from here. Each probe ends in an Answer.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import httptools

from conformance import netns
from conformance.expectation import Answer, Reaction
from conformance.http1 import ResponseReader, encode
from conformance.packets import (
    ICMP_PROTOCOL,
    ICMPV6_PROTOCOL,
    SCTP_PROTOCOL,
    icmp_packet,
    sctp_init,
    sctp_payload,
    sctp_ports,
)
from conformance.scenario import Request
from conformance.websocket import FrameError, FrameReader, encode_frame

READ_SIZE = 1 << 16
SWITCHING = 101
ECHO_REQUEST, ECHO_REPLY = 8, 0  # ICMPv4


@dataclass(frozen=True, slots=True)
class Way:
    """From which namespace and address, to which address."""

    namespace: str
    local: tuple[str, int]
    remote: tuple[str, int]

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.remote[0] else socket.AF_INET

    def socket(self, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
        """A non-blocking socket of the namespace. Raises OSError."""
        made = netns.socket_in(self.namespace, self.family, kind, protocol)
        made.setblocking(False)
        return made

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection. Raises OSError.

        The socket is the stream's: whoever else closes it takes the reader of the next descriptor of that number away.
        """
        sock = self.socket(socket.SOCK_STREAM)
        try:
            sock.bind(self.local)
            await asyncio.get_running_loop().sock_connect(sock, self.remote)
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock)


async def say(way: Way, request: Request, authority: str, patience: float) -> Answer:
    """Send the request's raw bytes and read one response."""
    text = request.raw.encode("latin-1") if request.raw else encode(request, authority)
    return await bounded(_exchange(way, text, request.method == "HEAD"), patience)


async def _exchange(way: Way, text: bytes, is_head: bool) -> Answer:
    loop = asyncio.get_running_loop()
    with way.socket(socket.SOCK_STREAM) as sock:
        sock.bind(way.local)
        await loop.sock_connect(sock, way.remote)
        await loop.sock_sendall(sock, text)
        reader = ResponseReader(is_head=is_head)
        while not reader.complete:
            data = await loop.sock_recv(sock, READ_SIZE)
            if not data:
                return Answer(Reaction.RESET, note="closed by the peer")
            reader.feed(data)
        return reader.answer()


async def upgrade(way: Way, request: Request, authority: str, patience: float) -> Answer:
    """A WebSocket handshake, and the request's body there and back in a frame; the answer's body is what came back."""
    return await bounded(_upgrade(way, request, authority), patience)


async def _upgrade(way: Way, request: Request, authority: str) -> Answer:
    loop = asyncio.get_running_loop()
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {request.path} HTTP/1.1", f"Host: {request.host or authority}", "Connection: Upgrade"]
    lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    with way.socket(socket.SOCK_STREAM) as sock:
        sock.bind(way.local)
        await loop.sock_connect(sock, way.remote)
        await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("latin-1"))
        reader = ResponseReader()
        while not reader.complete:
            data = await loop.sock_recv(sock, READ_SIZE)
            if not data:
                return Answer(Reaction.RESET, note="closed by the peer")
            reader.feed(data)
        answer = reader.answer()
        if answer.status != SWITCHING:
            return answer
        await loop.sock_sendall(sock, encode_frame((request.body or "").encode(), os.urandom(4)))
        frames = FrameReader()
        while True:
            data = await loop.sock_recv(sock, READ_SIZE)
            if not data:
                return Answer(Reaction.RESET, note="closed after the handshake")
            for _, payload in frames.feed(data):
                return Answer(Reaction.ANSWERED, answer.status, payload.decode("utf-8", "replace"), answer.headers)


async def datagram(way: Way, patience: float) -> Answer:
    """A UDP datagram and its echo."""
    return await bounded(_datagram(way), patience)


async def _datagram(way: Way) -> Answer:
    loop = asyncio.get_running_loop()
    with way.socket(socket.SOCK_DGRAM) as sock:
        sock.bind(way.local)
        await loop.sock_connect(sock, way.remote)
        await loop.sock_sendall(sock, b"are you there?")
        return Answer(Reaction.ANSWERED, body=(await loop.sock_recv(sock, 100)).decode("utf-8", "replace"))


async def icmp(way: Way, kind: int, patience: float) -> Answer:
    """An ICMP request of this type; answered by the type after it, but for the oldest (RFC 4443, RFC 792)."""
    return await bounded(_icmp(way, kind), patience)


async def _icmp(way: Way, kind: int) -> Answer:
    loop = asyncio.get_running_loop()
    v4 = way.family == socket.AF_INET
    identifier, answer = way.local[1], ECHO_REPLY if v4 and kind == ECHO_REQUEST else kind + 1
    with way.socket(socket.SOCK_RAW, ICMP_PROTOCOL if v4 else ICMPV6_PROTOCOL) as sock:
        sock.bind((way.local[0], 0))
        sock.connect((way.remote[0], 0))  # asks nobody; the loop would look the address up, and fail
        await loop.sock_sendall(sock, icmp_packet(kind, identifier, 4 if v4 else 6))
        while True:
            packet = await loop.sock_recv(sock, READ_SIZE)
            packet = packet[(packet[0] & 0x0F) * 4 :] if v4 else packet
            if packet[0] == answer and int.from_bytes(packet[4:6]) == identifier:
                return Answer(Reaction.ANSWERED)


async def sctp(way: Way, patience: float) -> Answer:
    """An INIT chunk and its INIT ACK (or an ABORT: whatever the other side says)."""
    return await bounded(_sctp(way), patience)


async def _sctp(way: Way) -> Answer:
    loop = asyncio.get_running_loop()
    with way.socket(socket.SOCK_RAW, SCTP_PROTOCOL) as sock:
        sock.bind((way.local[0], 0))
        sock.connect((way.remote[0], 0))
        await loop.sock_sendall(sock, sctp_init(way.local[1], way.remote[1]))
        while True:
            packet = sctp_payload(await loop.sock_recv(sock, READ_SIZE), way.family == socket.AF_INET)
            if sctp_ports(packet) == (way.remote[1], way.local[1]):
                return Answer(Reaction.ANSWERED)


async def bounded(attempt: Coroutine[Any, Any, Answer], patience: float) -> Answer:
    """The answer, or how there was none; never raises."""
    try:
        async with asyncio.timeout(patience):
            return await attempt
    except TimeoutError:
        return Answer(Reaction.TIMEOUT, note=f"no answer within {patience:g} s")
    except ConnectionRefusedError:
        return Answer(Reaction.REFUSED)
    except OSError as error:
        return Answer(Reaction.RESET, note=error.strerror or str(error))
    except (httptools.HttpParserError, FrameError) as error:
        return Answer(Reaction.FAILED, note=f"not what was asked for: {error}")
