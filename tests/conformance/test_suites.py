"""Every suite on this kernel and this Envoy, each played once in a galaxy of its own; one test per scenario."""

from __future__ import annotations

import json

import pytest

from conformance import suites
from conformance.report import Report, failure_lines
from conformance.runner import run_suite

SCENARIOS = [(name, scenario.name) for name in suites.names() for scenario in suites.load(name).scenarios]
LIMIT = 240.0  # seconds for a whole suite on two cores
pytestmark = [pytest.mark.privileged, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """What was played so far, by suite."""
    return {}


@pytest.fixture
def report(request: pytest.FixtureRequest, reports: dict[str, Report], suite: str) -> Report:
    """Plays what was selected of the suite (pytest -k), in one galaxy with one node, when its first test asks."""
    if suite not in reports:
        asked = (getattr(item, "callspec", None) for item in request.session.items)
        params = [call.params for call in asked if call is not None]
        only = {str(p["scenario"]) for p in params if p.get("suite") == suite and "scenario" in p}
        reports[suite] = run_suite(suite, only=sorted(only), prefix="dfls")
    return reports[suite]


@pytest.mark.parametrize(("suite", "scenario"), SCENARIOS)
def test_scenario(report: Report, suite: str, scenario: str) -> None:
    (result,) = [result for result in report.results if result.name == scenario]
    assert result.ok, "\n" + "\n".join(failure_lines(suite, result))
    assert result.checks > 0


@pytest.mark.parametrize("suite", suites.names())
def test_the_suite_is_quick_and_says_what_it_ran_on(report: Report) -> None:
    assert report.seconds < LIMIT
    assert set(json.loads(report.to_json())["versions"]) == {"Linux", "Envoy", "Deflector"}
