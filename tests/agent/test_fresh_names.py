"""toFQDNs on the real kernel, the real DNS proxy and a running node: what a pod learns is open when it hears of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from conformance.galaxy import Galaxy
from conformance.node import DEFLECTOR, Node, running
from tests.agent.fresh_names import MANY, OTHER, Client, Tries, World, policy, proxy_is_there, world

pytestmark = pytest.mark.privileged

EMPIRE, ALLIANCE = {"org": "empire"}, {"org": "alliance"}


@dataclass
class Story:
    made: Galaxy
    outside: World
    node: Node
    client: Client

    def allow(self, *patterns: str, pods: dict[str, str] | None = None, name: str = "fresh") -> None:
        selectors = [{"matchPattern" if "*" in text else "matchName": text} for text in patterns]
        self.made.manifests.write(f"policy-{name}.yaml", policy(name, selectors, pods or EMPIRE))

    def shown(self, *argv: str) -> str:
        """What a command says of the node."""
        whole = [str(DEFLECTOR), *argv, "--run-dir", str(self.made.run_dir)]
        return subprocess.run(whole, capture_output=True, text=True, check=False).stdout

    def list(self, *options: str) -> Any:
        return json.loads(self.shown("fqdn", "list", "-o", "json", *options))

    def flows(self, *options: str) -> list[dict[str, Any]]:
        argv = [str(DEFLECTOR), "observe", "--server", f"unix://{self.made.run_dir}/hubble.sock", "-o", "json"]
        done = subprocess.run([*argv, *options], capture_output=True, text=True, check=False)
        return [json.loads(line)["flow"] for line in done.stdout.splitlines()]


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    with world() as (made, outside):
        empty = Story(made, outside, Node(made), Client(made))
        empty.allow("a-*.fresh.test")
        async with running(made) as node:
            empty.node = node
            await proxy_is_there(node)
            yield empty
        empty.client.close()


async def test_the_first_packet_is_never_lost(story: Story) -> None:
    tries = Tries()
    await asyncio.to_thread(story.client.run, range(300), tries)
    assert not tries.lost
    assert not tries.refused
    assert len(tries.connected) == 300


async def test_what_nobody_selects_is_answered_and_stays_closed(story: Story) -> None:
    address = await asyncio.to_thread(story.client.ask, 7, "b")
    assert address == "198.18.0.7"
    assert not await asyncio.to_thread(story.client.may, address)
    story.allow("a-*.fresh.test", "b-7.fresh.test")  # a policy that comes later knows it
    await story.node.enforced()
    assert await asyncio.to_thread(story.client.may, address)
    story.allow("a-*.fresh.test")
    await story.node.enforced()
    assert not await asyncio.to_thread(story.client.may, address)


async def test_names_are_listed_with_who_learned_them_and_which_policy_selects_them(story: Story) -> None:
    await asyncio.to_thread(story.client.ask, 7)
    await asyncio.to_thread(story.client.ask, 8, "b")
    (row,) = story.list()["names"]
    assert row["name"] == "a-7.fresh.test."
    assert row["selectors"] == ["a-*.fresh.test"]
    assert row["policies"] == ["CiliumNetworkPolicy default/fresh spec.egress[1]"]
    (address,) = row["addresses"]
    assert (address["address"], address["learned_by"]) == ("198.18.0.7", ["default/tiefighter"])
    assert 0 < address["ttl_left"] <= 61
    assert {row["name"] for row in story.list("--all")["names"]} == {"a-7.fresh.test.", "b-8.fresh.test."}
    assert story.list("--pattern", "*.other.test")["names"] == []
    assert "a-7.fresh.test.  198.18.0.7" in story.shown("fqdn", "list")


async def test_flows_speak_of_names(story: Story) -> None:
    address = await asyncio.to_thread(story.client.ask, 7)
    made, _ = await asyncio.to_thread(story.client.connect, address)
    made.close()
    for _ in range(100):
        found = story.flows("--to-fqdn", "a-7.fresh.test", "--type", "policy-verdict")
        if found:
            break
        await asyncio.sleep(0.05)
    assert found[0]["destination_names"] == ["a-7.fresh.test"]
    assert "fqdn:a-*.fresh.test" in found[0]["destination"]["labels"]


async def test_kill_9_of_the_agent_closes_nothing_and_opens_nothing(story: Story) -> None:
    """Neither while it is away, nor when the next one comes; a connection is tried all the while."""
    address = await asyncio.to_thread(story.client.ask, 7)
    closed = await asyncio.to_thread(story.client.ask, 7, "b")
    assert address == closed == "198.18.0.7"  # two names of one address, one of them open
    other = await asyncio.to_thread(story.client.ask, 8, "b")
    tried, lost, over = 0, 0, asyncio.Event()

    async def try_on() -> None:
        nonlocal tried, lost
        while not over.is_set():
            made, again = await asyncio.to_thread(story.client.connect, address)
            made.close()
            tried, lost = tried + 1, lost + bool(again)
            assert not await asyncio.to_thread(story.client.may, other, 0.02)

    async with asyncio.TaskGroup() as group:
        group.create_task(try_on())
        await asyncio.sleep(0.2)
        await story.node.kill()
        away = await asyncio.to_thread(story.client.ask, 7)
        assert away == address, "what is known is answered while the agent is away"
        assert await asyncio.to_thread(story.client.ask, 9) == "", "what is new is withheld"
        await story.node.start()
        assert await asyncio.to_thread(story.client.ask, 10) == "198.18.0.10"
        over.set()
    assert not lost
    assert tried > 10
    assert [row["name"] for row in story.list()["names"]][:1] == ["a-10.fresh.test."]
    assert "a-7.fresh.test." in [row["name"] for row in story.list()["names"]]


async def test_a_policy_that_changes_while_the_agent_is_away_holds_for_what_was_learned(story: Story) -> None:
    address = await asyncio.to_thread(story.client.ask, 7)
    other = await asyncio.to_thread(story.client.ask, 8)
    await story.node.kill()
    story.allow("a-8.fresh.test")
    await story.node.start()
    assert not await asyncio.to_thread(story.client.may, address)
    assert await asyncio.to_thread(story.client.may, other)


async def test_one_pod_learns_for_all_whose_policy_selects_the_name(story: Story) -> None:
    story.allow("a-*.fresh.test", pods=ALLIANCE, name="others")
    await story.node.enforced()
    address = await asyncio.to_thread(story.client.ask, 7)
    other = Client(story.made, OTHER)
    assert await asyncio.to_thread(other.may, address)
    other.close()


async def test_or_for_itself_alone(story: Story) -> None:
    """Where that is asked for: replicas share neither."""
    await story.node.stop()
    story.node.flags = ("--fqdn-sharing", "endpoint")
    story.allow("a-*.fresh.test", pods={"io.kubernetes.pod.namespace": "default"})
    await story.node.start()
    await proxy_is_there(story.node)
    address = await asyncio.to_thread(story.client.ask, 7)
    other = Client(story.made, OTHER)
    assert await asyncio.to_thread(story.client.may, address)
    assert not await asyncio.to_thread(other.may, address)
    await story.node.kill()
    await story.node.start()
    assert await asyncio.to_thread(story.client.may, address)
    assert not await asyncio.to_thread(other.may, address)
    assert await asyncio.to_thread(other.ask, 7) == address
    assert await asyncio.to_thread(other.may, address)
    (row,) = story.list()["names"]
    assert row["addresses"][0]["learned_by"] == ["default/tiefighter", "default/xwing"]
    other.close()


async def test_the_status_counts(story: Story) -> None:
    await asyncio.to_thread(story.client.ask, 7)
    status = await story.node.status()
    assert status is not None
    assert status["names"]["held"] == 1
    assert status["names"]["refused"] == 0
    assert "1 addresses" in story.shown("status")


async def test_at_its_bound_a_pod_is_told_so_and_others_are_not_touched(story: Story) -> None:
    """20,000 addresses of selected names, sixty to a name: then answers are withheld, and a flow says why."""
    story.allow("m-*.fresh.test", pods=EMPIRE)
    story.allow("m-*.fresh.test", pods=ALLIANCE, name="others")
    await story.node.enforced()

    def fill() -> int:
        return next(number for number in range(1000) if not story.client.ask(number, "m"))

    assert await asyncio.to_thread(fill) == 20_000 // MANY
    assert await asyncio.to_thread(story.client.may, "198.18.0.9"), "nothing was given up for it"
    other = Client(story.made, OTHER)
    address = await asyncio.to_thread(other.ask, 900, "m")
    assert await asyncio.to_thread(other.may, address)
    other.close()
    withheld = story.flows("--type", "l7", "--verdict", "ERROR", "--last", "5")
    assert withheld
    assert "m-333.fresh.test." in {flow["l7"]["dns"]["query"] for flow in withheld}


async def test_nothing_is_left_behind(story: Story) -> None:
    await asyncio.to_thread(story.client.ask, 7)
    assert await story.node.stop() == []
    assert not (story.made.run_dir / "names.journal").exists()
    await story.node.start()
