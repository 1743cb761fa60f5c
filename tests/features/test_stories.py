"""Stories between a control plane and a proxy, told four times: to the fake and the real Envoy, in both protocols.

What differs between the tellers is only how one looks into the proxy.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC

from policies.ir import Slot
from tests.fakes.envoy import FakeEnvoy, fake_envoy
from tests.features.live import (
    NODE_ID,
    ControlPlane,
    HttpClient,
    LiveEnvoy,
    control_plane,
    live_envoy,
    on_loopback,
)
from tests.xds.make import node, rule, slot
from xds.acks import AckResult
from xds.cache import SnapshotCache
from xds.resources import FILTER, LISTENER, Key, Resource, ResourceTable, pack, resource
from xds.translator import Options, translate

BOUND_S = 20.0


class Proxy(Protocol):
    """How a story looks into a proxy."""

    async def listeners(self) -> set[str]: ...

    async def rules_of(self, name: str) -> str:
        """Some text in which the paths of the filter's rules stand."""
        ...


class Fake:
    def __init__(self, envoy: FakeEnvoy) -> None:
        self.envoy = envoy

    async def listeners(self) -> set[str]:
        return set(self.envoy.holds[LISTENER])

    async def rules_of(self, name: str) -> str:
        return str(TypedExtensionConfig.FromString(self.envoy.holds[FILTER].get(name, b"")))


class Real:
    def __init__(self, envoy: LiveEnvoy) -> None:
        self.envoy = envoy

    async def listeners(self) -> set[str]:
        return set(await self.envoy.listeners())

    async def rules_of(self, name: str) -> str:
        return await self.envoy.admin(f"/config_dump?resource=ecds_filters&name_regex={name}")


