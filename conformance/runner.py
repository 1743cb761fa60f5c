"""Runs a suite: a galaxy, a node in it, every scenario, a report. The public door of this package.

report = run_suite("starwars", reporter=ConsoleReporter("starwars", Console()))
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from conformance import suites
from conformance.blueprint import star_wars
from conformance.errors import EnvironmentFailure, first_cause
from conformance.flow_log import following
from conformance.galaxy import galaxy
from conformance.node import running
from conformance.report import QuietReporter, Report, Reporter, ScenarioResult, versions
from conformance.scenario import Scenario, Suite
from conformance.stage import Stage

GALAXIES = {"starwars": star_wars}  # suite -> the galaxy it is played in


def run_suite(
    name: str, *, only: Collection[str] | None = None, reporter: Reporter | None = None, prefix: str = "dfl"
) -> Report:
    """Play the suite (or `only` these scenarios of it) and report. Needs root.

    Raises EnvironmentFailure (exit code 2) if the machine or the node cannot do it at all, SuiteError if the suite is
    badly written. Everything that was set up is removed again, also after Ctrl-C.
    """
    suite = suites.load(name)
    chosen = _choose(suite, only)
    try:
        return asyncio.run(_run(suite, chosen, reporter or QuietReporter(), prefix))
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


async def _run(suite: Suite, scenarios: tuple[Scenario, ...], reporter: Reporter, prefix: str) -> Report:
    begun = time.monotonic()
    results: list[ScenarioResult] = []
    reporter.stage("creating the galaxy")
    with galaxy(GALAXIES[suite.name](), prefix=prefix) as made:
        reporter.stage("starting the node")
        async with running(made) as node, following(node.hubble_socket) as log:
            log.connect()
            stage = Stage(suite, made, node, log)
            for number, scenario in enumerate(scenarios, 1):
                reporter.started(scenario, number, len(scenarios))
                results.append(await stage.play(scenario))
                reporter.finished(results[-1])
        reporter.stage("removing the galaxy")
    return Report(suite.name, versions(), time.monotonic() - begun, tuple(results))


def _choose(suite: Suite, only: Collection[str] | None) -> tuple[Scenario, ...]:
    if not only:
        return suite.scenarios
    known = [scenario.name for scenario in suite.scenarios]
    for name in only:
        if name not in known:
            raise EnvironmentFailure(f"suite {suite.name} has no scenario {name!r}: choose from {', '.join(known)}")
    return tuple(scenario for scenario in suite.scenarios if scenario.name in only)
