"""Services behind kube-proxy's iptables rules, in both of their kernels' forms, on the real kernel and the real Envoy:
ClusterIP, NodePort and hostPort are judged by who comes and who is behind. (nftables mode is what every suite of
conformance has; ipvs mode needs a kernel with IPVS.)"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance import netns
from conformance.blueprint import NODE_V4, star_wars
from conformance.galaxy import NODE, WORLD, Galaxy, galaxy
from conformance.node import running
from tests.agent.galaxy import DROPPED, LANDING, PORT, http_rule, save
from tests.cluster.kube_proxy import TABLES, Frontend, take_over

pytestmark = pytest.mark.privileged
NODE_PORT, HOST_PORT = 30080, 8888
WORLD_RULE = {"fromEntities": ["world"], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}


@dataclass
class Story:
    made: Galaxy
    restore: str
    service: str

    def proxy(self, *, local: bool) -> None:
        backends = [self.made.address(name, 4) for name in ("deathstar-1", "deathstar-2")]
        frontend = Frontend(self.service, 80, backends, 80, NODE_PORT, HOST_PORT, local)
        take_over(self.made.namespace(NODE), self.restore, frontend)

    async def ask(self, who: str, address: str, port: int, request: tuple[str, str]) -> str:
        url = f"http://{address}:{port}{request[1]}"
        argv = ["curl", "-s", "-m", "1", "-o", "/dev/null", "-w", "%{http_code}", "-X", request[0], url]
        argv = netns.inside(self.made.namespace(who), argv)
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False)
        return done.stdout

    async def settled(self, who: str, address: str, port: int, request: tuple[str, str], wanted: str) -> None:
        async with asyncio.timeout(10):
            while await self.ask(who, address, port, request) != wanted:
                await asyncio.sleep(0.05)


@pytest.fixture(params=TABLES, ids=["iptables-nft", "iptables-legacy"])
async def story(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Story]:
    with galaxy(star_wars(), prefix="proxy") as made:
        [service] = [found for found in made.blueprint.services if found.name == "deathstar"]
        async with running(made):
            yield Story(made, request.param, service.v4)


async def test_a_cluster_address_is_judged_by_who_is_behind_it(story: Story) -> None:
    story.proxy(local=False)
    save(story.made, "land", http_rule(LANDING, {"org": "empire"}))
    await story.settled("xwing", story.service, 80, LANDING, DROPPED)
    for _ in range(4):  # both backends
        assert await story.ask("tiefighter", story.service, 80, LANDING) == "200"
        assert await story.ask("tiefighter", story.service, 80, PORT) == "403"
        assert await story.ask("xwing", story.service, 80, LANDING) == DROPPED


async def test_a_node_port_that_is_masqueraded_is_the_host_and_one_that_is_not_its_client(story: Story) -> None:
    story.proxy(local=False)
    save(story.made, "land", http_rule(LANDING, {"org": "empire"}))
    await story.settled("xwing", story.service, 80, LANDING, DROPPED)
    assert await story.ask(WORLD, NODE_V4, NODE_PORT, LANDING) == "200"  # past every rule, as in Cilium
    netns.tool(
        netns.inside(
            story.made.namespace(NODE),
            [story.restore],
        ),
        "*nat\nCOMMIT\n",
    )
    netns.tool(netns.inside(story.made.namespace(NODE), ["nft", "add", "table", "inet", "kube-proxy"]))
    story.proxy(local=True)
    assert await story.ask(WORLD, NODE_V4, NODE_PORT, LANDING) == DROPPED
    save(story.made, "world", WORLD_RULE)
    await story.settled(WORLD, NODE_V4, NODE_PORT, LANDING, "200")


async def test_a_host_port_is_judged_at_the_pod(story: Story) -> None:
    story.proxy(local=True)
    save(story.made, "land", http_rule(LANDING, {"org": "empire"}))
    await story.settled(WORLD, NODE_V4, HOST_PORT, LANDING, DROPPED)
    save(story.made, "world", WORLD_RULE)
    await story.settled(WORLD, NODE_V4, HOST_PORT, LANDING, "200")
