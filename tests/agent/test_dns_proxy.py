"""A pod asks a nameserver through the DNS proxy of a running node: judged, shown, and living its own life."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from conformance import netns
from conformance.blueprint import Blueprint, DnsName, Host, Pod
from conformance.galaxy import Galaxy, galaxy
from conformance.node import DEFLECTOR, Node, running

pytestmark = pytest.mark.privileged

PATIENCE = 15.0
ASKER, RESOLVER = "asker", "resolver"
ALLOWED, PATTERN, DENIED = "www.empire.example", "api.empire.example", "www.alliance.example"
TOWN = Blueprint(
    "dnstown",
    (
        Pod(ASKER, ASKER, (("org", "empire"),), "10.244.0.11", "fd00:10:244::b"),
        Pod(RESOLVER, RESOLVER, (("k8s-app", "dns"),), "10.244.0.12", "fd00:10:244::c", resolves=True),
    ),
    hosts=(Host("there", "203.0.113.7", "2001:db8::7"),),
    names=tuple(DnsName(name, ("there",), ttl=60) for name in (ALLOWED, PATTERN, DENIED)),
)
RULES = ({"matchName": ALLOWED}, {"matchPattern": "api.*.example"})


def policy(*rules: dict[str, str]) -> str:
    ports = [{"port": "53", "protocol": "ANY"}]
    peer = {
        "toEndpoints": [{"matchLabels": {"k8s-app": "dns"}}],
        "toPorts": [{"ports": ports, "rules": {"dns": rules}}],
    }
    spec = {"endpointSelector": {"matchLabels": {"org": "empire"}}, "egress": [peer]}
    body = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "spec": spec}
    return yaml.safe_dump({**body, "metadata": {"name": "dns", "namespace": "default"}})


@dataclass
class Story:
    made: Galaxy
    node: Node

    def dig(self, name: str, *options: str, family: int = 4) -> str:
        """The code that dig got, or TIMEOUT."""
        argv = ["dig", "+tries=1", "+time=2", *options, f"@{self.made.address(RESOLVER, family)}", name]
        done = subprocess.run(
            netns.inside(self.made.namespace(ASKER), argv), capture_output=True, text=True, check=False
        )
        return (
            next((w.rstrip(",") for w in done.stdout.split("status: ")[1].split()[:1]), "")
            if done.returncode == 0
            else "TIMEOUT"
        )

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while True:
            status = await self.node.status()
            if status is not None and condition(status):
                return status
            assert time.monotonic() < end, (status, self.node.log_tail())
            await asyncio.sleep(0.02)

    async def pid(self) -> int:
        status = await self.until(lambda status: status["proxies"]["dns-proxy"]["connected"])
        return int(status["proxies"]["dns-proxy"]["pid"])

    def flows(self, *filters: str) -> list[dict[str, Any]]:
        argv = [str(DEFLECTOR), "observe", "--run-dir", str(self.made.run_dir), "-o", "json", "--last", "50", *filters]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return [json.loads(line)["flow"] for line in done.stdout.splitlines()]

    async def seen(self, *filters: str, count: int = 1) -> list[dict[str, Any]]:
        end = time.monotonic() + PATIENCE
        while len(found := self.flows(*filters)) < count:
            assert time.monotonic() < end, found
            await asyncio.sleep(0.05)
        return found


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    with galaxy(TOWN, prefix="dns") as made:
        made.manifests.write("policy-dns.yaml", policy(*RULES))
        async with running(made) as node:
            story = Story(made, node)
            await story.until(lambda status: not status["problems"] and status["proxies"]["dns-proxy"]["connected"])
            yield story
            assert await node.stop() == []


async def test_what_a_pod_may_ask_and_how_it_is_shown(story: Story) -> None:
    for family in (4, 6):
        for options in ([], ["+tcp"]):
            assert story.dig(ALLOWED, *options, family=family) == "NOERROR"
            assert story.dig(PATTERN, *options, family=family) == "NOERROR"
            assert story.dig(DENIED, *options, family=family) == "REFUSED"
    asked, answered = [
        next(flow for flow in await story.seen("--protocol", "dns") if flow["l7"]["type"] == kind)
        for kind in ("REQUEST", "RESPONSE")
    ]
    assert asked["verdict"] == answered["verdict"] == "FORWARDED"
    assert asked["l7"]["dns"] == {"query": f"{ALLOWED}.", "observation_source": "proxy", "qtypes": ["A"]}
    assert answered["l7"]["dns"]["ips"] == ["203.0.113.7"]
    assert answered["l7"]["dns"]["rrtypes"] == ["A"]
    assert (asked["source"]["pod_name"], asked["destination"]["pod_name"]) == (ASKER, RESOLVER)
    assert (answered["source"]["pod_name"], answered["is_reply"]) == (RESOLVER, True)
    assert asked["traffic_direction"] == "EGRESS"
    assert asked["Summary"] == f"DNS Query {ALLOWED}. A"
    assert asked["egress_allowed_by"][0]["name"] == "dns"
    denied = (await story.seen("--protocol", "dns", "--verdict", "DROPPED"))[0]
    assert denied["l7"]["dns"]["query"] == f"{DENIED}."
    assert any("none of 2 DNS rules" in line for line in denied["policy_log"]), denied["policy_log"]


async def test_rules_change_under_a_pod_that_asks(story: Story) -> None:
    assert story.dig(DENIED) == "REFUSED"
    story.made.manifests.write("policy-dns.yaml", policy({"matchName": DENIED}))
    await story.node.enforced()
    assert (story.dig(DENIED), story.dig(ALLOWED)) == ("NOERROR", "REFUSED")
    story.made.manifests.remove("policy-dns.yaml")
    await story.node.enforced()
    assert story.dig(ALLOWED) == "NOERROR"
    status = await story.until(lambda status: not status["slots"])
    assert not status["proxies"]["dns-proxy"]["needed"]


async def test_names_are_asked_while_no_agent_runs_and_the_next_one_hears_of_it(story: Story) -> None:
    pid = await story.pid()
    await story.node.kill()
    assert [story.dig(name) for name in (ALLOWED, PATTERN, DENIED)] == ["NOERROR", "NOERROR", "REFUSED"]
    await story.node.start()
    assert await story.pid() == pid, "adopted"
    queries = {flow["l7"]["dns"]["query"] for flow in await story.seen("--protocol", "dns", count=5)}
    assert queries == {f"{name}." for name in (ALLOWED, PATTERN, DENIED)}
    assert story.dig(ALLOWED) == "NOERROR"


async def test_a_proxy_that_is_killed_comes_back_and_until_then_nothing_passes(story: Story) -> None:
    pid = await story.pid()
    os.kill(pid, signal.SIGKILL)
    assert story.dig(DENIED, "+time=1") in ("TIMEOUT", "REFUSED")
    status = await story.until(
        lambda s: s["proxies"]["dns-proxy"]["pid"] not in (pid, None) and s["proxies"]["dns-proxy"]["connected"]
    )
    assert status["proxies"]["dns-proxy"]["restarts"] == 1
    assert (story.dig(ALLOWED), story.dig(DENIED)) == ("NOERROR", "REFUSED")


async def test_agent_and_proxy_die_and_the_proxy_alone_goes_on_from_its_disk(story: Story) -> None:
    pid = await story.pid()
    await story.node.kill()
    os.kill(pid, signal.SIGKILL)
    argv = [str(DEFLECTOR), "dns-proxy", "--run-dir", str(story.made.run_dir), "--node-name", TOWN.name]
    alone = await asyncio.create_subprocess_exec(
        *netns.inside(story.made.namespace("node"), argv), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert alone.stderr is not None
        async with asyncio.timeout(PATIENCE):
            assert b"going on with 2 slots" in await alone.stderr.readline()
            assert (story.dig(ALLOWED), story.dig(DENIED)) == ("NOERROR", "REFUSED")
            alone.terminate()
            assert await alone.wait() == 0
    finally:
        if alone.returncode is None:
            alone.kill()
            await alone.wait()
    await story.node.start()
    await story.pid()
    assert story.dig(ALLOWED) == "NOERROR"


async def test_a_proxy_may_do_what_it_needs_and_no_more(story: Story) -> None:
    status = Path(f"/proc/{await story.pid()}/status").read_text()
    held = {line.split(":")[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")}
    assert held["CapEff"] == held["CapPrm"] == 1 << 12 | 1 << 13
    assert held["CapInh"] == held["CapAmb"] == 0
    assert "NoNewPrivs:\t1" in status


async def test_workers_share_the_queries_and_end_together(story: Story) -> None:
    """The one that is told leads; whoever has started them starts all anew when one is lost."""
    pid = await story.pid()
    await story.node.kill()
    os.kill(pid, signal.SIGKILL)
    argv = [
        str(DEFLECTOR),
        "dns-proxy",
        "--run-dir",
        str(story.made.run_dir),
        "--node-name",
        TOWN.name,
        "--workers",
        "2",
    ]
    leader = await asyncio.create_subprocess_exec(
        *netns.inside(story.made.namespace("node"), argv), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert leader.stderr is not None
        async with asyncio.timeout(PATIENCE):
            assert b"going on with 2 slots" in await leader.stderr.readline()
            for options in ([], ["+tcp"]):
                found = {(story.dig(ALLOWED, *options), story.dig(DENIED, *options)) for _ in range(8)}
                assert found == {("NOERROR", "REFUSED")}
            (follower,) = Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text().split()
            os.kill(int(follower), signal.SIGKILL)
            assert await leader.wait() == 2
            assert b"a worker has ended" in await leader.stderr.read()
    finally:
        if leader.returncode is None:
            leader.kill()
            await leader.wait()
    await story.node.start()
    await story.pid()
