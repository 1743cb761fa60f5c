"""Runs a suite in a cluster: namespaces and pods of our own, the scenarios that can be played there, a report.

report = run_suite_in_cluster("starwars", ClusterTarget())
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from flow.flow_pb2 import FlowFilter

from conformance import suites
from conformance.blueprint import Blueprint
from conformance.cluster.askers import askers
from conformance.cluster.claim import Claim, claimed, run_name
from conformance.cluster.crew import as_made, crew, families, objects
from conformance.cluster.installed import Agent, agents, relay
from conformance.cluster.kubectl import Kubectl, KubectlFailure, Raw
from conformance.cluster.playable import programme
from conformance.cluster.policies import Policies
from conformance.cluster.site import ClusterPlace, ClusterSite
from conformance.cluster.translation import dictionary, translated, translated_scenario
from conformance.errors import EnvironmentFailure, first_cause
from conformance.flow_log import following
from conformance.report import QuietReporter, Report, Reporter, ScenarioResult
from conformance.runner import choose, chosen_of
from conformance.scenario import Scenario, Suite
from conformance.stage import Stage
from flows.channels import ClientTls, Dial

POD_PATIENCE = 300.0  # seconds until all pods are ready: an image may have to be fetched
ACCOUNT_PATIENCE = 30.0  # seconds until a new namespace has what pods need
ENDPOINT_PATIENCE = 30.0  # seconds until the agent knows a pod
POLL = 0.3
CLOCK_MARGIN = 120  # seconds that a node's clock may be behind; the pods are new, so no older flows are of them
NO_ACCOUNT = "serviceaccount"


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """Which cluster, and what is used there. `run` names the namespace ("": one that nobody has); `image` is the one of
    the pods ("": that of the agents); `server` is a Hubble API (None: the relay, by a forwarded port); `tls` says how
    the relay is asked."""

    kubectl: Kubectl = field(default_factory=Kubectl)
    run: str = ""
    image: str = ""
    server: Dial | None = None
    tls: ClientTls | None = None


def run_suite_in_cluster(
    name: str, target: ClusterTarget, *, only: Collection[str] | None = None, reporter: Reporter | None = None
) -> Report:
    """Play what can be played of the suite (or `only` these scenarios of it) and report.

    Raises EnvironmentFailure (exit code 2) if the cluster does not allow it, SuiteError if the suite is badly written.
    Everything that was made is removed again, also after Ctrl-C or SIGTERM.
    """
    suite = suites.load(name)
    choose([name], only or ())
    try:
        return asyncio.run(_run(suite, chosen_of(suite, only), target, reporter or QuietReporter()))
    except BaseExceptionGroup as group:
        raise first_cause(group) from None
    except asyncio.CancelledError:
        raise EnvironmentFailure("ended by SIGTERM; what was made in the cluster is removed") from None


async def _run(suite: Suite, scenarios: tuple[Scenario, ...], target: ClusterTarget, reporter: Reporter) -> Report:
    begun, kubectl = time.monotonic(), target.kubectl
    _end_in_order()
    reporter.stage("asking the cluster")
    server = await kubectl.server_version()
    there = await agents(kubectl)
    first = programme(suite, scenarios, (4, 6))
    if not first.scenarios:
        return Report(suite.name, _versions(server, "", there[0]), time.monotonic() - begun, (), first.omitted)
    async with claimed(kubectl, target.run or run_name(), suite.galaxy.namespaces) as claim:
        reporter.stage("creating the galaxy")
        await _create(kubectl, list(objects(suite.galaxy, claim, target.image or there[0].image)))
        found = await _ready(kubectl, claim)
        galaxy = as_made(suite.galaxy, claim, found)
        agent = _agent_of(there, found)
        await _known(kubectl, agent, galaxy)
        words = dictionary(suite.galaxy, galaxy, claim.spaces)
        played = programme(suite, scenarios, families(galaxy))
        mine = tuple(translated_scenario(scenario, words) for scenario in played.scenarios)
        show = _Show(translated(suite, words, galaxy), mine, played.left_out, claim, agent)
        results = await _play(show, target, reporter)
        kernel = await _kernel(kubectl, agent)
        reporter.stage("removing the galaxy")
    ended = time.monotonic() - begun
    return Report(suite.name, _versions(server, kernel, agent), ended, tuple(results), played.omitted)


@dataclass(frozen=True, slots=True)
class _Show:
    """What is played, in the words of the cluster, and where."""

    suite: Suite
    scenarios: tuple[Scenario, ...]
    left_out: Mapping[str, tuple[str, ...]]
    claim: Claim
    agent: Agent


async def _play(show: _Show, target: ClusterTarget, reporter: Reporter) -> list[ScenarioResult]:
    kubectl, results = target.kubectl, []
    places = [f"{space}/" for space in show.claim.spaces.values()]
    wanted = [FlowFilter(source_pod=places), FlowFilter(destination_pod=places)]
    way = relay(kubectl, target.tls) if target.server is None else nullcontext(target.server)
    async with way as dial, following(dial, wanted) as log, askers(kubectl) as made:
        log.connect(earlier=CLOCK_MARGIN)
        policies = Policies(kubectl, show.claim, show.agent)
        stage = Stage(show.suite, ClusterSite(ClusterPlace(show.suite.galaxy), made, policies), log)
        for number, scenario in enumerate(show.scenarios, 1):
            reporter.started(scenario, number, len(show.scenarios))
            results.append(replace(await stage.play(scenario), left_out=show.left_out[scenario.name]))
            reporter.finished(results[-1])
    return results


async def _create(kubectl: Kubectl, made: list[Raw]) -> None:
    """A namespace gets its service account a moment after it was made; until then it takes no pods."""
    deadline = time.monotonic() + ACCOUNT_PATIENCE
    while True:
        try:
            await kubectl.apply(made)
            return
        except KubectlFailure as failure:
            if NO_ACCOUNT not in failure.complaint or time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL)


async def _ready(kubectl: Kubectl, claim: Claim) -> list[Raw]:
    """The pods and services of the claim, once all pods are ready. Raises EnvironmentFailure that says what is not."""
    mine = ("--all-namespaces", "-l", claim.label)
    words = ("wait", "--for=condition=Ready", "pods", *mine, f"--timeout={POD_PATIENCE:.0f}s")
    code, _, complaint = await kubectl.outcome(*words, timeout=POD_PATIENCE + 10)
    pods = await kubectl.items("pods", *mine)
    if code:
        late = "; ".join(sorted(filter(None, map(_trouble, pods))))
        raise EnvironmentFailure(f"the pods are not ready after {POD_PATIENCE:.0f} s: {late or complaint}")
    return [*pods, *await kubectl.items("services", *mine)]


def _trouble(raw: Raw) -> str:
    """What keeps a pod from being ready, in one line; "" if nothing does."""
    status, name = raw.get("status") or {}, f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"
    if any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ()):
        return ""
    waiting = [one.get("state", {}).get("waiting") for one in status.get("containerStatuses") or ()]
    conditions = [one for one in status.get("conditions") or () if one["status"] != "True" and one.get("message")]
    for said in (*filter(None, waiting), *conditions):
        return f"{name}: {said.get('reason', '')} {said.get('message', '')}".strip()
    return f"{name}: {status.get('phase', 'unknown')}"


def _agent_of(there: list[Agent], found: list[Raw]) -> Agent:
    """The agent of the node that the pods are on."""
    nodes = sorted({raw["spec"]["nodeName"] for raw in found if raw["kind"] == "Pod"})
    for agent in there:
        if nodes == [agent.node]:
            return agent
    raise EnvironmentFailure(f"the pods are on {', '.join(nodes)}, where no agent of Deflector runs")


async def _known(kubectl: Kubectl, agent: Agent, galaxy: Blueprint) -> None:
    """Wait until the agent is ready and has all pods of ours as its endpoints."""
    wanted = {str(pod) for pod in crew(galaxy)}
    deadline = time.monotonic() + ENDPOINT_PATIENCE
    while True:
        status = await agent.status(kubectl)
        why_not = status if isinstance(status, str) else _lacking(status, wanted)
        if not why_not:
            return
        if time.monotonic() > deadline:
            raise EnvironmentFailure(f"the agent of node {agent.node} is not ready: {why_not}")
        await asyncio.sleep(POLL)


def _lacking(status: Raw, wanted: set[str]) -> str:
    missing = wanted - {f"{one['namespace']}/{one['name']}" for one in status["endpoints"]}
    if missing:
        return f"it does not know {', '.join(sorted(missing))}"
    return "" if status["ready"] else "; ".join(map(str, status["problems"])) or "it does not say why"


async def _kernel(kubectl: Kubectl, agent: Agent) -> str:
    node = await kubectl.read("get", "node", agent.node)
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("kernelVersion") or "")


def _versions(server: str, kernel: str, agent: Agent) -> dict[str, str]:
    """What a report holds for."""
    return {"Kubernetes": server, **({"Linux": kernel} if kernel else {}), "Deflector": agent.image}


def _end_in_order() -> None:
    """SIGTERM is as Ctrl-C: what was made is removed."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
