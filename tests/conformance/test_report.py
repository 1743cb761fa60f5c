"""Reports for people, programs and CI."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from conformance.report import ConsoleReporter, Failure, Report, ScenarioResult, failure_lines, print_summary
from conformance.scenario import Level

TESTDATA = Path(__file__).parent / "testdata"
GOOD = ScenarioResult("landing", "the tiefighter lands", Level.CORE, 0.25, 4)
BAD = ScenarioResult(
    "attack",
    "the xwing is dropped",
    Level.CORE,
    1.5,
    2,
    (
        Failure(
            "probe xwing -> pod/deathstar-1 IPv4 POST /v1/request-landing",
            ("expected dropped, got 200 'Ship landed\\n'", "no flow event=drop verdict=DROPPED"),
            ("answer: 200 'Ship landed\\n'", "flow: default/xwing:20001 -> default/deathstar:80 l4 FORWARDED"),
            "nsenter --net=/run/netns/dfl-1234-xwing curl -s http://10.244.0.11/v1/request-landing",
        ),
    ),
    ("node started", "ready"),
)
REPORT = Report("starwars", {"Linux": "6.18", "Envoy": "1.40.0", "Deflector": "0.1.0"}, 2.0, (GOOD, BAD))


def test_json_has_everything(golden: Callable[[Path, str], None]) -> None:
    document = json.loads(REPORT.to_json())
    assert (document["ok"], [entry["ok"] for entry in document["results"]]) == (False, [True, False])
    golden(TESTDATA / "report.json", REPORT.to_json() + "\n")


def test_junit_has_a_case_per_scenario(golden: Callable[[Path, str], None]) -> None:
    suite = ElementTree.fromstring(REPORT.to_junit())
    assert [case.get("name") for case in suite.iter("testcase")] == ["landing", "attack"]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    golden(TESTDATA / "report.junit.xml", REPORT.to_junit())


@given(st.text())
def test_junit_holds_whatever_a_node_may_print(text: str) -> None:
    result = ScenarioResult("x", text, Level.CORE, 0.1, 1, (Failure(text, (text,), (text,), text),), (text,))
    ElementTree.fromstring(Report("starwars", {}, 0.1, (result,)).to_junit())


def test_people_see_what_failed_and_how_to_repeat_it(golden: Callable[[Path, str], None]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=100)
    reporter = ConsoleReporter("starwars", console)
    reporter.stage("creating the galaxy")
    for result in REPORT.results:
        reporter.finished(result)
    reporter.close()
    print_summary(REPORT, console)
    golden(TESTDATA / "report.txt", out.getvalue())


def test_a_failure_names_the_command_that_repeats_it() -> None:
    lines = "\n".join(failure_lines("starwars", BAD))
    assert "nsenter --net=/run/netns/dfl-1234-xwing curl" in lines
    assert "deflector conformance run starwars --only attack" in lines
    assert "ready" in lines
