"""The galaxy without any node: CNI and kube-proxy work as in a cluster, and nothing is left or touched."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import netns
from conformance.blueprint import star_wars
from conformance.expectation import Answer, Reaction
from conformance.galaxy import ROOT, Galaxy, galaxy, sweep
from conformance.http1 import LiveConnection
from conformance.probes import Call, Ports, ask
from conformance.scenario import Outcome, Probe, Request
from conformance.target import Target

pytestmark = pytest.mark.privileged
PREFIX = "dflt"
LANDING = Request("POST", "/v1/request-landing")


@pytest.fixture(scope="module")
def made() -> Iterator[Galaxy]:
    with galaxy(star_wars(), prefix=PREFIX) as one:
        yield one


@pytest.fixture(scope="module")
def ports() -> Ports:
    return Ports()


async def send(made: Galaxy, ports: Ports, probe: Probe) -> Answer:
    target = probe.target
    if target.kind == "service":
        address = made.blueprint.service(target.name).address(probe.family)
    else:
        address = made.address(target.name or target.kind, probe.family)
    source = made.address(probe.source, probe.family)
    return await ask(Call(probe, made.namespace(probe.source), (source, ports.take()), (address, target.port)))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("source", ["tiefighter", "xwing", "deathstar-2", "node", "world"])
async def test_everybody_reaches_a_pod_and_is_seen_by_the_own_address(
    made: Galaxy, ports: Ports, source: str, family: int
) -> None:
    probe = Probe(source, Target("pod", "deathstar-1"), Outcome.DIRECT, LANDING, family=family)
    answer = await send(made, ports, probe)
    assert (answer.reaction, answer.status, answer.body) == (Reaction.ANSWERED, 200, "Ship landed\n")
    assert answer.header("x-client") == made.address(source, family)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("source", ["tiefighter", "node"])
async def test_a_cluster_ip_leads_to_every_backend(made: Galaxy, ports: Ports, source: str, family: int) -> None:
    probe = Probe(source, Target("service", "deathstar"), Outcome.DIRECT, Request("GET", "/v1/"), family=family)
    answers = [(await send(made, ports, probe)).body for _ in range(20)]
    for pod in made.blueprint.service("deathstar").backends:
        assert any(pod.name in body for body in answers)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["icmp", "udp"])
async def test_pings_and_datagrams_come_back(made: Galaxy, ports: Ports, protocol: str, family: int) -> None:
    target = Target("pod", "deathstar-1", 7007)
    probe = Probe("xwing", target, Outcome.DIRECT, protocol=protocol, family=family)
    assert (await send(made, ports, probe)).reaction is Reaction.ANSWERED


@pytest.mark.parametrize("request_", [
    Request("HEAD", "/v1/"),
    Request("GET", "/v1/echo//a/../b%2Fc", http="2"),
    Request("POST", "/v1/echo", body="hello", chunked=True, headers=(("X-Ship", "tie"),), host="empire.gov"),
], ids=str)  # fmt: skip
async def test_requests_go_out_exactly_as_written(made: Galaxy, ports: Ports, request_: Request) -> None:
    probe = Probe("tiefighter", Target("service", "deathstar"), Outcome.DIRECT, request_)
    answer = await send(made, ports, probe)
    assert (answer.status, answer.header("x-received")) == (200, f"{request_.method} {request_.path}")


async def test_a_closed_port_is_refused_and_an_empty_address_times_out(made: Galaxy, ports: Ports) -> None:
    closed = Probe("xwing", Target("pod", "deathstar-1", 81), Outcome.DROPPED, LANDING)
    assert (await send(made, ports, closed)).reaction is Reaction.REFUSED
    drop = "table ip t { chain c { type filter hook input priority 0; tcp dport 82 drop; }; }"
    netns.tool(netns.inside(made.namespace("deathstar-2"), ["nft", drop]))
    silent = Probe("xwing", Target("pod", "deathstar-2", 82), Outcome.DROPPED, LANDING)
    assert (await send(made, ports, silent)).reaction is Reaction.TIMEOUT


async def test_a_live_connection_asks_again_and_notices_its_end(made: Galaxy, ports: Ports) -> None:
    local = (made.address("tiefighter", 6), ports.take())
    remote = (made.blueprint.service("deathstar").v6, 80)
    connection = await LiveConnection.open(made.namespace("tiefighter"), local, remote)
    assert [(await connection.ask(LANDING, 2.0)).status for _ in range(3)] == [200, 200, 200]
    goodbye = Request("GET", "/v1/", headers=(("Connection", "close"),))
    assert (await connection.ask(goodbye, 2.0)).status == 200
    assert (await connection.ask(LANDING, 2.0)).reaction is Reaction.RESET
    connection.close()


def outside() -> dict[str, str]:
    """What a galaxy could spoil in the namespace of the machine."""
    commands = {
        "links": "ip -o link",
        "addresses": "ip -o address",
        "routes": "ip route show table all",
        "rules": "ip rule",
        "rules6": "ip -6 rule",
        "nftables": "nft list ruleset",
        "sysctls": "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.tcp_early_demux",
    }
    state = {
        name: subprocess.run(line.split(), capture_output=True, text=True).stdout for name, line in commands.items()
    }
    return {**state, "mounts": "\n".join(line for line in Path("/proc/mounts").open() if f"/{PREFIX}x-" in line)}


def left_over(prefix: str) -> list[str]:
    return netns.existing(f"{prefix}-") + [path.name for path in ROOT.glob(f"{prefix}-*")]


def test_a_galaxy_is_made_quickly_and_goes_without_a_trace() -> None:
    before = outside()
    begun = time.monotonic()
    with galaxy(star_wars(), prefix=f"{PREFIX}x") as one:
        took = time.monotonic() - begun
        assert set(one.namespaces()) <= set(netns.existing(f"{PREFIX}x-"))
        netns.tool(["mount", "-t", "bpf", "bpf", str(one.bpffs)])
        servers = [server.pid for server in one.servers.values()]
    assert took < 2.0
    assert left_over(f"{PREFIX}x") == []
    assert outside() == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in servers)


def test_a_galaxy_is_removed_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), galaxy(star_wars(), prefix=f"{PREFIX}f"):
        raise ZeroDivisionError
    assert left_over(f"{PREFIX}f") == []


OWNER = """
import sys, time
from conformance.blueprint import star_wars
from conformance.galaxy import galaxy
with galaxy(star_wars(), prefix=sys.argv[1]) as one:
    print(one.id, *(server.pid for server in one.servers.values()), flush=True)
    time.sleep(600)
