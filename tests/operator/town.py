"""A cluster with operators and with nodes that report, for stories: on the fake server, or on a real one."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from agent.cluster import resources
from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError
from agent.cluster.node_report import Fault, report, version_of
from agent.cluster.reporter import Reporter
from agent.cluster.resources import (
    CILIUM_CLUSTER_POLICIES,
    CILIUM_POLICIES,
    DEFLECTOR_NODES,
    NETWORK_POLICIES,
    NODES,
    Resource,
)
from agent.operator.collector import GarbageTimes
from agent.operator.leases import Timing
from agent.operator.operator import Operator
from agent.operator.settings import OperatorSettings
from policies.objects import ObjectKey
from tests.cluster.stage import Cluster, a_cluster

FAST = Timing(duration=2.0, renew=1.5, retry=0.2)
POLICIES = (CILIUM_POLICIES, CILIUM_CLUSTER_POLICIES, NETWORK_POLICIES)
Raw = dict[str, Any]


def policy(name: str, path: str = "/v1/request-landing", **spec: Any) -> Raw:
    rules = {"http": [{"method": "POST", "path": path}]}
    ports = [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": rules}]
    ingress = [{"fromEndpoints": [{"matchLabels": {"org": "empire"}}], "toPorts": ports}]
    return {
        "metadata": {"name": name},
        "spec": {"endpointSelector": {"matchLabels": {"class": "deathstar"}}, "ingress": ingress, **spec},
    }


@dataclass
class Node:
    """A node that reports what it is told to have realised."""

    name: str
    reporter: Reporter
    versions: dict[str, str] = field(default_factory=dict)

    def realise(
        self, *objects: Raw, faults: Iterable[Fault] = (), problems: Iterable[str] = (), without: Iterable[str] = ()
    ) -> None:
        for obj in objects:
            meta = obj["metadata"]
            key = ObjectKey(obj["kind"], meta.get("namespace", ""), meta["name"])
            self.versions[str(key)] = version_of(meta)
        for name in without:
            del self.versions[name]
        self.reporter.take(report(self.name, self.versions, faults=faults, problems=problems))


@dataclass
class Town:
    """A cluster, and what was made there."""

    cluster: Cluster
    nodes: dict[str, Node] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: f"n{uuid.uuid4().hex[:6]}-")

    @property
    def api(self) -> ApiServer:
        return self.cluster.api

    @property
    def namespace(self) -> str:
        return self.cluster.namespace

    def settings(self, identity: str, **more: Any) -> OperatorSettings:
        defaults = {"install_crds": True, "timing": FAST, "garbage": GarbageTimes(0.3, 0.6, 0.3)}
        return OperatorSettings(self.namespace, identity, **{**defaults, **more})

    @asynccontextmanager
    async def operator(self, identity: str = "leia", **more: Any) -> AsyncIterator[Operator]:
        """One that runs in here."""
        async with self.cluster.session() as server:
            made, stop = Operator(server, self.settings(identity, **more)), asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(made.run(stop))
                try:
                    yield made
                finally:
                    stop.set()
                    await asyncio.wait((running,), timeout=10)

    @asynccontextmanager
    async def some_nodes(self, *names: str) -> AsyncIterator[list[Node]]:
        """Nodes of the cluster whose agents report."""
        there = await self._versions()
        made = [Node(self.prefix + name, Reporter(self.api, "0.0.0"), dict(there)) for name in names]
        async with asyncio.TaskGroup() as tasks:
            running = []
            for node in made:
                await self.api.create(NODES, "", {"metadata": {"name": node.name}})
                running.append(tasks.create_task(node.reporter.run()))
                node.realise()
            try:
                yield made
            finally:
                for task in running:
                    task.cancel()
                for node in made:
                    for resource in (DEFLECTOR_NODES, NODES):
                        with suppress(ApiError):
                            await self.api.delete(resource, "", node.name)

    async def _versions(self) -> dict[str, str]:
        """Policies that are there already: of a real server, somebody else's."""
        found = {}
        for resource in POLICIES:
            page = json.loads(await self.api.list_page(resource, {}))
            for item in page["items"]:
                meta = item["metadata"]
                key = ObjectKey(resource.kind, meta.get("namespace", ""), meta["name"])
                found[str(key)] = version_of(meta)
        return found

    async def clear(self) -> None:
        """Leave nothing behind, also where nobody removes what is in a namespace."""
        for resource in POLICIES:
            if resource.namespaced:
                page = json.loads(await self.api.list_page(resource, {}, self.namespace))
                for item in page["items"]:
                    await self.api.delete(resource, self.namespace, item["metadata"]["name"])

    async def apply(self, body: Raw, resource: Resource = CILIUM_POLICIES) -> Raw:
        return await self.api.apply(resource, self.namespace, body, manager="kubectl")

    async def condition(self, name: str, kind: str, resource: Resource = CILIUM_POLICIES) -> Raw:
        """A condition of a policy; {} if it has none."""
        found = await self.api.get(resource, self.namespace, name)
        conditions = (found.get("status") or {}).get("conditions") or ()
        return next((c for c in conditions if c["type"] == kind), {})

    async def until(
        self,
        name: str,
        kind: str,
        holds: Callable[[Raw], bool],
        seconds: float = 10.0,
        resource: Resource = CILIUM_POLICIES,
    ) -> Raw:
        """The condition once it is so."""
        found: Raw = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.condition(name, kind, resource)
                    if found and holds(found):
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{kind} of {name} is {found}") from None

    async def events(self, name: str, namespace: str = "") -> list[Raw]:
        """What was told of an object."""
        page = json.loads(await self.api.list_page(resources.EVENTS, {"limit": "500"}, namespace or self.namespace))
        return [item for item in page["items"] if (item.get("regarding") or {}).get("name") == name]


@asynccontextmanager
async def a_town(**options: float) -> AsyncIterator[Town]:
    async with a_cluster(**options) as cluster:
        made = Town(cluster)
        try:
            yield made
        finally:
            await made.clear()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(holds: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What an asynchronous question answers once that is true."""
    found = None
    try:
        async with asyncio.timeout(seconds):
            while not (found := await holds()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still {found!r}") from None
    return found
