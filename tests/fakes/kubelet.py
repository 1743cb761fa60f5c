"""What a cluster has beside an API server, for pods that are network namespaces of a galaxy: a scheduler, a kubelet, an
endpoint controller, kube-proxy, and what empties namespaces. As little of each as conformance needs.

A galaxy is made beforehand; a pod of some name is taken to be the one of the galaxy that has it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError
from agent.cluster.resources import (
    CILIUM_POLICIES,
    ENDPOINT_SLICES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    SERVICES,
    Resource,
)
from conformance import netns
from conformance.blueprint import Pod, Service
from conformance.galaxy import NODE, Galaxy
from conformance.objects import service_objects
from conformance.service_proxy import ruleset

LABEL = "deflector.io/conformance-run"
OURS = "deflector-conformance-"
EMPTIED = (PODS, SERVICES, ENDPOINT_SLICES, CILIUM_POLICIES, NETWORK_POLICIES)
POLL = 0.05
Raw = dict[str, Any]


class Kubelet:
    """Looks at all objects again and again. `run` until it is cancelled; then `stop`."""

    def __init__(self, api: ApiServer, made: Galaxy, node_name: str) -> None:
        self._api, self._made, self._node_name = api, made, node_name
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._served: dict[str, Service] = {}
        self.seen_images: set[str] = set()

    async def run(self) -> None:
        while True:
            try:
                await self._look()
            except ApiError as error:
                if not (error.is_missing or error.is_conflict):
                    raise
            await asyncio.sleep(POLL)

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    async def _look(self) -> None:
        await self._empty()
        for raw in await self._list(SERVICES):
            await self._serve(raw)
        pods = [raw for raw in await self._list(PODS) if LABEL in raw["metadata"].get("labels", {})]
        for name in self._running.keys() - {raw["metadata"]["name"] for raw in pods}:
            self._running.pop(name).kill()
        for raw in pods:
            await self._host(raw)

    async def _empty(self) -> None:
        """Namespaces of runs that are to go: with all that is in them. The fake server has let them go at once."""
        spaces = {raw["metadata"]["name"]: raw for raw in await self._list(NAMESPACES)}
        going = {name for name, raw in spaces.items() if raw["metadata"].get("deletionTimestamp")}
        for resource in EMPTIED:
            for raw in await self._list(resource):
                meta = raw["metadata"]
                is_ours = meta["namespace"].startswith(OURS)
                if is_ours and (meta["namespace"] not in spaces or meta["namespace"] in going):
                    await self._api.delete(resource, meta["namespace"], meta["name"], grace=0)
        for name in sorted(going):
            if name.startswith(OURS):
                await self._api.update(NAMESPACES, "", {**spaces[name], "spec": {"finalizers": []}}, "finalize")

    async def _list(self, resource: Resource) -> list[Raw]:
        found: list[Raw] = json.loads(await self._api.list_page(resource, {}))["items"]
        return found

    async def _serve(self, raw: Raw) -> None:
        """A service gets addresses; its backends, and rules that lead to them, too."""
        meta = raw["metadata"]
        if LABEL not in meta.get("labels", {}) or meta["uid"] in self._served:
            return
        (planned,) = [one for one in self._made.blueprint.services if one.name == meta["name"]]
        if not raw["spec"].get("clusterIP"):
            addresses = {"clusterIP": planned.v4, "clusterIPs": [planned.v4, planned.v6]}
            await self._api.patch(SERVICES, meta["namespace"], meta["name"], {"spec": addresses})
            return
        addresses = raw["spec"]["clusterIPs"]
        v4 = next(address for address in addresses if ":" not in address)
        v6 = next((address for address in addresses if ":" in address), planned.v6)
        service = replace(planned, namespace=meta["namespace"], v4=v4, v6=v6)
        for made in list(service_objects(service))[1:]:
            for endpoint in made["endpoints"]:
                endpoint["targetRef"]["namespace"] = meta["namespace"]
            await self._api.create(ENDPOINT_SLICES, meta["namespace"], made)
        self._served[meta["uid"]] = service
        inside = netns.inside(self._made.namespace(NODE), ["nft", "-f", "-"])
        netns.tool(inside, ruleset(self._served.values()))

    async def _host(self, raw: Raw) -> None:
        meta = raw["metadata"]
        if meta["name"] in self._running:
            return
        (pod,) = [one for one in self._made.blueprint.local_pods if one.name == meta["name"]]
        if not raw["spec"].get("nodeName"):
            await self._bind(meta)
            return
        self._start(pod, raw["spec"]["containers"][0])
        status = {
            "phase": "Running",
            "podIP": pod.v4,
            "podIPs": [{"ip": pod.v4}, {"ip": pod.v6}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        await self._api.patch(PODS, meta["namespace"], meta["name"], {"status": status}, subresource="status")

    async def _bind(self, meta: Raw) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": self._node_name}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
        bindings = Resource("", "v1", "Binding", "bindings")
        try:
            await self._api.patch(PODS, meta["namespace"], meta["name"], {"spec": {"nodeName": self._node_name}})
        except ApiError:  # a real server lets nobody but a scheduler say so
            await self._api.create(bindings, meta["namespace"], body)

    def _start(self, pod: Pod, container: Raw) -> None:
        self.seen_images.add(container["image"])
        argv = [sys.executable if word == "python" else word for word in container["command"]]
        self._running[pod.name] = process = subprocess.Popen(
            netns.inside(self._made.namespace(pod.alias), argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        if pod.serves:
            assert process.stdout.readline() == b"ready\n"  # as a startup probe would find out
