"""`deflector agent` on the real kernel and with the real Envoy, following an API server: the fake, or a real one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError
from agent.cluster.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES, CILIUM_POLICIES, NODES, PODS
from conformance import netns
from conformance.blueprint import star_wars
from conformance.galaxy import NODE, Galaxy, galaxy
from tests.agent.galaxy import DROPPED, LANDING, PORT, Asker, http_rule, l4_rule
from tests.cluster.planted import planted, reachable
from tests.cluster.stage import Cluster, a_cluster

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(180)]
DEFLECTOR = Path(sys.executable).parent / "deflector"
EMPIRE, ALLIANCE = {"org": "empire"}, {"org": "alliance"}
READY = 60.0


@dataclass
class Story:
    """A galaxy whose node runs an agent. `node_name` is unique, so that a real server may have others."""

    cluster: Cluster
    made: Galaxy
    server: str
    node_name: str
    flags: tuple[str, ...] = ("--start-proxies",)
    agent: subprocess.Popen[bytes] | None = None
    log: list[str] = field(default_factory=list)

    @property
    def api(self) -> ApiServer:
        return self.cluster.api

    @property
    def folders(self) -> tuple[str, ...]:
        return ("--run-dir", str(self.made.run_dir), "--bpffs", str(self.made.bpffs))

    def inside(self, *argv: str) -> list[str]:
        return netns.inside(self.made.namespace(NODE), argv)

    def start(self) -> None:
        config = self.made.folder / "kubeconfig"
        access = self.api.access
        cluster: dict[str, Any] = {"server": self.server}
        if access.authority.path:
            cluster["certificate-authority"] = str(access.authority.path)
        header = access.identity.authorization()
        user = {"token": header.removeprefix("Bearer ")} if header else {}
        text = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
        }
        config.write_text(yaml.safe_dump(text))
        words = ("agent", "--node-name", self.node_name, "--kubeconfig", str(config), "--concurrency", "1")
        with (self.made.folder / "agent.log").open("ab") as log:
            argv = self.inside(str(DEFLECTOR), *words, *self.folders, *self.flags)
            self.agent = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.agent is not None
        self.agent.send_signal(how)
        await asyncio.to_thread(self.agent.wait, 20)
        self.agent = None

    async def run(self, *words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *self.inside(str(DEFLECTOR), *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    async def status(self) -> dict[str, Any]:
        code, out = await self.run("status", "--run-dir", str(self.made.run_dir), "-o", "json")
        try:
            found: dict[str, Any] = json.loads(out)
        except ValueError:
            return {"ready": False, "pending": True, "problems": [out], "code": code}
        return found

    async def ready(self) -> dict[str, Any]:
        deadline = time.monotonic() + READY
        while True:
            assert self.agent is None or self.agent.poll() is None, (self.made.folder / "agent.log").read_text()
            found = await self.status()
            if found["ready"] and not found["pending"]:
                return found
            assert time.monotonic() < deadline, (found["problems"], (self.made.folder / "agent.log").read_text())
            await asyncio.sleep(0.1)

    async def policy(self, *ingress: dict[str, Any]) -> None:
        spec = {"endpointSelector": {"matchLabels": {"class": "deathstar"}}, "ingress": list(ingress)}
        body = {"metadata": {"name": "rule1"}, "spec": spec}
        await self.api.apply(CILIUM_POLICIES, "default", body, manager="kubectl")

    async def ask(self, who: str, request: tuple[str, str], patience: float = 1.0) -> str:
        return await asyncio.to_thread(Asker(self.made).ask, who, request, patience)

    async def within(self, seconds: float, who: str, request: tuple[str, str], wanted: str) -> None:
        began = time.monotonic()
        while (seen := await self.ask(who, request, 0.3)) != wanted:
            assert time.monotonic() - began < seconds, seen
        assert time.monotonic() - began < seconds + 0.3


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    async with a_cluster() as cluster:
        node_name = cluster.namespace
        with galaxy(star_wars(), prefix="agent") as made:
            await cluster.api.create(NODES, "", {"metadata": {"name": node_name}})
            address = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}}
            await cluster.api.patch(NODES, "", node_name, address, subresource="status")
            async with planted(cluster.api, made, node_name), reachable(cluster.api, made) as server:
                told = Story(cluster, made, server, node_name)
                try:
                    told.start()
                    yield told
                finally:
                    if told.agent is not None:
                        await told.stop()
                    with suppress(ApiError):
                        await cluster.api.delete(CILIUM_POLICIES, "default", "rule1")
                    await told.run("bpf", "unload", *told.folders)
                    pid = made.run_dir / "envoy.pid"
                    if pid.exists():
                        os.kill(json.loads(pid.read_text())["pid"], signal.SIGTERM)
            await cluster.api.delete(NODES, "", node_name)


async def test_policy_from_the_api_server_is_enforced_and_survives_both_the_server_and_the_agent(story: Story) -> None:
    found = await story.ready()
    assert {endpoint["name"] for endpoint in found["endpoints"]} >= {"tiefighter", "xwing"}
    assert await story.ask("tiefighter", PORT) != DROPPED  # nobody has a policy yet
    assert await story.ask("xwing", LANDING) == "200"

    await story.policy(http_rule(LANDING, EMPIRE))
    await story.within(1.0, "xwing", LANDING, DROPPED)
    assert await story.ask("tiefighter", LANDING) == "200"
    assert await story.ask("tiefighter", PORT) == "403"
    await story.policy(http_rule(PORT, EMPIRE))
    await story.within(1.0, "tiefighter", LANDING, "403")

    # what other nodes are told
    own = next(endpoint for endpoint in found["endpoints"] if endpoint["name"] == "tiefighter")
    told = await story.api.get(CILIUM_ENDPOINTS, "default", "tiefighter")
    assert told["status"]["identity"]["id"] == own["identity"]
    assert told["status"]["networking"]["node"] == "192.0.2.7"
    identity = await story.api.get(CILIUM_IDENTITIES, "", str(own["identity"]))
    assert identity["security-labels"]["k8s:org"] == "empire"
    assert (await story.status())["enforced_policies"]["CiliumNetworkPolicy default/rule1"] == "2"

    # an agent that ends leaves everything in force; the next one takes over
    await story.stop()
    assert await story.ask("tiefighter", LANDING) == "403"
    assert await story.ask("xwing", LANDING, 0.5) == DROPPED
    story.start()
    await story.ready()
    assert await story.ask("tiefighter", LANDING) == "403"

    # a policy that goes
    await story.api.delete(CILIUM_POLICIES, "default", "rule1")
    await story.within(1.0, "xwing", LANDING, "200")

    # a pod that comes late: another's labels are another identity
    pod = await story.api.get(PODS, "default", "xwing")
    await story.policy(l4_rule(EMPIRE))
    await story.within(1.0, "xwing", LANDING, DROPPED)
    labels = {**pod["metadata"]["labels"], "org": "empire"}
    await story.api.patch(PODS, "default", "xwing", {"metadata": {"labels": labels}})
    await story.within(1.0, "xwing", LANDING, "200")
    await story.api.delete(CILIUM_POLICIES, "default", "rule1")


async def test_a_lost_server_changes_nothing_on_the_node(story: Story) -> None:
    if story.cluster.fake is None:
        pytest.skip("a real server is not ours to stop")
    await story.policy(http_rule(LANDING, EMPIRE))
    await story.ready()
    await story.within(5.0, "xwing", LANDING, DROPPED)
    port = int(story.cluster.fake.url.rpartition(":")[2])
    await story.cluster.fake.go_away()
    async with asyncio.timeout(20):
        while not any("API server" in problem for problem in (await story.status())["problems"]):
            await asyncio.sleep(0.1)
    assert await story.ask("tiefighter", LANDING) == "200"
    assert await story.ask("xwing", LANDING, 0.5) == DROPPED
    await story.stop()  # nor does an agent that starts while there is no server
    story.start()
    await asyncio.sleep(3)
    assert await story.ask("tiefighter", LANDING) == "200"
    assert await story.ask("xwing", LANDING, 0.5) == DROPPED
    await story.cluster.fake.open(port)
    await story.ready()
    await story.policy(http_rule(LANDING, EMPIRE, ALLIANCE))
    await story.within(5.0, "xwing", LANDING, "200")
