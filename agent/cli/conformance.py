"""`deflector conformance`: run black-box suites against this kernel and this Envoy, or in a cluster."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from agent.cli.conformance_target import target_options
from agent.cli.headings import HeadedCommand
from agent.errors import EnvironmentProblem

if TYPE_CHECKING:
    from conformance.cluster.run import ClusterTarget
    from conformance.report import Report
    from conformance.scenario import Scenario

ALL = "all"
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For people, or not."
)


@click.group()
def conformance() -> None:
    """Black-box suites: pods in network namespaces, policies, real traffic, expected verdicts and flows."""


@conformance.command("list", epilog="Example: deflector conformance list http")
@click.argument("suite", nargs=-1)
@output_option
def list_(suite: tuple[str, ...], output: str) -> None:
    """List the suites; or, of each SUITE, the scenarios."""
    from conformance import suites
    from conformance.errors import SuiteError

    try:
        loaded = [suites.load(name) for name in _chosen(suite or (ALL,))]
    except SuiteError as failure:
        raise EnvironmentProblem(str(failure)) from None
    if output == "json":
        click.echo(json.dumps([{"suite": s.name, "scenarios": [_about(sc) for sc in s.scenarios]} for s in loaded]))
        return
    for one in loaded:
        click.echo(f"{one.name:<10} {len(one.scenarios):>4} scenarios")
        for scenario in one.scenarios if suite else ():
            click.echo(f"  {scenario.name}: {scenario.title}")


def _about(scenario: Scenario) -> dict[str, str]:
    return {"name": scenario.name, "title": scenario.title, "level": str(scenario.level)}


@conformance.command(
    cls=HeadedCommand, epilog="Example: deflector conformance run starwars http --junit build/conformance.xml"
)
@click.argument("suite", nargs=-1, required=True)
@output_option
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Also write a JUnit XML report.")
@click.option("--only", multiple=True, metavar="SCENARIO", help="Run only these scenarios; may be repeated.")
@target_options
def run(
    suite: tuple[str, ...], output: str, junit: Path | None, only: tuple[str, ...], target: ClusterTarget | None
) -> None:
    """Run each SUITE, or all of them (`all`), one after the other.

    With -o json one suite gives one document, several give {"ok", "suites": [...]}. Exit code 0: all scenarios passed;
    1: some failed; 2: the machine, or the cluster, did not allow it.
    """
    from conformance.errors import EnvironmentFailure, SuiteError
    from conformance.report import together_json, write_junit

    names = _chosen(suite)
    if target is None and os.geteuid() != 0:
        raise EnvironmentProblem("conformance suites make network namespaces: run them as root")
    try:
        reports = _run(names, output, only, target)
        if junit is not None:
            write_junit(reports, junit)
    except (EnvironmentFailure, SuiteError, OSError) as failure:
        raise EnvironmentProblem(str(failure)) from None
    if output == "json":
        click.echo(together_json(reports))
    sys.exit(0 if all(report.ok for report in reports) else 1)


def _player(target: ClusterTarget | None) -> Callable[..., Report]:
    if target is None:
        from conformance.runner import run_suite

        return run_suite
    from conformance.cluster.run import run_suite_in_cluster

    return partial(run_suite_in_cluster, target=target)


def _chosen(wanted: Sequence[str]) -> list[str]:
    """The suites that are meant, each once, in the order given."""
    from conformance import suites

    known = suites.names()
    for name in wanted:
        if name not in (*known, ALL):
            raise EnvironmentProblem(f"there is no suite {name!r}: choose from {', '.join(known)}, or {ALL}")
    return list(dict.fromkeys(one for name in wanted for one in (known if name == ALL else [name])))


def _run(names: list[str], output: str, only: tuple[str, ...], target: ClusterTarget | None) -> list[Report]:
    """Play them. A scenario that `only` names must be in one of the suites; a suite with none of them is left out."""
    from conformance.report import ConsoleReporter, QuietReporter, print_summary, print_total
    from conformance.runner import choose

    run_suite = _player(target)

    reports = []
    console = Console(highlight=False)
    for name, chosen in choose(names, only):
        if output == "json":
            reports.append(run_suite(name, only=chosen, reporter=QuietReporter()))
            continue
        if len(names) > 1:
            console.print(f"[bold]{name}[/bold]")
        reporter = ConsoleReporter(name, console)
        try:
            reports.append(run_suite(name, only=chosen, reporter=reporter))
        finally:
            reporter.close()
        print_summary(reports[-1], console)
    if len(reports) > 1 and output != "json":
        print_total(reports, console)
    return reports
