"""The real Envoy takes what we serve, and does with traffic what we promise."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

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
from xds.acks import AckResult
from xds.resources import FILTER, LISTENER, Key
from xds.translator import Options, translate

ALL_SLOTS = range(26200, 26300)  # proxy ports of these tests


class Node:
    """A control plane, a real Envoy and an origin; policy is published as slots, each on a port of its own."""

    def __init__(self, plane: ControlPlane, envoy: LiveEnvoy, server: Origin) -> None:
        self.plane, self.envoy, self.origin = plane, envoy, server
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
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(control_plane(tmp_path))
        server = await stack.enter_async_context(origin())
        arguments = ("--drain-time-s", "2", "--drain-strategy", "immediate")
        envoy = await stack.enter_async_context(live_envoy(tmp_path, plane.socket, protocol, *arguments))
        yield Node(plane, envoy, server)


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
