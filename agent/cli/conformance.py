"""`deflector conformance`: run a black-box suite against this kernel and this Envoy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from agent.errors import EnvironmentProblem

if TYPE_CHECKING:
    from conformance.report import Report


@click.group()
def conformance() -> None:
    """Black-box suites: pods in network namespaces, policies, real traffic, expected verdicts and flows."""


@conformance.command(epilog="Example: deflector conformance run starwars --junit build/starwars.xml")
@click.argument("suite")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Also write a JUnit XML report.")
@click.option("--only", multiple=True, metavar="SCENARIO", help="Run only these scenarios; may be repeated.")
def run(suite: str, output: str, junit: Path | None, only: tuple[str, ...]) -> None:
    """Run SUITE. Exit code 0: all scenarios passed; 1: some failed; 2: the machine did not allow it."""
    from conformance import suites
    from conformance.errors import EnvironmentFailure, SuiteError

    if suite not in suites.names():
        raise EnvironmentProblem(f"there is no suite {suite!r}: choose from {', '.join(suites.names())}")
    if os.geteuid() != 0:
        raise EnvironmentProblem("conformance suites make network namespaces: run them as root")
    try:
        report = _run(suite, output, only)
        if junit is not None:
            junit.write_text(report.to_junit(), encoding="utf-8")
    except (EnvironmentFailure, SuiteError, OSError) as failure:
        raise EnvironmentProblem(str(failure)) from None
    sys.exit(0 if report.ok else 1)


def _run(suite: str, output: str, only: tuple[str, ...]) -> Report:
    from conformance.report import ConsoleReporter, QuietReporter, print_summary
    from conformance.runner import run_suite

    if output == "json":
        report = run_suite(suite, only=only, reporter=QuietReporter())
        click.echo(report.to_json())
        return report
    console = Console(highlight=False)
    reporter = ConsoleReporter(suite, console)
    try:
        report = run_suite(suite, only=only, reporter=reporter)
    finally:
        reporter.close()
    print_summary(report, console)
    return report
