"""The real Envoy takes what we serve, and does with traffic what we promise."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.core.v3.base_pb2 import RequestMethod

from policies.ir import Slot, SlotState
from tests.features.live import (
    ControlPlane,
    HttpClient,
    LiveEnvoy,
    Origin,
    ProtocolName,
    control_plane,
    live_envoy,
    on_loopback,
    origin,
)
from tests.xds.make import node, rule, slot
from xds import denial
from xds.access_log import NUMBERED_METHODS
from xds.acks import AckResult
from xds.cache import SnapshotCache
from xds.resources import FILTER, LISTENER, Key, ResourceTable
from xds.translator import Options, translate

ALL_SLOTS = range(26200, 26300)  # proxy ports of these tests


class Node:
    """A control plane, a real Envoy and an origin; policy is published as slots, each on a port of its own."""

    def __init__(
        self, plane: ControlPlane, envoy: LiveEnvoy, server: Origin, stop_plane: Callable[[], Awaitable[None]]
    ) -> None:
        self.plane, self.envoy, self.origin, self.stop_plane = plane, envoy, server, stop_plane
        self.ports: dict[str, int] = {}

    def port(self, name: str) -> int:
        if name not in self.ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.ports[name] = probe.getsockname()[1]
        return self.ports[name]

    async def apply(self, *slots: Slot, wait_for: tuple[str, ...] | None = None, ipv6: bool = False) -> AckResult:
        ports = {one.name: self.port(one.name) for one in slots}
        table = translate(node(*slots), ports, Options(ipv6=ipv6))
        assert not table.errors
        self.plane.cache.publish(on_loopback(table, self.origin.port))
        names = wait_for if wait_for is not None else tuple(ports)
        return await self.plane.ads.wait_acked({LISTENER: names, FILTER: names}, 10)

    async def client(self, name: str) -> HttpClient:
        return await HttpClient.connect(self.port(name))


@pytest.fixture(params=["delta", "sotw"])
async def live(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    protocol: ProtocolName = request.param
    async with AsyncExitStack() as stack, AsyncExitStack() as plane_stack:
        plane = await plane_stack.enter_async_context(control_plane(tmp_path))
        server = await stack.enter_async_context(origin())
        arguments = ("--drain-time-s", "2", "--drain-strategy", "immediate")
        envoy = await stack.enter_async_context(live_envoy(tmp_path, plane.socket, protocol, *arguments))
        yield Node(plane, envoy, server, plane_stack.aclose)


async def test_a_slot_is_delivered_and_judges(live: Node) -> None:
    assert (await live.apply(slot("web", rule("POST", "/v1/request-landing")))).is_complete
    tie = await live.client("web")
    allowed = await tie.get("/v1/request-landing", method="POST", headers=[("Content-Length", "0")])
    denied = await tie.get("/v1/exhaust-port", method="PUT", headers=[("Content-Length", "0")])
    assert (allowed.status, allowed.body) == (200, b"ok")
    assert (denied.status, denied.body, denied.headers["content-type"]) == (403, b"Access denied\r\n", "text/plain")
    assert not denied.is_closed


async def test_an_edit_judges_the_next_request_of_a_live_connection(live: Node) -> None:
    await live.apply(slot("web", rule("GET", "/a")))
    client = await live.client("web")
    assert (await client.get("/a")).status == 200
    assert (await live.apply(slot("web", rule("GET", "/b")))).is_complete
    assert [(await client.get(path)).status for path in ("/a", "/b")] == [403, 200]


async def test_a_retired_slot_denies_and_its_removal_closes(live: Node) -> None:
    await live.apply(slot("web", rule("GET", "/a")))
    client, idle = await live.client("web"), await live.client("web")
    assert (await client.get("/a")).status == 200
    assert (await idle.get("/a")).status == 200
    await live.apply(slot("web", rule("GET", "/a"), state=SlotState.RETIRED))
    assert (await client.get("/a")).status == 403
    gone = await live.apply(wait_for=("web",))
    assert gone.is_complete
    last = await client.get("/a")
    assert (last.status, last.is_closed) == (403, True)
    assert await idle.at_end()
    with pytest.raises(ConnectionRefusedError):
        await live.client("web")


async def test_what_envoy_drains_is_judged_by_the_slots_filter_to_its_end(live: Node) -> None:
    """The listener has gone and the filter has not: allowed for a drained slot, whatever its rules were."""
    drained = slot("web", rule("GET", "/a"), state=SlotState.DRAINED)
    await live.apply(drained)
    client = await live.client("web")
    assert (await client.get("/b")).status == 200
    table = translate(node(drained), {}, Options(ipv6=False))
    live.plane.cache.publish(table)
    assert (await live.plane.ads.wait_acked({LISTENER: ["web"]}, 10)).is_complete
    last = await client.get("/b")
    assert (last.status, last.is_closed) == (200, True)


async def test_a_drained_slot_allows(live: Node) -> None:
    await live.apply(slot("web", rule("GET", "/a")))
    client = await live.client("web")
    await live.apply(slot("web", rule("GET", "/a"), state=SlotState.DRAINED))
    assert (await client.get("/b")).status == 200


async def test_a_busy_port_is_reported_by_name_and_the_others_work(live: Node) -> None:
    await live.apply(slot("old", rule("GET", "/a")))
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        live.ports["bad"] = thief.getsockname()[1]
        result = await live.apply(slot("old", rule("GET", "/a")), slot("bad", rule("GET")), slot("new", rule("GET")))
    assert list(result.nacked) == [Key(LISTENER, "bad")]
    assert "Address already in use" in result.nacked[Key(LISTENER, "bad")]
    assert result.missing == {Key(FILTER, "bad")}
    assert {key.name for key in result.acked} == {"old", "new"}
    assert [(await (await live.client(name)).get("/a")).status for name in ("old", "new")] == [200, 200]
    assert sorted(await live.envoy.listeners()) == ["new", "old"]


async def test_a_new_port_mends_a_refused_listener(live: Node) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        live.ports["web"] = thief.getsockname()[1]
        assert (await live.apply(slot("web", rule("GET")))).nacked
    del live.ports["web"]
    assert (await live.apply(slot("web", rule("GET")))).is_complete
    assert (await (await live.client("web")).get("/")).status == 200


async def test_the_same_world_told_again_touches_no_connection(live: Node, tmp_path: Path) -> None:
    """A new control plane tells everything under other versions; Envoy compares content and leaves it as it is."""
    await live.apply(slot("web", rule("GET", "/a")))
    client = await live.client("web")
    assert (await client.get("/a")).status == 200
    assert live.plane.cache.snapshot is not None
    told_again = SnapshotCache(epoch=7)
    told_again.publish(
        ResourceTable(tuple(r for rs in live.plane.cache.snapshot.by_type.values() for r in rs.values()))
    )
    async with AsyncExitStack() as successor:
        await live.stop_plane()
        plane = await successor.enter_async_context(control_plane(tmp_path, told_again))
        result = await plane.ads.wait_acked({LISTENER: ["web"], FILTER: ["web"]}, 10)
        assert result.is_complete
        answer = await client.get("/a")
        assert (answer.status, answer.is_closed) == (200, False)
        assert "listener_manager.listener_modified: 0" in await live.envoy.admin("/stats?filter=listener_modified")


# -- law: policy does not change traffic that it allows ----------------------------------------------------------------


async def test_the_origin_gets_what_the_client_sent(live: Node) -> None:
    await live.apply(slot("web", rule("GET")))
    client = await live.client("web")
    sent = b"GET /a?x=1 HTTP/1.1\r\nHost: web\r\nX-CaSe: 1\r\nx-request-id: mine\r\nTE: trailers\r\n\r\n"
    answer = await client.send(sent)
    assert live.origin.heads == [sent]
    lines = answer.raw_head.split(b"\r\n")
    assert (lines[0], lines[1]) == (b"HTTP/1.1 200 Fine", b"X-Case: Kept")
    assert set(answer.headers) == {"x-case", "content-length", "date"}


async def test_headers_that_proxies_like_to_write_are_the_clients_own(live: Node) -> None:
    await live.apply(slot("web", rule("GET")))
    own = b"X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\nx-envoy-retry-on: 5xx\r\nVia: me\r\n"
    await (await live.client("web")).send(b"GET /a HTTP/1.1\r\nHost: web\r\n" + own + b"\r\n")
    [head] = live.origin.heads
    for line in (b"X-Forwarded-For: 10.9.9.9", b"X-Forwarded-Proto: https", b"Via: me"):
        assert line + b"\r\n" in head
    assert b"deflector" not in head


async def test_an_unknown_upgrade_is_ignored_and_a_websocket_passes(live: Node) -> None:
    await live.apply(slot("web", rule("GET")))
    ask = b"GET /%s HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
    assert (await (await live.client("web")).send(ask % (b"a", b"h2c"))).status == 200
    assert (await (await live.client("web")).send(ask % (b"b", b"websockets"))).status == 200
    await (await live.client("web")).send(ask % (b"c", b"websocket"))
    assert b"Upgrade" not in live.origin.heads[0]
    assert b"Upgrade" not in live.origin.heads[1]
    assert b"Upgrade: websocket\r\n" in live.origin.heads[2]


@pytest.mark.parametrize(
    ("asked", "judged"), [("/a/../b", "/b"), ("//b", "/b"), ("/./b", "/b"), ("/%62", "/b"), ("/a/%2e%2e/b", "/b")]
)
async def test_paths_are_judged_as_they_are_forwarded(live: Node, asked: str, judged: str) -> None:
    await live.apply(slot("web", rule("GET", judged)))
    assert (await (await live.client("web")).get(asked)).status == 200
    assert live.origin.heads[0].startswith(f"GET {judged} ".encode())


async def test_an_escaped_slash_is_sent_back_unescaped(live: Node) -> None:
    await live.apply(slot("web", rule("GET", "/a/b")))
    answer = await (await live.client("web")).get("/a%2Fb")
    assert (answer.status, answer.headers["location"]) == (307, "/a/b")


@pytest.mark.parametrize("path", [b"/a\xff", b"/a?\xff", b"/a\x01", b"/a\x0b", b"/a\rb", b"/a b"])
async def test_no_path_has_bytes_that_a_prefix_and_its_regex_read_differently(live: Node, path: bytes) -> None:
    """`/a.*` is looked up as a prefix: equal to the regex only where no newline and no broken UTF-8 gets through."""
    await live.apply(slot("web", rule("GET", "/a.*")))
    answer = await (await live.client("web")).send(b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.status == 400
    assert live.origin.heads == []


async def test_a_line_that_ends_early_is_http_0_9_and_judged_without_the_rest(live: Node) -> None:
    await live.apply(slot("web", rule("GET", "/a.*")))
    answer = await (await live.client("web")).send(b"GET /a\nb HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (answer.status, answer.is_closed) == (200, True)
    [head] = live.origin.heads
    assert head == f"GET /a HTTP/1.1\r\nhost: 127.0.0.1:{live.port('web')}\r\n\r\n".encode()


async def test_a_denial_of_policy_is_told_from_other_refusals(live: Node) -> None:
    await live.apply(slot("web", rule("GET", "/a")))
    malformed = await (await live.client("web")).send(b"GET /a HTTP/1.1\r\n\r\n")
    assert malformed.status == 400
    assert malformed.body != denial.BODY.encode()


# -- what the access log says ------------------------------------------------------------------------------------------


def ended(entries: list[Any]) -> list[Any]:
    """The entries of exchanges that are over; others are written while one lasts (docs/decisions/0003)."""
    return [entry for entry in entries if not entry.common_properties.intermediate_log_entry]


async def test_an_allowed_request_is_logged_with_its_slot_and_its_rule(live: Node) -> None:
    await live.apply(slot("web", rule("GET", r"/a(\?.*)?")))
    client = await live.client("web")
    await client.get("/a?q=1", headers=[("traceparent", "00-1-2-03"), ("X-Forwarded-For", "10.1.2.3")])
    entries = await live.plane.logs.until(lambda seen: len(ended(seen)) == 1)
    for entry in entries:
        assert entry.common_properties.route_name == "web"
        assert entry.request.path == "/a?q=1"
        assert entry.request.request_headers["traceparent"] == "00-1-2-03"
        assert entry.common_properties.downstream_remote_address.socket_address.address == "127.0.0.1"
    [end] = ended(entries)
    rbac = end.common_properties.metadata.filter_metadata[denial.METADATA_NAMESPACE]
    assert rbac[denial.METADATA_RESULT] == "allowed"
    assert rbac[denial.METADATA_POLICY].startswith("rule:")
    assert end.response.response_code.value == 200


async def test_a_request_that_lasts_is_logged_before_it_ends(live: Node) -> None:
    async with origin(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nslow") as slow:
        live.origin = slow
        await live.apply(slot("web", rule("GET", "/a")))
        _, writer = await asyncio.open_connection("127.0.0.1", live.port("web"))
        writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        entries = await live.plane.logs.until(bool)
        assert ended(entries) == []
        assert entries[0].common_properties.route_name == "web"
        assert entries[0].request.path == "/a"
        writer.close()


async def test_a_denied_request_is_logged_once_with_its_reason(live: Node) -> None:
    await live.apply(slot("web", rule("GET", "/a")))
    await (await live.client("web")).get("/b")
    [entry] = await live.plane.logs.until(bool)
    assert entry.common_properties.route_name == "web"
    assert entry.response.response_code_details == denial.DETAILS_PREFIX + denial.DENY + denial.DETAILS_SUFFIX
    rbac = entry.common_properties.metadata.filter_metadata[denial.METADATA_NAMESPACE]
    assert (rbac[denial.METADATA_RESULT], rbac[denial.METADATA_POLICY]) == ("denied", denial.DENY)


@pytest.mark.parametrize(
    "ask", [b"OPTIONS * HTTP/1.1\r\nHost: h", b"GET /a HTTP/1.1", b"CONNECT h:80 HTTP/1.1\r\nHost: h:80"]
)
async def test_a_request_without_a_route_is_logged_with_its_slot(live: Node, ask: bytes) -> None:
    await live.apply(slot("web", rule(path="/a")))
    await (await live.client("web")).send(ask + b"\r\n\r\n")
    [entry] = await live.plane.logs.until(bool)
    assert entry.common_properties.route_name == ""
    assert b"web" in entry.common_properties.filter_state_objects[denial.SLOT_FILTER_STATE].value


@pytest.mark.parametrize(
    ("method", "number", "text"),
    [*((method, method, "") for method in NUMBERED_METHODS), ("PROPFIND", "METHOD_UNSPECIFIED", "PROPFIND")],
)
async def test_each_request_is_logged_once_with_its_method(live: Node, method: str, number: str, text: str) -> None:
    await live.apply(slot("web", rule(method, "/a")))
    client = await live.client("web")
    for path in ("/a", "/b"):
        await client.get(path, method=method, headers=[("Content-Length", "0")])
    entries = await live.plane.logs.until(lambda seen: len(seen) >= 2)
    assert [(entry.request.path, entry.common_properties.route_name) for entry in entries] == [
        ("/a", "web"),
        ("/b", "web"),
    ]
    for entry in entries:
        assert RequestMethod.Name(entry.request.request_method) == number
        assert entry.request.request_headers.get(":method", "") == text


async def test_all_listeners_share_one_log_stream(live: Node) -> None:
    await live.apply(*(slot(name, rule("GET")) for name in ("one", "two", "three")))
    for name in ("one", "two", "three"):
        await (await live.client(name)).get("/")
    await live.plane.logs.until(lambda seen: len(seen) >= 3)
    assert live.plane.logs.streams == 1


# -- other forms of HTTP -----------------------------------------------------------------------------------------------


async def test_trailers_and_interim_responses_pass(live: Node) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer += b"2\r\nok\r\n0\r\nx-t: 1\r\n\r\n"
    async with origin(answer) as chunked:
        live.origin = chunked
        await live.apply(slot("web", rule("POST")))
        client = await live.client("web")
        ask = b"POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
        assert (await client.send(ask)).status == 100
        assert b"Expect: 100-continue\r\n" in chunked.heads[0]
        assert (await client.read_until(b"\r\nx-t: 1\r\n\r\n")).endswith(b"2\r\nok\r\n0\r\nx-t: 1\r\n\r\n")


async def test_http_1_0_is_served(live: Node) -> None:
    await live.apply(slot("web", rule("GET", "/a")))
    answer = await (await live.client("web")).send(b"GET /a HTTP/1.0\r\nHost: h\r\n\r\n")
    assert answer.status == 200


async def test_h2c_stays_h2c(live: Node) -> None:
    await live.apply(slot("web", rule("POST", "/pkg.Ships/Land")))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{live.port('web')}") as channel:
        with suppress(grpc.aio.AioRpcError):  # the origin speaks no HTTP/2; that it is spoken to so is what matters
            await channel.unary_unary("/pkg.Ships/Land")(b"", timeout=2)
    assert live.origin.heads[0].startswith(b"PRI * HTTP/2.0")


async def test_a_denied_grpc_call_is_told_so_in_its_own_words(live: Node) -> None:
    await live.apply(slot("web", rule("POST", "/pkg.Ships/Land")))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{live.port('web')}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as denied:
            await channel.unary_unary("/pkg.Ships/Explode")(b"", timeout=5)
    assert denied.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert live.origin.heads == []
