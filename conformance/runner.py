"""Runs a suite: a galaxy, a node in it, every scenario, a report. The public door of this package.

report = run_suite("starwars", reporter=ConsoleReporter("starwars", Console()))
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence

from conformance import suites
from conformance.errors import EnvironmentFailure, first_cause
from conformance.flow_log import following
from conformance.galaxy import galaxy
from conformance.local_site import LocalSite
from conformance.node import Node, running
from conformance.report import QuietReporter, Report, Reporter, ScenarioResult, versions
from conformance.scenario import Scenario, Suite
from conformance.stage import Stage
from flows.channels import Dial


def run_suite(
    name: str, *, only: Collection[str] | None = None, reporter: Reporter | None = None, prefix: str = "dfl"
) -> Report:
    """Play the suite (or `only` these scenarios of it) and report. Needs root.

    Raises EnvironmentFailure (exit code 2) if the machine or the node cannot do it at all, SuiteError if the suite is
    badly written. Everything that was set up is removed again, also after Ctrl-C.
    """
    suite = suites.load(name)
    choose([name], only or ())
    chosen = chosen_of(suite, only)
    try:
        return asyncio.run(_run(suite, chosen, reporter or QuietReporter(), prefix))
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


async def _run(suite: Suite, scenarios: tuple[Scenario, ...], reporter: Reporter, prefix: str) -> Report:
    begun = time.monotonic()
    results: list[ScenarioResult] = []
    reporter.stage("creating the galaxy")
    with galaxy(suite.galaxy, prefix=prefix) as made:
        reporter.stage("starting the node")
        async with running(made, scenarios[0].flags if scenarios else ()) as node, following(_dial(node)) as log:
            log.connect()
            stage = Stage(suite, LocalSite(made, node), log)
            for number, scenario in enumerate(scenarios, 1):
                reporter.started(scenario, number, len(scenarios))
                results.append(await stage.play(scenario))
                reporter.finished(results[-1])
        reporter.stage("removing the galaxy")
    return Report(suite.name, versions(), time.monotonic() - begun, tuple(results))


def _dial(node: Node) -> Dial:
    return Dial(f"unix://{node.hubble_socket}")


def choose(names: Sequence[str], only: Collection[str]) -> list[tuple[str, list[str]]]:
    """Each suite with the scenarios to play ([]: all of them). Suites that have none of `only` are left out.

    Raises EnvironmentFailure for a scenario that no suite has, SuiteError if a suite is badly written.
    """
    if not only:
        return [(name, []) for name in names]
    known = {name: [scenario.name for scenario in suites.load(name).scenarios] for name in names}
    for wanted in only:
        if not any(wanted in scenarios for scenarios in known.values()):
            there = ", ".join(scenario for scenarios in known.values() for scenario in scenarios)
            raise EnvironmentFailure(f"suite {', '.join(names)} has no scenario {wanted!r}: choose from {there}")
    chosen = [(name, [wanted for wanted in only if wanted in scenarios]) for name, scenarios in known.items()]
    return [(name, scenarios) for name, scenarios in chosen if scenarios]


def chosen_of(suite: Suite, only: Collection[str] | None) -> tuple[Scenario, ...]:
    """The scenarios of `only` (or all) in the suite's order, by flags: the node is restarted as seldom as can be."""
    chosen = [scenario for scenario in suite.scenarios if not only or scenario.name in only]
    flags = list(dict.fromkeys(scenario.flags for scenario in chosen))
    return tuple(sorted(chosen, key=lambda scenario: flags.index(scenario.flags)))
