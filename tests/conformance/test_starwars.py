"""The whole Star Wars suite on this kernel and this Envoy, played once; one test per scenario."""

from __future__ import annotations

import json

import pytest

from conformance import suites
from conformance.report import Report, failure_lines
from conformance.runner import run_suite

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(300)]
SCENARIOS = [scenario.name for scenario in suites.load("starwars").scenarios]
LIMIT = 120.0  # seconds for the whole suite on two cores


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    """Plays what was selected (pytest -k), in one galaxy with one node."""
    selected = {
        item.callspec.params["scenario"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "scenario" in item.callspec.params
    }
    return run_suite("starwars", only=sorted(selected & set(SCENARIOS)), prefix="dfls")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(report: Report, scenario: str) -> None:
    (result,) = [result for result in report.results if result.name == scenario]
    assert result.ok, "\n" + "\n".join(failure_lines("starwars", result))
    assert result.checks > 0


def test_the_suite_is_quick_and_says_what_it_ran_on(report: Report) -> None:
    assert report.seconds < LIMIT
    assert set(json.loads(report.to_json())["versions"]) == {"Linux", "Envoy", "Deflector"}
