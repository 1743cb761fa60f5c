"""HTTP in all its forms through the real Envoy: policy does not change traffic that it allows (law 7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from conformance.bypass import CLOSED
from policies.ir import HttpRule
from tests.features.live import BOUND_S, Origin, origin
from tests.features.world import SLOT, World, world
from tests.xds.asker import ask_http2, ask_http2_streams
from tests.xds.make import rule, slot
from xds import denial
from xds.codec import MAX_HEADERS, NO_HOST
from xds.hcm import connection_manager
from xds.options import Options

HANDSHAKE = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Key: x\r\n\r\n"
EXTENDED = (
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":path", b"/ws"),
    (b":authority", b"h"),
)


@pytest.fixture
async def server() -> AsyncIterator[Origin]:
    async with origin() as one:
        yield one


@pytest.fixture
async def one(tmp_path: Path, server: Origin) -> AsyncIterator[World]:
    async with world(tmp_path, server.port) as made:
        yield made


# -- upgrades ----------------------------------------------------------------------------------------------------------

REFUSALS = {
    "200": b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\nhello",
    "200 chunked": b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "302": b"HTTP/1.1 302 Elsewhere\r\nLocation: /x\r\nContent-Length: 5\r\n\r\nhello",
    "404": b"HTTP/1.1 404 Nothing\r\nContent-Length: 5\r\n\r\nhello",
    "426": b"HTTP/1.1 426 Other\r\nUpgrade: x\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("protocol", [b"websocket", b"WebSocket", b"spdy/3.1"])
async def test_the_answer_to_a_refused_handshake_is_whole(one: World, protocol: bytes, refusal: str) -> None:
    async with origin(REFUSALS[refusal]) as refusing:
        one.origin_port = refusing.port
        await one.apply(rule("GET", "/ws"))
        client = await one.client()
        answer = await client.send(HANDSHAKE % protocol + b"GET /behind HTTP/1.1\r\nHost: h\r\n\r\n", has_body=False)
        assert answer.raw_head.startswith(REFUSALS[refusal].partition(b"\r\n")[0])
        assert (await client.read_until(b"hello")).endswith(b"hello")
        [head] = refusing.heads
        assert b"Upgrade: " + (b"websocket" if protocol == b"WebSocket" else protocol) + b"\r\n" in head


async def test_what_follows_an_accepted_handshake_passes_unread(one: World) -> None:
    async with origin(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n") as ws:
        one.origin_port = ws.port
        await one.apply(rule("GET", "/ws"))
        client = await one.client()
        assert (await client.send(HANDSHAKE % b"websocket")).status == 101
        assert (await client.send(b"DELETE /forbidden\r\n\r\n")).status == 101  # the origin answers anything so
        assert ws.heads[1] == b"DELETE /forbidden\r\n\r\n"


async def test_a_handshake_is_judged_like_any_request(one: World, server: Origin) -> None:
    await one.apply(rule("GET", "/other"))
    assert (await (await one.client()).send(HANDSHAKE % b"websocket")).status == 403
    assert await ask_http2(one.port, EXTENDED) == "403"
    assert server.heads == []


class Http2Origin:
    """Speaks HTTP/2 and knows nothing of WebSocket: answers so, or resets the stream, or leaves."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.asked: list[dict[str, str]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(client_side=False, validate_inbound_headers=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        while data := await reader.read(65536):
            try:
                events = connection.receive_data(data)
            except h2.exceptions.ProtocolError:
                break
            for event in events:
                if isinstance(event, h2.events.RequestReceived):
                    self.asked.append({str(name): str(value) for name, value in event.headers or ()})
                    self._answer(connection, event.stream_id)
            writer.write(connection.data_to_send())
            if self.manner == "leaves":
                break
        writer.close()

    def _answer(self, connection: h2.connection.H2Connection, stream: int) -> None:
        if self.manner == "resets":
            connection.reset_stream(stream, 1)
        elif self.manner != "leaves":
            connection.send_headers(stream, [(":status", self.manner)])
            connection.send_data(stream, b"hello", end_stream=True)


