"""FakeEnvoy: an ADS client that behaves as Envoy does and checks the server's manners on every response.

It subscribes to clusters and listeners, then to the filters that its listeners name; a listener is accepted if its
port can be bound, a filter if its regexes compile. tests/features/test_stories.py tells every story to it and to the
real Envoy, so that the fake is held against the real thing.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grpc
import re2
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from xds.bootstrap import NODE_CLUSTER
from xds.resources import CLUSTER, FILTER, LISTENER

BOUND_S = 10.0

ProtocolName = Literal["delta", "sotw"]


@dataclass
class FakeEnvoy:
    """What the client holds, what it was sent, and what it has refused."""

    protocol: ProtocolName
    node_id: str
    holds: dict[str, dict[str, bytes]] = field(default_factory=lambda: {CLUSTER: {}, LISTENER: {}, FILTER: {}})
    responses: list[Any] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # (type URL, version or resource version)
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    is_deaf: bool = False  # reads nothing more
    _call: Any = None
    _asked: set[str] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Open a stream, ask for everything and answer what comes until the server ends it."""
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        open_stream = stub.DeltaAggregatedResources if self.protocol == "delta" else stub.StreamAggregatedResources
        self._call, self._asked, self.responses = open_stream(), set(), []
        for type_url in (CLUSTER, LISTENER):
            await self._open(type_url)
        if self.holds[LISTENER]:
            await self._follow_listeners()
        nonces: set[str] = set()
        while not self.is_deaf and (response := await self._call.read()) is not grpc.aio.EOF:
            self._check_manners(response, nonces)
            self.responses.append(response)
            await self._answer(response)
            self._changed.set()

    async def _open(self, type_url: str) -> None:
        """The first request of a wildcard type; in delta it claims what is held from an earlier stream."""
        if self.protocol == "delta":
            request: Any = DeltaDiscoveryRequest(type_url=type_url)
            request.initial_resource_versions.update((name, "of an earlier stream") for name in self.holds[type_url])
        else:
            request = DiscoveryRequest(type_url=type_url)
        request.node.id, request.node.cluster = self.node_id, NODE_CLUSTER
        await self._call.write(request)

    async def ask(self, type_url: str, *names: str, drop: tuple[str, ...] = ()) -> None:
        """Subscribe, and give up what is dropped."""
        self._asked = (self._asked | set(names)) - set(drop) if type_url == FILTER else self._asked
        if self.protocol == "delta":
            request = DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names)
            request.resource_names_unsubscribe.extend(drop)
        else:
            last = next((r for r in reversed(self.responses) if r.type_url == type_url), None)
            request = DiscoveryRequest(type_url=type_url, response_nonce=last.nonce if last else "")
            request.resource_names.extend(sorted(self._asked) if type_url == FILTER else ())
        request.node.id, request.node.cluster = self.node_id, NODE_CLUSTER
        await self._call.write(request)

    async def until(self, holds: Callable[[FakeEnvoy], bool]) -> None:
        """Wait, bounded, until it is so."""
        async with asyncio.timeout(BOUND_S):
            while not holds(self):
                await self._changed.wait()
                self._changed.clear()

    def _check_manners(self, response: Any, nonces: set[str]) -> None:
        assert response.type_url in self.holds, "nobody asked for this type"
        assert response.nonce
        assert response.nonce not in nonces, "a nonce is given once per stream"
        nonces.add(response.nonce)
        if self.protocol == "delta":
            assert response.system_version_info
            names = [resource.name for resource in response.resources]
            assert names == sorted(set(names)), "each resource once, in order"
            assert not set(names) & set(response.removed_resources)
            for resource in response.resources:
                assert resource.resource.type_url == response.type_url
                assert (response.type_url, resource.version) not in self.refused, "what was refused is not sent again"
        else:
            assert response.version_info
            assert all(resource.type_url == response.type_url for resource in response.resources)
            assert (response.type_url, response.version_info) not in self.refused, "what was refused is not sent again"

    async def _answer(self, response: Any) -> None:
        """Apply a response resource by resource, as Envoy does, and say what failed."""
        if self.protocol == "delta":
            bodies = {resource.name: resource.resource.value for resource in response.resources}
            removed = set(response.removed_resources)
            versions = [resource.version for resource in response.resources]
        else:
            bodies = {_name(response.type_url, resource.value): resource.value for resource in response.resources}
            removed = set() if response.type_url == FILTER else self.holds[response.type_url].keys() - bodies.keys()
            versions = [response.version_info]
        for name in removed:
            self._drop(response.type_url, name)
        problems = [problem for name, body in bodies.items() if (problem := self._apply(response.type_url, name, body))]
        if problems:
            self.refused += [(response.type_url, version) for version in versions]
        await self._reply(response, problems)
        if response.type_url == LISTENER:
            await self._follow_listeners()

    async def _reply(self, response: Any, problems: list[str]) -> None:
        if self.protocol == "delta":
            reply: Any = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        else:
            names = sorted(self._asked) if response.type_url == FILTER else []
            reply = DiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce, resource_names=names)
            reply.version_info = "" if problems else response.version_info
        if problems:
            reply.error_detail.message = "\n".join(problems)
        await self._call.write(reply)

    async def _follow_listeners(self) -> None:
        """Ask for the filters of the listeners that are there, and give up the others."""
        wanted = set(self.holds[LISTENER])
        if wanted != self._asked:
            await self.ask(FILTER, *sorted(wanted - self._asked), drop=tuple(sorted(self._asked - wanted)))
        for name in self.holds[FILTER].keys() - wanted:
            del self.holds[FILTER][name]

    def _apply(self, type_url: str, name: str, body: bytes) -> str | None:
        """Hold the resource, or say why not."""
        check = {LISTENER: self._bind, FILTER: _check_filter}.get(type_url)
        problem = check(name, body) if check and self.holds[type_url].get(name) != body else None
        if problem is None:
            self.holds[type_url][name] = body
        return problem

    def _drop(self, type_url: str, name: str) -> None:
        self.holds[type_url].pop(name, None)
        if type_url == LISTENER and name in self.sockets:
            self.sockets.pop(name).close()

    def _bind(self, name: str, body: bytes) -> str | None:
        address = Listener.FromString(body).address.socket_address
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address.address, address.port_value))
        except OSError:
            listening.close()
            where = f"{address.address}:{address.port_value}"
            return f"Error adding/updating listener(s) {name}: cannot bind '{where}': Address already in use"
        self._drop(LISTENER, name)
        self.sockets[name] = listening
        return None

    def close(self) -> None:
        for name in list(self.sockets):
            self.sockets.pop(name).close()


