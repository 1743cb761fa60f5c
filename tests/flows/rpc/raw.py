"""A client that says on HTTP/2 whatever a test wants said, also what no gRPC client would say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, TrailersReceived

from flows.rpc.call import Call, Method
from flows.rpc.framing import framed
from flows.rpc.limits import Limits
from flows.rpc.server import Server

E = TypeVar("E", bound=Event)
BOUND = 10.0  # seconds that a test waits for anything
HEADERS = {":method": "POST", ":scheme": "http", ":authority": "x", "content-type": "application/grpc"}


class Raw:
    """One connection. `events` is all that came so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Event] = []
        self.reader, self.writer = reader, writer
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def ask(self, path: str, body: bytes = framed([b"x"]), *, end: bool = True, **headers: str) -> int:
        """Begin a call; its stream. Underscores in names of headers stand for dashes."""
        stream = self.h2.get_next_available_stream_id()
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        pairs = {":path": path} | HEADERS | {f":{name}" if name == "method" else name: more[name] for name in more}
        self.h2.send_headers(stream, list(pairs.items()), end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def grant(self, size: int, stream: int | None = None) -> None:
        """Take so many more bytes."""
        self.h2.increment_flow_control_window(size, stream)
        self.flush()

    async def hear(self) -> bool:
        """Take in what comes next; False at the end."""
        async with asyncio.timeout(BOUND):
            content = await self.reader.read(1 << 16)
        self.events += self.h2.receive_data(content)
        if not any(isinstance(event, ConnectionTerminated) for event in self.events):
            self.flush()
        return bool(content)

    async def until(self, kind: type[E], matches: Callable[[Any], bool] = lambda event: True) -> E:
        """The first event of a kind, among those that came and those to come."""
        at = 0
        while True:
            for event in self.events[at:]:
                if isinstance(event, kind) and matches(event):
                    return event
            at = len(self.events)
            assert await self.hear(), f"the server left before {kind.__name__}"

    async def status(self, stream: int) -> tuple[str, str]:
        """How a call ended: its grpc-status and the reason."""
        await self.until(StreamEnded, lambda event: event.stream_id == stream)
        found: dict[str, str] = {}
        for event in self.events:
            if isinstance(event, ResponseReceived | TrailersReceived) and event.stream_id == stream:
                found |= {str(name): str(value) for name, value in event.headers or ()}
        return found.get("grpc-status", f"http {found[':status']}"), unquote(found.get("grpc-message", ""))

    async def farewell(self) -> tuple[int, str]:
        """The error code and the reason of GOAWAY."""
        told = await self.until(ConnectionTerminated)
        return int(told.error_code or 0), (told.additional_data or b"").decode()

    def received(self, stream: int) -> int:
        """Bytes that came in a stream so far."""
        kept = [event for event in self.events if isinstance(event, DataReceived) and event.stream_id == stream]
        return sum(len(event.data or b"") for event in kept)


@asynccontextmanager
async def serving(folder: Path, methods: dict[str, Method], **limits: Any) -> AsyncIterator[tuple[Server, Path]]:
    """A server of these methods on a Unix socket."""
    server = Server(methods, Limits(**limits))
    path = folder / "rpc.sock"
    await server.listen(f"unix://{path}")
    try:
        yield server, path
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Raw]:
    """A connection to it."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


async def echo(call: Call) -> None:
    """Answers each message with itself."""
    async for message in call.messages():
        await call.send([message])


async def endless(call: Call) -> None:
    """Sends for as long as it is listened to."""
    await call.message()
    while True:
        await call.send([b"x" * 1000] * 50)


async def patient(call: Call) -> None:
    """Says that it is there, and waits for ever."""
    call.open()
    await asyncio.Event().wait()
