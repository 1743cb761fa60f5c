"""A node of one slot before one origin, on loopback: what most stories about live traffic need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from policies.ir import HttpRule
from tests.features.live import ControlPlane, HttpClient, LiveEnvoy, control_plane, live_envoy, on_loopback
from tests.features.test_stories import free_port
from tests.xds.make import node, slot
from xds.resources import FILTER, LISTENER, Key, Resource, ResourceTable, pack, resource
from xds.translator import Options, translate

SLOT, CONTROL = "ingress:256:tcp:80", "ingress:256:tcp:81"

ManagerEdit = Callable[[HttpConnectionManager], None]


@dataclass
class World:
    plane: ControlPlane
    envoy: LiveEnvoy
    origin_port: int
    port: int

    async def apply(self, *rules: HttpRule, control: ManagerEdit | None = None) -> int:
        """Serve a slot with these rules, and nothing else.

        `control` asks for a second one that differs in its connection manager only; its port is returned.
        """
        ports = {SLOT: self.port, **({CONTROL: free_port()} if control else {})}
        table = translate(node(*(slot(name, *rules) for name in ports)), ports, Options(ipv6=False))
        assert not table.errors, table.errors
        table = on_loopback(table, self.origin_port)
        self.plane.cache.publish(_edited(table, control) if control else table)
        result = await self.plane.ads.wait_acked({LISTENER: list(ports), FILTER: list(ports)}, 10)
        assert result.is_complete, result
        return ports.get(CONTROL, 0)

    async def client(self) -> HttpClient:
        return await HttpClient.connect(self.port)

    async def logged(self, count: int = 1) -> list[Any]:
        return await self.plane.logs.until(lambda entries: len(entries) >= count)


def _edited(table: ResourceTable, edit: ManagerEdit) -> ResourceTable:
    """The table with the connection manager of CONTROL changed."""

    def changed(one: Resource) -> Resource:
        if one.key != Key(LISTENER, CONTROL):
            return one
        listener = Listener.FromString(one.body)
        filter_ = listener.filter_chains[0].filters[1]
        manager = HttpConnectionManager.FromString(filter_.typed_config.value)
        edit(manager)
        filter_.typed_config.CopyFrom(pack(manager))
        return resource(LISTENER, listener, one.refers)

    return replace(table, resources=tuple(map(changed, table.resources)))


@asynccontextmanager
async def world(run_dir: Path, origin_port: int) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(control_plane(run_dir))
        envoy = await stack.enter_async_context(live_envoy(run_dir, plane.socket))
        yield World(plane, envoy, origin_port, free_port())