def _name(type_url: str, body: bytes) -> str:
    kinds: dict[str, Any] = {LISTENER: Listener, FILTER: TypedExtensionConfig}
    name: str = kinds[type_url].FromString(body).name if type_url in kinds else "cluster"
    return name


def _check_filter(name: str, body: bytes) -> str | None:
    config = RBAC.FromString(TypedExtensionConfig.FromString(body).typed_config.value)
    for pattern in re.findall(r'regex: "(.*)"', str(config)):
        try:
            re2.compile(pattern.encode().decode("unicode_escape"))
        except re2.error as failed:
            return failed.args[0].decode()  # Envoy does not name the filter either
    return None


@asynccontextmanager
async def fake_envoy(
    socket_path: Path, protocol: ProtocolName, node_id: str, envoy: FakeEnvoy | None = None
) -> AsyncIterator[FakeEnvoy]:
    """A FakeEnvoy connected to the server on that socket; give an earlier one to see it reconnect."""
    envoy = envoy or FakeEnvoy(protocol, node_id)
    async with grpc.aio.insecure_channel(f"unix:{socket_path}") as channel, asyncio.TaskGroup() as group:
        running = group.create_task(_until_ended(envoy, channel))
        try:
            yield envoy
        finally:
            running.cancel()


async def _until_ended(envoy: FakeEnvoy, channel: grpc.aio.Channel) -> None:
    """Run; a server that goes away ends it, as it ends Envoy's stream."""
    try:
        await envoy.run(channel)
    except grpc.aio.AioRpcError:
        return
