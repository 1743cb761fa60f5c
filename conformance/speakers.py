"""The HTTP speakers of a deathstar: HTTP/1.1 with WebSockets, HTTP/2 with gRPC, on one port.

Sans-io but for the transport that they write to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httptools

from conformance.answers import REASONS, TALLIED, Request, Response, answer, grpc_status
from conformance.websocket import CLOSE, FrameError, FrameReader, accept_key, encode_frame

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 3.4


Tally = Counter[str]


@dataclass(frozen=True, slots=True)
class Witness:
    """Who is asked, by whom, and how often for what: `tally` is the pod's, over all its connections."""

    pod: str
    client: str
    tally: Tally

    def answer(self, request: Request) -> Response:
        if request.path.startswith(TALLIED):
            self.tally[request.target] += 1
        return answer(self.pod, request, self.tally[request.target])


class HttpConnection(asyncio.Protocol):
    """One accepted connection: the first bytes decide between HTTP/1.1 and HTTP/2."""

    def __init__(self, pod: str, tally: Tally | None = None) -> None:
        self.pod = pod
        self.client = ""
        self._tally = tally if tally is not None else Counter()
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
            self._speaker = kind(Witness(self.pod, self.client, self._tally), self.transport)
        if not self._speaker.feed(data):
            self.transport.close()


class Http1Speaker:
    """HTTP/1.1 on httptools' parser; its callbacks collect one request at a time. After an upgrade it echoes frames."""

    def __init__(self, witness: Witness, transport: asyncio.Transport) -> None:
        self._witness, self._transport = witness, transport
        self._parser = httptools.HttpRequestParser(self)
        self._keep = True
        self._frames: FrameReader | None = None
        self.on_message_begin()

    def feed(self, data: bytes) -> bool:
        """False when the connection is to be closed."""
        if self._frames is not None:
            return self._echo(self._frames, data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._frames is not None:
                return self._echo(self._frames, data[upgrade.args[0] :])
            return self._refuse()
        except httptools.HttpParserError:
            return self._refuse()
        return self._keep

    def _refuse(self) -> bool:
        self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        return False

    def _echo(self, frames: FrameReader, data: bytes) -> bool:
        try:
            for opcode, payload in frames.feed(data):
                self._transport.write(encode_frame(payload, opcode=opcode))
                if opcode == CLOSE:
                    return False
        except FrameError:
            return False
        return True

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
            client=self._witness.client,
            version=f"HTTP/{self._parser.get_http_version()}",
            body_length=self._body_length,
        )
        key = next((value for name, value in request.headers if name.lower() == "sec-websocket-key"), "")
        if key and self._parser.should_upgrade():
            self._upgrade(request, key)
            return
        response = self._witness.answer(request)
        self._keep = self._parser.should_keep_alive()
        head = [b"HTTP/1.1 %d %s" % (response.status, REASONS[response.status])]
        head += [f"{name}: {value}".encode("latin-1") for name, value in response.headers(request)]
        if not self._keep:
            head.append(b"connection: close")
        body = b"" if request.method == "HEAD" else response.body
        self._transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)

    def _upgrade(self, request: Request, key: str) -> None:
        lines = ["HTTP/1.1 101 Switching Protocols", "connection: upgrade", "upgrade: websocket"]
        lines += [f"sec-websocket-accept: {accept_key(key)}"]
        lines += [f"{name}: {value}" for name, value in request.receipt()]
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._frames = FrameReader()


class Http2Speaker:
    """HTTP/2 with prior knowledge on h2's state machine."""

    def __init__(self, witness: Witness, transport: asyncio.Transport) -> None:
        self._witness, self._transport = witness, transport
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._open: dict[int, tuple[list[tuple[str, str]], bytes]] = {}

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
                self._open[event.stream_id] = (headers, b"")
            case h2.events.DataReceived():
                headers, body = self._open[event.stream_id]
                self._open[event.stream_id] = (headers, body + event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset():
                self._open.pop(event.stream_id, None)
            case h2.events.StreamEnded():
                self._answer(event.stream_id)

    def _answer(self, stream: int) -> None:
        headers, received = self._open.pop(stream)
        pseudo = {name: value for name, value in headers if name.startswith(":")}
        request = Request(
            method=pseudo.get(":method", ""),
            target=pseudo.get(":path", ""),
            headers=tuple((name, value) for name, value in headers if not name.startswith(":")),
            client=self._witness.client,
            version="HTTP/2",
            body_length=len(received),
        )
        if any(name == "content-type" and value.startswith("application/grpc") for name, value in headers):
            self._call(stream, request, received)
            return
        response = self._witness.answer(request)
        body = b"" if request.method == "HEAD" else response.body
        self._h2.send_headers(stream, [(":status", str(response.status)), *response.headers(request)], not body)
        if body:
            self._h2.send_data(stream, body, end_stream=True)

    def _call(self, stream: int, request: Request, message: bytes) -> None:
        """gRPC: the message comes back as it came, in its own framing, and the status in trailers."""
        head = [(":status", "200"), ("content-type", "application/grpc"), *request.receipt()]
        self._h2.send_headers(stream, head)
        status = grpc_status(request)
        if not status:
            self._h2.send_data(stream, message)
        self._h2.send_headers(stream, [("grpc-status", str(status))], end_stream=True)
