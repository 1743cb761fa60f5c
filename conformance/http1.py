"""A keep-alive HTTP/1.1 connection out of a pod: what curl cannot do, ask again later on the same connection.

The socket is made inside the pod's network namespace and used from here.
"""

from __future__ import annotations

import asyncio
import socket
import time

import httptools

from conformance import netns
from conformance.expectation import Answer, Reaction
from conformance.scenario import Request

READ_SIZE = 1 << 16
CHUNK = 7  # small and odd, so that a chunked body has several chunks


class ResponseReader:
    """Collects one response from httptools' callbacks. `is_head`: it answers a HEAD, and so has no body whatever its
    headers say."""

    def __init__(self, *, is_head: bool = False) -> None:
        self.complete = False
        self._is_head = is_head
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises httptools.HttpParserError on what is no HTTP."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.complete = True  # 101: what follows is no HTTP any more

    def answer(self) -> Answer:
        status = self._parser.get_status_code()
        return Answer(Reaction.ANSWERED, status, self.body.decode("utf-8", "replace"), tuple(self.headers))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.complete = self._is_head

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


class LiveConnection:
    """One connection. After anything but an answer it is dead."""

    def __init__(self, sock: socket.socket, authority: str) -> None:
        self._sock = sock
        self._authority = authority
        self.opened_at = time.monotonic()

    @classmethod
    async def open(cls, namespace: str, local: tuple[str, int], remote: tuple[str, int]) -> LiveConnection:
        """Connect from `local` to `remote` (address, port). Raises OSError."""
        family = socket.AF_INET6 if ":" in remote[0] else socket.AF_INET
        sock = netns.socket_in(namespace, family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind(local)
            await asyncio.get_running_loop().sock_connect(sock, remote)
        except BaseException:
            sock.close()
            raise
        return cls(sock, authority(*remote))

    @property
    def client_port(self) -> int:
        port: int = self._sock.getsockname()[1]
        return port

    async def ask(self, request: Request, timeout: float) -> Answer:
        """Send the request and read its answer; never raises."""
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(request)
        except TimeoutError:
            return Answer(Reaction.TIMEOUT, note=f"no answer within {timeout:g} s")
        except OSError as error:
            return Answer(Reaction.RESET, note=error.strerror or str(error))
        except httptools.HttpParserError as error:
            return Answer(Reaction.FAILED, note=f"not HTTP: {error}")

    async def _exchange(self, request: Request) -> Answer:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._sock, encode(request, self._authority))
        reader = ResponseReader(is_head=request.method == "HEAD")
        while not reader.complete:
            data = await loop.sock_recv(self._sock, READ_SIZE)
            if not data:
                return Answer(Reaction.RESET, note="closed by the peer")
            reader.feed(data)
        return reader.answer()

    def close(self) -> None:
        self._sock.close()


def authority(address: str, port: int) -> str:
    """The host part of a URL: IPv6 in brackets, no default port."""
    host = f"[{address}]" if ":" in address else address
    return host if port == 80 else f"{host}:{port}"


def encode(request: Request, default_host: str) -> bytes:
    """The bytes of a request; a body goes out whole, or in small chunks."""
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {request.host or default_host}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    body = (request.body or "").encode()
    if request.chunked:
        lines.append("Transfer-Encoding: chunked")
        parts = [body[n : n + CHUNK] for n in range(0, len(body), CHUNK)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    elif request.body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
