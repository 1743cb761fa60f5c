"""The HTTP server of a deathstar pod, and its UDP echo. Runs alone inside the pod's network namespace; logs nothing.

    python -m conformance.deathstar --pod NAME --port 80 --port 8080 --udp 7007

Speaks HTTP/1.1 (keep-alive, pipelining, chunked bodies) and HTTP/2 with prior knowledge on the same ports. Every
answer tells what arrived: `x-received` is method and target as they came, `x-client` the address of the peer, so that a
probe can prove that what was judged is what was forwarded. Prints one line, `ready`, and dies with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import signal
import sys
from dataclasses import asdict, dataclass
from typing import cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httptools

PR_SET_PDEATHSIG = 1
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 3.4
REASONS = {200: b"OK", 404: b"Not Found", 405: b"Method Not Allowed", 503: b"Service Unavailable"}

EXPLOSION = """Panic: deathstar exploded

goroutine 1 [running]:
main.swallowTorpedo(0xc0000b4000, 0x2)
        /empire/deathstar/exhaust_port.go:2 +0x1f
main.main()
        /empire/deathstar/main.go:77 +0x42
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived; header names keep their case on HTTP/1.1."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    client: str
    version: str
    body_length: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    content_type: str = "text/plain"
    allow: str = ""

    def headers(self, request: Request) -> list[tuple[str, str]]:
        """Header lines in lower case, as both versions may have them."""
        lines = [
            ("content-type", self.content_type),
            ("content-length", str(len(self.body))),
            ("x-received", f"{request.method} {request.target}"),
            ("x-client", request.client),
        ]
        return [*lines, ("allow", self.allow)] if self.allow else lines


ROUTES: dict[str, dict[str, Response]] = {
    "/v1/request-landing": {"POST": Response(200, b"Ship landed\n")},
    "/v1/exhaust-port": {"PUT": Response(503, EXPLOSION.encode())},
}


def answer(pod: str, request: Request) -> Response:
    """What the deathstar says. GET and HEAD of /v1/ tell who it is; below /v1/echo any method tells what arrived."""
    if request.path.startswith("/v1/echo"):
        return _as_json({"pod": pod, **asdict(request)})
    methods = dict(ROUTES.get(request.path, {}))
    if request.path == "/v1/":
        about = _as_json({"name": "Death Star", "pod": pod, "status": "operational"})
        methods = {"GET": about, "HEAD": about}
    if not methods:
        return Response(404, b"These are not the droids you are looking for\n")
    return methods.get(request.method) or Response(405, b"Not allowed here\n", allow=", ".join(sorted(methods)))


def _as_json(value: dict[str, object]) -> Response:
    return Response(200, json.dumps(value).encode() + b"\n", "application/json")


class HttpConnection(asyncio.Protocol):
    """One accepted connection: the first bytes decide between HTTP/1.1 and HTTP/2."""

    def __init__(self, pod: str) -> None:
        self.pod = pod
        self.client = ""
        self.transport: asyncio.Transport | None = None
        self._first = b""
        self._speaker: Http1Speaker | Http2Speaker | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.client = transport.get_extra_info("peername")[0]

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        if self._speaker is None:
            self._first += data
            if len(self._first) < len(HTTP2_PREFACE) and HTTP2_PREFACE.startswith(self._first):
                return
            data, self._first = self._first, b""
            kind = Http2Speaker if data.startswith(HTTP2_PREFACE) else Http1Speaker
            self._speaker = kind(self.pod, self.client, self.transport)
        if not self._speaker.feed(data):
            self.transport.close()


class Http1Speaker:
    """HTTP/1.1 on httptools' parser; its callbacks collect one request at a time."""

    def __init__(self, pod: str, client: str, transport: asyncio.Transport) -> None:
        self._pod, self._client, self._transport = pod, client, transport
        self._parser = httptools.HttpRequestParser(self)
        self._keep = True
        self.on_message_begin()

    def feed(self, data: bytes) -> bool:
        """False when the connection is to be closed."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return False
        return self._keep

    def on_message_begin(self) -> None:
        self._target, self._body_length = b"", 0
        self._headers: list[tuple[str, str]] = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if any(name.lower() == "expect" and "100-continue" in value.lower() for name, value in self._headers):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_length += len(body)

    def on_message_complete(self) -> None:
        request = Request(
            method=self._parser.get_method().decode(),
            target=self._target.decode("latin-1"),
            headers=tuple(self._headers),
            client=self._client,
            version=f"HTTP/{self._parser.get_http_version()}",
            body_length=self._body_length,
        )
        response = answer(self._pod, request)
        self._keep = self._parser.should_keep_alive()
        head = [b"HTTP/1.1 %d %s" % (response.status, REASONS[response.status])]
        head += [f"{name}: {value}".encode("latin-1") for name, value in response.headers(request)]
        if not self._keep:
            head.append(b"connection: close")
        body = b"" if request.method == "HEAD" else response.body
        self._transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)


class Http2Speaker:
    """HTTP/2 with prior knowledge on h2's state machine."""

    def __init__(self, pod: str, client: str, transport: asyncio.Transport) -> None:
        self._pod, self._client, self._transport = pod, client, transport
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._open: dict[int, tuple[list[tuple[str, str]], int]] = {}

    def feed(self, data: bytes) -> bool:
        """False when the connection is to be closed."""
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._transport.write(self._h2.data_to_send())
            return False
        for event in events:
            self._on_event(event)
        self._transport.write(self._h2.data_to_send())
        return not any(isinstance(event, h2.events.ConnectionTerminated) for event in events)

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                headers = [(str(name), str(value)) for name, value in event.headers]  # header_encoding makes them str
                self._open[event.stream_id] = (headers, 0)
            case h2.events.DataReceived():
                headers, length = self._open[event.stream_id]
                self._open[event.stream_id] = (headers, length + len(event.data))
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset():
                self._open.pop(event.stream_id, None)
            case h2.events.StreamEnded():
                self._answer(event.stream_id)

    def _answer(self, stream: int) -> None:
        headers, length = self._open.pop(stream)
        pseudo = {name: value for name, value in headers if name.startswith(":")}
        request = Request(
            method=pseudo.get(":method", ""),
            target=pseudo.get(":path", ""),
            headers=tuple((name, value) for name, value in headers if not name.startswith(":")),
            client=self._client,
            version="HTTP/2",
            body_length=length,
        )
        response = answer(self._pod, request)
        body = b"" if request.method == "HEAD" else response.body
        self._h2.send_headers(stream, [(":status", str(response.status)), *response.headers(request)], not body)
        if body:
            self._h2.send_data(stream, body, end_stream=True)


class UdpEcho(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # 3.11's selector transport is no subclass of it

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


async def serve(pod: str, ports: list[int], udp: int) -> None:
    """Listen on every address of the namespace, IPv4 and IPv6, until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for port in ports:
        for host in ("0.0.0.0", "::"):
            await loop.create_server(lambda: HttpConnection(pod), host, port, backlog=1024)
    await loop.create_datagram_endpoint(UdpEcho, local_addr=("::", udp))  # IPv4 too: nothing sets IPV6_V6ONLY on UDP
    print("ready", flush=True)
    await stop.wait()


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pod", required=True)
    parser.add_argument("--port", type=int, action="append", default=[])
    parser.add_argument("--udp", type=int, required=True)
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.pod, arguments.port, arguments.udp))
    except OSError as error:
        sys.exit(f"deathstar {arguments.pod}: {error}")


if __name__ == "__main__":
    main()