"""


def an_owner(prefix: str) -> tuple[subprocess.Popen[str], str, list[int]]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, prefix], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    name, *servers = owner.stdout.readline().split()
    return owner, name, [int(pid) for pid in servers]


async def test_what_a_killed_owner_leaves_is_swept_and_what_a_living_one_has_is_not() -> None:
    prefix = f"{PREFIX}k"
    killed, dead, servers = an_owner(prefix)
    living, alive, _ = an_owner(prefix)
    try:
        killed.kill()
        killed.wait()
        assert any(name.startswith(f"{dead}-") for name in left_over(prefix))
        assert sweep(prefix) == [dead]
        assert not any(name.startswith(dead) for name in left_over(prefix))
        assert any(name.startswith(f"{alive}-") for name in left_over(prefix))
        async with asyncio.timeout(5):
            while any(is_running(pid) for pid in servers):
                await asyncio.sleep(0.01)
    finally:
        for owner in (killed, living):
            owner.kill()
            owner.wait()
            assert owner.stdout
            owner.stdout.close()
        sweep(prefix)
    assert left_over(prefix) == []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_ctrl_c_removes_the_galaxy() -> None:
    owner, _, _ = an_owner(f"{PREFIX}c")
    owner.send_signal(signal.SIGINT)
    assert owner.wait(timeout=10) != 0
    assert owner.stdout
    owner.stdout.close()
    assert left_over(f"{PREFIX}c") == []
