"""The ADS server's manners towards clients that have none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from tests.fakes.envoy import FakeEnvoy, fake_envoy
from tests.features.live import NODE_ID, ControlPlane, control_plane
from tests.xds.worlds import CDS, ECDS, filters, listeners, table, thing
from xds.bootstrap import NODE_CLUSTER
from xds.cache import SnapshotCache
from xds.consumer import MAX_QUEUED
from xds.resources import LISTENER, ResourceTable, resource

BOUND_S = 10.0


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path, write_timeout_s=0.2) as plane:
        yield plane


@pytest.fixture
async def stub(plane: ControlPlane) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"unix:{plane.socket}") as channel:
        yield ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(BOUND_S):
        return await call.code(), await call.details()


async def test_another_node_is_refused(plane: ControlPlane, stub: Any) -> None:
    plane.cache.publish(table(thing(CDS, "c")))
    call = stub.StreamAggregatedResources()
    request = DiscoveryRequest(type_url=CDS)
    request.node.id = "stranger"
    await call.write(request)
    assert await ended(call) == (grpc.StatusCode.PERMISSION_DENIED, f"node id 'stranger' is not '{NODE_ID}'")
    assert not plane.ads.is_connected


async def test_a_proxy_that_nobody_knows_is_refused(stub: Any) -> None:
    call = stub.DeltaAggregatedResources()
    request = DeltaDiscoveryRequest(type_url=CDS)
    request.node.id, request.node.cluster = NODE_ID, "gate"
    await call.write(request)
    told = f"node cluster 'gate' is none of '{NODE_CLUSTER}', 'dns-proxy', 'kafka-proxy'"
    assert await ended(call) == (grpc.StatusCode.PERMISSION_DENIED, told)


async def test_a_request_without_a_type_is_refused(stub: Any) -> None:
    call = stub.DeltaAggregatedResources()
    request = DeltaDiscoveryRequest()
    request.node.id, request.node.cluster = NODE_ID, NODE_CLUSTER
    await call.write(request)
    assert (await ended(call))[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_newer_stream_replaces_the_older(plane: ControlPlane, stub: Any) -> None:
    plane.cache.publish(table())
    request = DeltaDiscoveryRequest(type_url=CDS)
    request.node.id, request.node.cluster = NODE_ID, NODE_CLUSTER
    older, newer = stub.DeltaAggregatedResources(), stub.DeltaAggregatedResources()
    await older.write(request)
    await older.read()
    await newer.write(request)
    assert (await ended(older))[0] == grpc.StatusCode.ABORTED
    assert (await newer.read()).type_url == CDS
    assert plane.ads.is_connected


async def test_a_client_that_does_not_read_is_disconnected(plane: ControlPlane, stub: Any) -> None:
    """What it was owed is dropped with its stream; the server goes on."""
    call = stub.DeltaAggregatedResources()
    names = [f"f{number}" for number in range(60)]
    await call.write(_asking_for(*names))
    await _until(plane, connected=True)
    plane.cache.publish(table(*filters(**dict.fromkeys(names, "x" * 1000000))))
    await _until(plane, connected=False)
    async with fake_envoy(plane.socket, "delta", NODE_ID) as envoy:
        await envoy.until(lambda e: len(e.responses) == 2)
    assert await _read_out(call) < len(names)
    assert (await ended(call))[0] == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_asks_again_and_again_without_reading_is_disconnected(
    plane: ControlPlane, stub: Any
) -> None:
    plane.cache.publish(table(*filters(f="x" * 100_000)))
    call = stub.DeltaAggregatedResources()
    asked = 0
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        while asked < 5000:
            await call.write(_asking_for("f"))
            asked += 1
    await _until(plane, connected=False)
    assert await _read_out(call) < MAX_QUEUED
    assert (await ended(call))[0] in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


def _asking_for(*names: str) -> DeltaDiscoveryRequest:
    request = DeltaDiscoveryRequest(type_url=ECDS, resource_names_subscribe=names)
    request.node.id, request.node.cluster = NODE_ID, NODE_CLUSTER
    return request


async def _until(plane: ControlPlane, *, connected: bool) -> None:
    async with asyncio.timeout(BOUND_S):
        while plane.ads.is_connected is not connected:
            await asyncio.sleep(0.01)


async def _read_out(call: Any) -> int:
    """Read what was on its way; how many."""
    count = 0
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            count += 1
    return count


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
async def test_streams_come_and_go(plane: ControlPlane, protocol: Any) -> None:
    plane.cache.publish(table(thing(CDS, "c")))
    for _ in range(20):
        async with fake_envoy(plane.socket, protocol, NODE_ID) as envoy:
            await envoy.until(lambda e: len(e.responses) >= 2)
        await _until(plane, connected=False)


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
async def test_what_is_refused_twice_is_left_out_and_the_talk_ends(plane: ControlPlane, protocol: Any) -> None:
    """A client that refuses every listener: newcomers are left out, and nothing is sent until something changes."""

    class Stubborn(FakeEnvoy):
        def _bind(self, name: str, body: bytes) -> str | None:
            return f"{name}: never"

        def _apply(self, type_url: str, name: str, body: bytes) -> str | None:
            return f"{name}: never" if name != "cluster" else None

    envoy = Stubborn(protocol, NODE_ID)
    async with fake_envoy(plane.socket, protocol, NODE_ID, envoy):
        plane.cache.publish(_parsable("a", "b"))
        result = await plane.ads.wait_acked({r.key.type_url: ["a", "b"] for r in listeners(a="")}, BOUND_S)
        assert sorted(key.name for key in result.nacked) == ["a", "b"]
        before = len(envoy.responses)
        plane.cache.publish(_parsable("a", "b"))
        again = await plane.ads.wait_acked({r.key.type_url: ["a", "b"] for r in listeners(a="")}, BOUND_S)
        assert again.nacked == result.nacked
        assert len(envoy.responses) == before


def _parsable(*names: str) -> ResourceTable:
    return table(*(resource(LISTENER, Listener(name=name)) for name in names))


async def test_a_publish_before_anyone_came_is_kept(tmp_path: Path) -> None:
    cache = SnapshotCache()
    cache.publish(table(thing(CDS, "c")))
    async with control_plane(tmp_path, cache) as plane, fake_envoy(plane.socket, "delta", NODE_ID) as envoy:
        await envoy.until(lambda e: len(e.holds[CDS]) == 1)