class Teller:
    """Opens proxies of one kind and protocol towards a control plane, and publishes slots to them."""

    def __init__(self, stack: AsyncExitStack, kind: str, run_dir: Path) -> None:
        self.stack, self.run_dir = stack, run_dir
        self.who, self.protocol = kind.split("-")
        self.ports: dict[str, int] = {}
        self.plane: ControlPlane

    async def open_plane(self, cache: SnapshotCache | None = None) -> AsyncExitStack:
        """A control plane on the same socket each time; closing what is returned is its end."""
        stack = AsyncExitStack()
        self.plane = await stack.enter_async_context(control_plane(self.run_dir, cache))
        await self.stack.enter_async_context(stack)
        return stack

    async def open_proxy(self) -> Proxy:
        protocol: Any = self.protocol
        path = self.run_dir / "xds.sock"
        if self.who == "fake":
            return Fake(await self.stack.enter_async_context(fake_envoy(path, protocol, NODE_ID)))
        return Real(await self.stack.enter_async_context(live_envoy(self.run_dir, path, protocol)))

    async def reopen(self, proxy: Proxy) -> Proxy:
        """The proxy after its control plane has come back. Envoy reconnects of its own accord."""
        if isinstance(proxy, Fake):
            protocol: Any = self.protocol
            path = self.run_dir / "xds.sock"
            await self.stack.enter_async_context(fake_envoy(path, protocol, NODE_ID, proxy.envoy))
        return proxy

    def table(self, *slots: Slot) -> ResourceTable:
        ports = {one.name: self.ports.setdefault(one.name, free_port()) for one in slots}
        return on_loopback(translate(node(*slots), ports, Options(ipv6=False)))

    async def publish(self, table: ResourceTable, *names: str) -> AckResult:
        self.plane.cache.publish(table)
        return await self.plane.ads.wait_acked({LISTENER: names, FILTER: names}, BOUND_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def spoiled(table: ResourceTable, name: str) -> ResourceTable:
    """The table with a filter that Envoy cannot accept: a regex that does not compile."""

    def spoil(one: Resource) -> Resource:
        if one.key != Key(FILTER, name):
            return one
        config = RBAC()
        entry = config.matcher.matcher_list.matchers.add()
        single = entry.predicate.single_predicate
        good = RBAC.FromString(TypedExtensionConfig.FromString(one.body).typed_config.value)
        single.input.CopyFrom(good.matcher.matcher_tree.input)
        single.value_match.safe_regex.google_re2.SetInParent()
        single.value_match.safe_regex.regex = "("
        entry.on_match.action.CopyFrom(good.matcher.on_no_match.action)
        return resource(FILTER, TypedExtensionConfig(name=name, typed_config=pack(config)))

    return replace(table, resources=tuple(map(spoil, table.resources)))


async def eventually(ask: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    """Ask until it holds, bounded."""
    async with asyncio.timeout(BOUND_S):
        while not holds(answer := await ask()):
            await asyncio.sleep(0.02)
    return answer


@pytest.fixture(params=["fake-delta", "fake-sotw", "real-delta", "real-sotw"])
async def teller(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Teller]:
    async with AsyncExitStack() as stack:
        told = Teller(stack, request.param, tmp_path)
        await told.open_plane()
        yield told


WEB, API = slot("web", rule("GET", "/web")), slot("api", rule("GET", "/api"))


async def test_slots_arrive_are_edited_and_go(teller: Teller) -> None:
    proxy = await teller.open_proxy()
    assert (await teller.publish(teller.table(WEB, API), "web", "api")).is_complete
    assert await proxy.listeners() == {"web", "api"}
    assert "/web" in await proxy.rules_of("web")
    edited = slot("web", rule("GET", "/edited"))
    assert (await teller.publish(teller.table(edited, API), "web", "api")).is_complete
    assert "/edited" in await proxy.rules_of("web")
    assert (await teller.publish(teller.table(API), "web", "api")).is_complete
    assert await eventually(proxy.listeners, lambda names: names == {"api"})


async def test_nothing_is_told_before_the_first_publish(teller: Teller) -> None:
    proxy = await teller.open_proxy()
    assert await eventually(_is_connected(teller), bool)
    assert await proxy.listeners() == set()
    result = await teller.plane.ads.wait_acked({LISTENER: ["web"], FILTER: ["web"]}, 0.05)
    assert result.missing == {Key(LISTENER, "web"), Key(FILTER, "web")}
    assert (await teller.publish(teller.table(WEB), "web")).is_complete


def _is_connected(teller: Teller) -> Callable[[], Any]:
    async def ask() -> bool:
        return teller.plane.ads.is_connected

    return ask


async def test_a_bad_edit_is_refused_by_name_and_the_last_good_rules_hold(teller: Teller) -> None:
    proxy = await teller.open_proxy()
    await teller.publish(teller.table(WEB, API), "web", "api")
    bad = spoiled(teller.table(slot("web", rule("GET", "/edited")), API), "web")
    result = await teller.publish(bad, "web", "api")
    assert list(result.nacked) == [Key(FILTER, "web")]
    assert "missing )" in result.nacked[Key(FILTER, "web")]
    again = await teller.publish(bad, "web", "api")
    assert again.nacked == result.nacked, "parked: the same content is neither sent nor believed"
    await eventually(lambda: proxy.rules_of("web"), lambda text: "/web" in text)
    mended = await teller.publish(teller.table(slot("web", rule("GET", "/mended")), API), "web", "api")
    assert mended.is_complete
    assert "/mended" in await proxy.rules_of("web")


async def test_a_slot_whose_first_filter_is_bad_has_no_rules_and_the_others_work(teller: Teller) -> None:
    proxy = await teller.open_proxy()
    result = await teller.publish(spoiled(teller.table(WEB, API), "web"), "web", "api")
    assert list(result.nacked) == [Key(FILTER, "web")]
    assert {Key(LISTENER, "api"), Key(FILTER, "api")} <= result.acked
    assert "/web" not in await proxy.rules_of("web")
    if isinstance(proxy, Real):
        client = await eventually(_connect(teller.ports["web"]), lambda found: found is not None)
        assert (await client.get("/web")).status == 403


def _connect(port: int) -> Callable[[], Any]:
    async def ask() -> HttpClient | None:
        with suppress(ConnectionRefusedError):
            return await HttpClient.connect(port)
        return None

    return ask


async def test_a_busy_port_is_refused_by_name_and_a_new_port_mends_it(teller: Teller) -> None:
    proxy = await teller.open_proxy()
    await teller.publish(teller.table(API), "api")
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        teller.ports["web"] = thief.getsockname()[1]
        result = await teller.publish(teller.table(WEB, API), "web", "api")
    assert list(result.nacked) == [Key(LISTENER, "web")]
    assert result.missing == {Key(FILTER, "web")}, "a filter that nobody asks for is not waited for"
    assert await proxy.listeners() == {"api"}
    del teller.ports["web"]
    assert (await teller.publish(teller.table(WEB, API), "web", "api")).is_complete
    assert await proxy.listeners() == {"api", "web"}


async def test_a_new_control_plane_adopts_a_living_proxy(teller: Teller) -> None:
    """Kill the agent: the proxy keeps what it has; its successor says nothing until it knows the world."""
    first = await _replan(teller)
    proxy = await teller.open_proxy()
    await teller.publish(teller.table(WEB), "web")
    await first.aclose()
    assert await proxy.listeners() == {"web"}
    await teller.open_plane(SnapshotCache(epoch=1))
    proxy = await teller.reopen(proxy)
    await eventually(_is_connected(teller), bool)
    assert await proxy.listeners() == {"web"}
    edited = slot("web", rule("GET", "/edited"))
    assert (await teller.publish(teller.table(edited, API), "web", "api")).is_complete
    assert "/edited" in await proxy.rules_of("web")


async def _replan(teller: Teller) -> AsyncExitStack:
    """A control plane that the story may end (the fixture's own would end with the fixture)."""
    await teller.stack.aclose()
    return await teller.open_plane()


async def test_what_is_gone_while_nobody_was_watching_is_removed_on_reconnect(teller: Teller) -> None:
    first = await _replan(teller)
    proxy = await teller.open_proxy()
    await teller.publish(teller.table(WEB, API), "web", "api")
    await first.aclose()
    await teller.open_plane(SnapshotCache(epoch=1))
    proxy = await teller.reopen(proxy)
    assert (await teller.publish(teller.table(API), "api")).is_complete
    await eventually(proxy.listeners, lambda names: names == {"api"})


async def test_a_new_proxy_is_told_everything(teller: Teller) -> None:
    stack, teller.stack = teller.stack, AsyncExitStack()
    await teller.open_proxy()
    await teller.publish(teller.table(WEB, API), "web", "api")
    await teller.stack.aclose()
    await eventually(_is_connected(teller), lambda connected: not connected)
    gone = await teller.plane.ads.wait_acked({LISTENER: ["web", "never was"]}, 0.05)
    assert {key.name for key in gone.missing} == {"web", "never was"}, "nobody knows what is held without a stream"
    teller.stack = stack
    proxy = await teller.open_proxy()
    names = ("web", "api")
    assert (await teller.plane.ads.wait_acked({LISTENER: names, FILTER: names}, BOUND_S)).is_complete
    assert await proxy.listeners() == {"web", "api"}


async def test_a_wait_without_a_proxy_is_bounded_and_names_who_is_missing(teller: Teller) -> None:
    teller.plane.cache.publish(teller.table(WEB))
    result = await teller.plane.ads.wait_acked({LISTENER: ["web"], FILTER: ["web"]}, 0.05)
    assert result.missing == {Key(LISTENER, "web"), Key(FILTER, "web")}
