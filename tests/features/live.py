"""The real Envoy under test, on loopback: a process, its ADS server, an origin server and an HTTP client.

Connections on loopback are not redirected, so `on_loopback` takes from listeners what only redirection makes possible
(privileged tests and the conformance suite run them whole).
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import grpc
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.filters.network.set_filter_state.v3.set_filter_state_pb2 import Config as SetFilterState
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc

from xds.bootstrap import NODE_CLUSTER, bootstrap
from xds.cache import SnapshotCache
from xds.consumer import Consumer
from xds.l7 import DNS_PROXY, KAFKA_PROXY
from xds.resources import LISTENER, Resource, ResourceTable, pack, resource
from xds.server import AdsServicer

ENVOY = Path(sys.prefix) / "lib/python3.11/site-packages/envoy/_bin/envoy"
NODE_ID = "node-under-test"
BOUND_S = 20.0
ANSWER = b"HTTP/1.1 200 Fine\r\nX-Case: Kept\r\nContent-Length: 2\r\n\r\nok"

ProtocolName = Literal["delta", "sotw"]


def on_loopback(table: ResourceTable, origin_port: int | None = None) -> ResourceTable:
    """The table with listeners that serve plain connections on 127.0.0.1: to an origin there, or answering 200."""
    return replace(table, resources=tuple(_plain(r, origin_port) for r in table.resources))


def _plain(one: Resource, origin_port: int | None) -> Resource:
    if one.key.type_url != LISTENER:
        return one
    listener = Listener.FromString(one.body)
    for redirect_only in ("filter_chain_matcher", "transparent", "listener_filters", "socket_options"):
        listener.ClearField(redirect_only)
    del listener.additional_addresses[:]
    listener.address.socket_address.address = "127.0.0.1"
    set_state, manager = listener.filter_chains[0].filters
    if origin_port is None:
        config = HttpConnectionManager.FromString(manager.typed_config.value)
        for route in config.route_config.virtual_hosts[0].routes:
            if route.HasField("route"):
                route.direct_response.status = 200
        manager.typed_config.CopyFrom(pack(config))
    else:
        state = SetFilterState.FromString(set_state.typed_config.value)
        state.on_new_connection[0].format_string.text_format_source.inline_string = f"127.0.0.1:{origin_port}"
        set_state.typed_config.CopyFrom(pack(state))
    return resource(LISTENER, listener, one.refers)


@dataclass
class AccessLogs(als_pb2_grpc.AccessLogServiceServicer):
    """Keeps the entries it is sent, and counts the streams they came on."""

    entries: list[Any] = field(default_factory=list)
    streams: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def StreamAccessLogs(self, requests: AsyncIterator[Any], context: Any) -> Any:
        self.streams += 1
        async for message in requests:
            self.entries += message.http_logs.log_entry
            self.came.set()
        return als_pb2.StreamAccessLogsResponse()

    async def until(self, enough: Callable[[list[Any]], bool]) -> list[Any]:
        async with asyncio.timeout(BOUND_S):
            while not enough(self.entries):
                await self.came.wait()
                self.came.clear()
        return self.entries


@dataclass
class ControlPlane:
    """A real ADS server on a Unix socket, as the agent will run it."""

    socket: Path
    cache: SnapshotCache
    ads: Consumer  # Envoy
    logs: AccessLogs
    dns: Consumer
    kafka: Consumer
    server: grpc.aio.Server

    async def stop(self) -> None:
        """As when the agent dies."""
        await self.server.stop(None)


@asynccontextmanager
async def control_plane(
    run_dir: Path, cache: SnapshotCache | None = None, **options: Any
) -> AsyncIterator[ControlPlane]:
    cache = cache or SnapshotCache()
    ads, logs = Consumer(cache), AccessLogs()
    server = grpc.aio.server()
    dns, kafka = Consumer(SnapshotCache()), Consumer(SnapshotCache())
    servicer = AdsServicer(NODE_ID, {NODE_CLUSTER: ads, DNS_PROXY: dns, KAFKA_PROXY: kafka}, **options)
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(servicer, server)
    als_pb2_grpc.add_AccessLogServiceServicer_to_server(logs, server)
    path = run_dir / "xds.sock"
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield ControlPlane(path, cache, ads, logs, dns, kafka, server)
    finally:
        await server.stop(None)


@dataclass
class LiveEnvoy:
    """A running Envoy."""

    run_dir: Path
    pid: int

    @property
    def log(self) -> str:
        return (self.run_dir / "envoy.log").read_text()

    async def admin(self, path: str) -> str:
        """The body of an admin page."""
        reader, writer = await asyncio.open_unix_connection(str(self.run_dir / "admin.sock"))
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            body = b""
            while b"chunked" in head and (size := int(await reader.readuntil(b"\r\n"), 16)):
                body += (await reader.readexactly(size + 2))[:-2]
            return body.decode() if head.startswith(b"HTTP/1.1 200") else ""
        finally:
            writer.close()

    async def until(self, path: str, holds: Callable[[str], bool]) -> str:
        """Ask an admin page until it says so."""
        page = ""
        async with asyncio.timeout(BOUND_S):
            while not holds(page):
                try:
                    page = await self.admin(path)
                except (ConnectionError, FileNotFoundError):
                    page = ""
                await asyncio.sleep(0.02)
        return page

    async def listeners(self) -> list[str]:
        page = json.loads(await self.admin("/listeners?format=json") or "{}")
        return [status["name"] for status in page.get("listener_statuses", [])]


@asynccontextmanager
async def live_envoy(
    run_dir: Path, xds_socket: Path, protocol: ProtocolName = "delta", *arguments: str, netns: str = ""
) -> AsyncIterator[LiveEnvoy]:
    """An Envoy with our bootstrap, ready; in a network namespace if one is named."""
    config = run_dir / "envoy.json"
    config.write_text(bootstrap(NODE_ID, str(xds_socket), str(run_dir / "admin.sock"), protocol=protocol))
    inside = ["ip", "netns", "exec", netns] if netns else []
    command = [*inside, str(ENVOY), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", *arguments]
    with (run_dir / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        envoy = LiveEnvoy(run_dir, process.pid)
        await envoy.until("/server_info", bool)
        yield envoy
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # lower-case names
    raw_head: bytes
    body: bytes
    is_closed: bool  # the proxy closed the connection after it


class HttpClient:
    """One HTTP/1.1 connection; the bytes are the test's own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> HttpClient:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(
        self, path: str, *, method: str = "GET", host: str = "h", headers: tuple[tuple[str, str], ...] = ()
    ) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
        return await self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), has_body=method != "HEAD")

    async def send(self, request: bytes, *, has_body: bool = True) -> Answer:
        async with asyncio.timeout(BOUND_S):
            self._writer.write(request)
            head = await self._reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
            }
            body = await self._reader.readexactly(int(headers.get("content-length", 0))) if has_body else b""
            is_closed = headers.get("connection") == "close"
        return Answer(int(lines[0].split()[1]), headers, head, body, is_closed)

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(BOUND_S):
            return await self._reader.readuntil(end)

    async def at_end(self) -> bool:
        """Whether the proxy closes the connection (waits for it, bounded)."""
        async with asyncio.timeout(BOUND_S):
            return await self._reader.read(1) == b""

    def close(self) -> None:
        self._writer.close()


@dataclass
class Origin:
    """A server that answers 200 and keeps the heads that it was sent, and who connected."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)


@asynccontextmanager
async def origin(answer: bytes = ANSWER) -> AsyncIterator[Origin]:
    """An origin on a free port of 127.0.0.1."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    async with origin_on(listening, answer) as seen:
        yield seen


@asynccontextmanager
async def origin_on(listening: socket.socket, answer: bytes = ANSWER) -> AsyncIterator[Origin]:
    """An origin on that socket."""
    seen = Origin(listening.getsockname()[1])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.peers.append(writer.get_extra_info("peername")[0])
        try:
            while True:
                seen.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, sock=listening)
    try:
        yield seen
    finally:
        server.close()