@pytest.mark.parametrize(
    ("manner", "seen"), [("200", "200"), ("302", "302"), ("404", "404"), ("resets", "502"), ("leaves", "503")]
)
async def test_an_extended_connect_that_the_server_does_not_know_is_answered(
    one: World, manner: str, seen: str
) -> None:
    unknowing = Http2Origin(manner)
    server = await asyncio.start_server(unknowing, "127.0.0.1", 0)
    one.origin_port = server.sockets[0].getsockname()[1]
    try:
        await one.apply(rule("GET", "/ws"))
        assert await ask_http2(one.port, EXTENDED) == seen
        assert unknowing.asked[0][":protocol"] == "websocket"
    finally:
        server.close()


@pytest.mark.parametrize("rules", [(rule("GET", "/a"),), (rule(),), (rule("CONNECT"),)], ids=["some", "any", "CONNECT"])
async def test_a_tunnel_is_refused_and_told(one: World, server: Origin, rules: tuple[HttpRule, ...]) -> None:
    await one.apply(*rules)
    refused = await (await one.client()).send(b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n")
    assert (refused.status, refused.body) == (403, denial.NO_TUNNEL_BODY.encode())
    assert await ask_http2(one.port, ((b":method", b"CONNECT"), (b":authority", b"h:80"))) == "403"
    for entry in await one.logged(2):
        assert entry.common_properties.route_name == ""
        assert entry.response.response_code_details == denial.NO_TUNNEL_DETAILS
        assert SLOT.encode() in entry.common_properties.filter_state_objects[denial.SLOT_FILTER_STATE].value
    assert server.heads == []


# -- HTTP/1.0 ----------------------------------------------------------------------------------------------------------


async def test_http_1_0_without_host_is_served_as_if_asked_by_address(one: World, server: Origin) -> None:
    await one.apply(rule("GET", "/a"))
    answer = await (await one.client()).send(b"GET /a HTTP/1.0\r\n\r\n")
    assert answer.raw_head.startswith(b"HTTP/1.0 200 Fine\r\n")
    # On loopback the listener's address is the one that the client has connected to.
    assert server.heads == [f"GET /a HTTP/1.1\r\nhost: 127.0.0.1:{one.port}\r\n\r\n".encode()]


@pytest.mark.parametrize("host", [".*", r"[a-z.-]+", r"no-host\.invalid", ".*invalid", r"(no-host|h)\.invalid|x"])
async def test_no_host_rule_matches_a_request_that_names_none(one: World, server: Origin, host: str) -> None:
    await one.apply(rule("GET", "/a", host=host))
    for request in (b"GET /a HTTP/1.0\r\n\r\n", f"GET /a HTTP/1.0\r\nHost: {NO_HOST}\r\n\r\n".encode()):
        assert (await (await one.client()).send(request)).status == 403
    assert server.heads == []


# -- form and size -----------------------------------------------------------------------------------------------------


async def test_names_and_values_of_headers_come_as_they_were_sent(one: World, server: Origin) -> None:
    await one.apply(rule("GET", "/a"))
    head = b"GET /a HTTP/1.1\r\nhOST: h\r\nX-MiXeD: a  b\r\nx_under: 1\r\nX-Twice: 1\r\nX-Twice: 2\r\nX-Empty: \r\n\r\n"
    answer = await (await one.client()).send(head)
    assert b"\r\nX-Case: Kept\r\n" in answer.raw_head
    assert server.heads == [head]


async def test_many_and_large_headers_pass(one: World, server: Origin) -> None:
    await one.apply(rule("GET", "/a"))
    many = [(f"X-{number}", "v") for number in range(MAX_HEADERS // 2)]
    client = await one.client()
    assert (await client.get("/a", headers=tuple(many))).status == 200
    assert server.heads[-1].count(b"\r\nX-") == len(many)
    assert (await client.get("/a", headers=(("X-Large", "v" * 60_000),))).status == 200
    assert b"v" * 60_000 in server.heads[-1]


async def test_a_malformed_stream_does_not_end_the_others_of_its_connection(one: World, server: Origin) -> None:
    bad = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a"), (b":authority", b"h"), (b"Bad", b"1"))
    good = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/b"), (b":authority", b"h"))
    await one.apply(rule("GET", "/a"))
    assert await ask_http2_streams(one.port, bad, good) == [CLOSED, "403"]
    assert server.heads == []


async def test_the_answer_to_head_and_interim_answers_pass(one: World) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with origin(hints + b"HTTP/1.1 200 Fine\r\nContent-Length: 1000\r\n\r\n") as server:
        one.origin_port = server.port
        await one.apply(rule("HEAD", "/a"))
        client = await one.client()
        answer = await client.get("/a", method="HEAD")
        if answer.status == 103:
            answer = await client.send(b"", has_body=False)
        assert (answer.status, answer.headers["content-length"]) == (200, "1000")


# -- gRPC --------------------------------------------------------------------------------------------------------------


class Hangar(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Two methods, which echo; one of them for as long as it is spoken to."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method.endswith("/Land"):
            return grpc.unary_unary_rpc_method_handler(self._land)
        return grpc.stream_stream_rpc_method_handler(self._talk)

    async def _land(self, message: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-bay", "94"),))
        return message

    async def _talk(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message


async def test_grpc_is_judged_by_method_and_passes_with_its_trailers_and_streams(one: World) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Hangar(),))
    one.origin_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await one.apply(rule("POST", r"/hangar\.Hangar/(Land|Talk)"))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}") as channel:
            landing = channel.unary_unary("/hangar.Hangar/Land")(b"falcon", timeout=BOUND_S)
            assert await landing == b"falcon"
            assert ("x-bay", "94") in tuple(await landing.trailing_metadata())
            talk = channel.stream_stream("/hangar.Hangar/Talk")(timeout=BOUND_S)
            for word in (b"stay", b"on", b"target"):
                await talk.write(word)
                assert await talk.read() == word
            await talk.done_writing()
            assert await talk.read() is grpc.aio.EOF
            with pytest.raises(grpc.aio.AioRpcError) as denied:
                await channel.unary_unary("/hangar.Hangar/Explode")(b"", timeout=BOUND_S)
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert (denied.value.details() or "").strip() == "Access denied"
    finally:
        await server.stop(None)


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_silent_stream_outlives_what_an_idle_timeout_cuts(one: World) -> None:
    """The clock is another listener, equal but for a timeout: when it has cut its stream, ours is asked to go on."""
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await go_on.wait()
        writer.write(b"cd")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one.origin_port = server.sockets[0].getsockname()[1]
    try:
        cut_port = await one.apply(rule("GET", "/a"), control=_impatient)
        streams = [await asyncio.open_connection("127.0.0.1", port) for port in (one.port, cut_port)]
        for reader, writer in streams:
            writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readuntil(b"ab")
        async with asyncio.timeout(BOUND_S):
            assert await streams[1][0].read() == b"", "the control is cut"
            go_on.set()
            assert await streams[0][0].readexactly(2) == b"cd"
        for _, writer in streams:
            writer.close()
    finally:
        server.close()


def _impatient(manager: HttpConnectionManager) -> None:
    manager.stream_idle_timeout.FromMilliseconds(300)


def test_no_timeout_is_left_at_its_default() -> None:
    """Ten idle minutes, or an hour: the configuration says 0, which is never, of each timeout that ends streams."""
    manager = connection_manager(slot(SLOT, rule("GET", "/a")), Options())
    timeouts = [
        manager.stream_idle_timeout,
        manager.request_timeout,
        manager.request_headers_timeout,
        manager.common_http_protocol_options.idle_timeout,
        *(r.route.timeout for r in manager.route_config.virtual_hosts[0].routes if r.HasField("route")),
    ]
    assert [t.ToMilliseconds() for t in timeouts] == [0] * 7
    assert manager.HasField("stream_idle_timeout")
    assert manager.common_http_protocol_options.HasField("idle_timeout")
    assert not manager.common_http_protocol_options.HasField("max_stream_duration")
    assert not manager.common_http_protocol_options.HasField("max_connection_duration")
    for route in manager.route_config.virtual_hosts[0].routes:
        assert route.HasField("direct_response") or route.route.HasField("timeout")
        assert not route.route.HasField("idle_timeout")
        assert not route.route.HasField("max_stream_duration")
        assert not route.route.HasField("retry_policy")
