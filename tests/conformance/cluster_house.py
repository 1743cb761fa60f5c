"""A cluster that is none: an API server, an agent and an operator as processes, and a galaxy's network namespaces for
pods. What is missing of Kubernetes is played by tests.fakes.kubelet, kubectl by tests.fakes.kubectl."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError
from agent.cluster.resources import NAMESPACES, NODES, PODS, SERVICES
from conformance import netns
from conformance.blueprint import Blueprint
from conformance.galaxy import NODE, Galaxy, galaxy
from tests.cluster.planted import reachable
from tests.cluster.stage import IS_REAL, Cluster, a_cluster
from tests.fakes.kubelet import Kubelet

DEFLECTOR = Path(sys.executable).parent / "deflector"
ROOT = Path(__file__).parents[2]
AGENT = "deflector-agent-x2x4k"
IMAGE = "registry.example/deflector:1.2.3"
Raw = dict[str, Any]


@dataclass
class House:
    """Runs `deflector conformance run` as a user would, with a kubectl of ours."""

    cluster: Cluster
    made: Galaxy
    kubelet: Kubelet
    folder: Path

    @property
    def api(self) -> ApiServer:
        return self.cluster.api

    def argv(self, *words: str) -> list[str]:
        kubectl = ("--kubectl", str(self.folder / "kubectl"))
        return [str(DEFLECTOR), "conformance", "run", *words, "--target", "kubernetes", *kubectl]

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *self.argv(*words), stdout=pipe, stderr=pipe, start_new_session=True
        )

    async def run(self, *words: str) -> tuple[int, str, str]:
        process = await self.start(*words)
        out, complaint = await process.communicate()
        return process.returncode or 0, out.decode(), complaint.decode()

    async def pods(self) -> list[Raw]:
        """All that there are."""
        found: list[Raw] = json.loads(await self.api.list_page(PODS, {}))["items"]
        return found

    async def namespaces(self) -> set[str]:
        """Those of conformance runs."""
        found = json.loads(await self.api.list_page(NAMESPACES, {}))["items"]
        return {raw["metadata"]["name"] for raw in found if raw["metadata"]["name"].startswith("deflector-conf")}


@asynccontextmanager
async def a_house(blueprint: Blueprint, folder: Path) -> AsyncIterator[House]:
    """All of it, ready to be asked; everything ends with the block."""
    async with a_cluster() as cluster:
        with galaxy(blueprint, prefix="dflk") as made:
            for server in made.servers.values():
                server.kill()
                server.wait()
            node = cluster.namespace
            async with _objects(cluster.api, cluster.namespace), reachable(cluster.api, made) as inside:
                kubelet = Kubelet(cluster.api, made, node)
                _write_kubectl(cluster.api, made, folder)
                with _processes(cluster, made, folder, inside):
                    async with asyncio.TaskGroup() as tasks:
                        looking = tasks.create_task(kubelet.run())
                        try:
                            yield House(cluster, made, kubelet, folder)
                        finally:
                            looking.cancel()
                            kubelet.stop()


@asynccontextmanager
async def _objects(api: ApiServer, name: str) -> AsyncIterator[None]:
    """The node, and what the chart installs, as far as it is looked for."""
    labels = {"app.kubernetes.io/name": "deflector", "app.kubernetes.io/component": "agent"}
    spec = {"nodeName": name, "hostNetwork": True, "containers": [{"name": "agent", "image": IMAGE}]}
    await api.create(NODES, "", {"metadata": {"name": name}})
    address = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}}
    await api.patch(NODES, "", name, address, subresource="status")
    await api.create(PODS, name, {"metadata": {"name": AGENT, "labels": labels}, "spec": spec})
    ports = [{"name": "grpc", "port": 80, "targetPort": "grpc"}]
    await api.create(SERVICES, name, {"metadata": {"name": "hubble-relay"}, "spec": {"ports": ports}})
    try:
        yield
    finally:
        for resource, namespace, one in ((SERVICES, name, "hubble-relay"), (PODS, name, AGENT), (NODES, "", name)):
            with suppress(ApiError):
                await api.delete(resource, namespace, one, grace=0)


def _kubeconfig(api: ApiServer, server: str) -> str:
    cluster: Raw = {"server": server}
    if api.access.authority.path:
        cluster["certificate-authority"] = str(api.access.authority.path)
    header = api.access.identity.authorization()
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": header.removeprefix("Bearer ")} if header else {}}],
        }
    )


def _write_kubectl(api: ApiServer, made: Galaxy, folder: Path) -> None:
    """With a real API server, its real kubectl speaks to it: only what needs a kubelet is played."""
    (folder / "outside.yaml").write_text(_kubeconfig(api, api.access.server))
    real = [shutil.which("kubectl"), "--kubeconfig", str(folder / "outside.yaml")] if IS_REAL else None
    pods = {
        pod.name: {"netns": f"/run/netns/{made.namespace(pod.alias)}", "instead": {"python": [sys.executable]}}
        for pod in made.blueprint.local_pods
    }
    agent = {"instead": {"deflector": [str(DEFLECTOR)]}, "also": ["--run-dir", str(made.run_dir)]}
    state = {"server": api.access.server, "real": real, "pods": {**pods, AGENT: agent}}
    (folder / "state.json").write_text(json.dumps({**state, "hubble": str(made.run_dir / "hubble.sock")}))
    script = folder / "kubectl"
    words = f"cd {ROOT} && exec {sys.executable} -m tests.fakes.kubectl {folder / 'state.json'}"
    script.write_text(f'#!/bin/sh\n{words} "$@"\n')
    script.chmod(0o755)


@contextmanager
def _processes(cluster: Cluster, made: Galaxy, folder: Path, inside: str) -> Iterator[None]:
    (folder / "inside.yaml").write_text(_kubeconfig(cluster.api, inside))
    folders = ("--run-dir", str(made.run_dir), "--bpffs", str(made.bpffs))
    agent = ("agent", "--node-name", cluster.namespace, "--kubeconfig", str(folder / "inside.yaml"), *folders)
    operator = ("operator", "--kubeconfig", str(folder / "outside.yaml"), "--namespace", cluster.namespace)
    commands = (
        netns.inside(made.namespace(NODE), [str(DEFLECTOR), *agent, "--start-proxies", "--concurrency", "1"]),
        [str(DEFLECTOR), *operator, "--identity", "test", *(["--install-crds"] if IS_REAL else [])],
    )
    running: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "processes.log").open("ab") as log:
            running += [subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True) for argv in commands]
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(20)
        subprocess.run([*netns.inside(made.namespace(NODE), [str(DEFLECTOR)]), "bpf", "unload", *folders], check=False)
        with suppress(OSError, ValueError):
            os.kill(json.loads((made.run_dir / "envoy.pid").read_text())["pid"], signal.SIGTERM)
