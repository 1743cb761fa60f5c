"""Queries through the DNS proxy per second of one core, and what it adds to a query at half that load.

A pod asks two nameservers that are the same program with the same zone: one behind DNS rules, one that an L4 rule
allows. The proxy runs as in production: every query and answer is told to the agent, which keeps flows of them.

Load, server and agent need more of the machine than the proxy does, and what else runs on it takes its share. So what
one core gives (`dns_qps`) is queries per second of CPU time that the proxy's process spends, user and system, under
load, on a core that load and agent keep off. `dns_through_qps` is what came through by the clock, all on the cores that
there are; half of that is the half load: what is added near the most that goes through is the length of a queue.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.dns_load import DOMAIN, NAMES, name
from benchmarks.errors import NotMeasured
from benchmarks.node import Node, deflector
from benchmarks.samples import in_turns, median
from benchmarks.stage import PREFIX, Stage
from benchmarks.usage import cpu_us
from conformance import netns
from conformance.blueprint import Blueprint, DnsName, Host, Pod
from conformance.galaxy import Galaxy, galaxy
from conformance.manifests import policy_file

ASKER, JUDGED, PLAIN = "asker", "judged", "plain"
WINDOW = 32  # queries on their way
COUNT = 30_000
PACED = 15_000
ROUNDS = 5
TIMEOUT = 60.0
FIRST = -20  # niceness of load and servers, which stand for other machines: they do not wait for the agent on its core
_POD = Pod(ASKER, ASKER, (("app", ASKER),), "10.244.0.11", "fd00:10:244::b")
TOWN = Blueprint(
    "dns",
    (
        _POD,
        *(
            replace(_POD, alias=alias, name=alias, labels=(("app", alias),), v4=v4, v6=v6, resolves=True)
            for alias, v4, v6 in (
                (JUDGED, "10.244.0.12", "fd00:10:244::c"),
                (PLAIN, "10.244.0.13", "fd00:10:244::d"),
            )
        ),
    ),
    hosts=(Host("there", "203.0.113.7", "2001:db8::7"),),
    names=tuple(DnsName(name(number), ("there",)) for number in range(NAMES)),
)


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    with galaxy(TOWN, prefix=PREFIX) as made:
        made.manifests.write(policy_file("dns"), _policy())
        with deflector(made) as node:
            node.await_status(lambda status: not status["problems"] and _proxy(status)["connected"], "told", TIMEOUT)
            return _measure(stage, made, node)


def _measure(stage: Stage, made: Galaxy, node: Node) -> dict[str, float]:
    status = node.status()
    assert status is not None
    proxy = int(_proxy(status)["pid"])
    own, others = _cores()
    _pin(proxy, own)
    _pin(node.agent_pid, others)
    for server in (JUDGED, PLAIN):
        for pid in netns.processes_in(made.namespace(server)):
            os.setpriority(os.PRIO_PROCESS, pid, FIRST)
    _ask(made, JUDGED, "--window", WINDOW)
    rates: dict[str, list[float]] = {JUDGED: [], PLAIN: []}
    spent: dict[str, list[float]] = {"proxy": [], "agent": []}
    for number, leg in in_turns((JUDGED, PLAIN), ROUNDS):
        stage.note(f"dns: {leg}, round {number + 1} of {ROUNDS}")
        before = cpu_us(proxy), cpu_us(node.agent_pid)
        report = _ask(made, leg, "--window", WINDOW)
        rates[leg].append(report["answered"] / report["seconds"])
        if leg == JUDGED:
            spent["proxy"].append((cpu_us(proxy) - before[0]) / report["answered"])
            spent["agent"].append((cpu_us(node.agent_pid) - before[1]) / report["answered"])
    through = median(rates[JUDGED])
    added: dict[str, list[float]] = {"p50": [], "p99": []}
    for number in range(ROUNDS):
        stage.note(f"dns: at half load, round {number + 1} of {ROUNDS}")
        paced = {leg: _ask(made, leg, "--rate", through / 2, count=PACED) for leg in (JUDGED, PLAIN)}
        for rank, found in added.items():
            found.append((paced[JUDGED][rank] - paced[PLAIN][rank]) * 1e6)
    return {
        "dns_qps": 1e6 / median(spent["proxy"]),
        "dns_through_qps": through,
        "dns_direct_qps": median(rates[PLAIN]),
        "dns_proxy_us_per_query": median(spent["proxy"]),
        "dns_agent_us_per_query": median(spent["agent"]),
        "dns_added_p50_us": median(added["p50"]),
        "dns_added_p99_us": median(added["p99"]),
    }


def _ask(made: Galaxy, server: str, how: str, value: float, count: int = COUNT) -> dict[str, Any]:
    """Raises NotMeasured where anything was lost or refused."""
    cores = ",".join(map(str, sorted(_cores()[1])))
    argv = [
        *("nice", "-n", str(FIRST)),
        *("taskset", "-c", cores),
        sys.executable,
        "-m",
        "benchmarks.dns_load",
        made.address(server, 4),
        str(count),
        how,
        f"{value:g}",
    ]
    done = subprocess.run(
        netns.inside(made.namespace(ASKER), argv), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise NotMeasured(f"the load has failed: {done.stderr.strip()[-300:]}") from None
    if report["failed"] or report["lost"] > count // 100:
        raise NotMeasured(f"of {count} queries, {report['lost']} were lost and {report['failed']} refused")
    return report


def _cores() -> tuple[set[int], set[int]]:
    """That of the proxy, and those of load and agent; the same where there is one only."""
    own, *others = sorted(os.sched_getaffinity(0))
    return {own}, set(others) or {own}


def _pin(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def _proxy(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status["proxies"]["dns-proxy"]
    return found


def _policy() -> str:
    ports = [{"port": "53", "protocol": "ANY"}]
    rules = {"dns": [{"matchPattern": f"*.{DOMAIN}"}, {"matchName": "www.example.org"}]}
    egress = [
        {"toEndpoints": [{"matchLabels": {"app": JUDGED}}], "toPorts": [{"ports": ports, "rules": rules}]},
        {"toEndpoints": [{"matchLabels": {"app": PLAIN}}], "toPorts": [{"ports": ports}]},
    ]
    spec = {"endpointSelector": {"matchLabels": {"app": ASKER}}, "egress": egress}
    metadata = {"name": "dns", "namespace": "default"}
    return yaml.safe_dump(
        {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}
    )
