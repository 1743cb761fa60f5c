"""`deflector conformance` as a person meets it: what there is, what is chosen, and one line for what is not there."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from conformance import suites
from conformance.errors import EnvironmentFailure
from conformance.report import Report, together_json, write_junit
from conformance.runner import choose

DEFLECTOR = Path(sys.executable).parent / "deflector"


def deflector(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(DEFLECTOR), "conformance", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_the_suites_are_listed_with_their_sizes() -> None:
    lines = deflector("list").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [name, str(len(suites.load(name).scenarios))] for name in suites.names()
    ]


def test_a_suite_lists_its_scenarios() -> None:
    (listed,) = json.loads(deflector("list", "modes", "-o", "json").stdout)
    assert listed["suite"] == "modes"
    assert [entry["name"] for entry in listed["scenarios"]] == [s.name for s in suites.load("modes").scenarios]
    assert "  never: nothing is enforced" in deflector("list", "modes").stdout


@pytest.mark.parametrize("words", [("list", "startrek"), ("run", "l3", "startrek")])
def test_what_is_not_there_is_one_line(words: tuple[str, ...]) -> None:
    done = deflector(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("deflector: there is no suite 'startrek': choose from bypass, deny")


def test_scenarios_are_looked_for_in_every_suite_that_is_named() -> None:
    assert choose(["l3", "deny"], ()) == [("l3", []), ("deny", [])]
    assert choose(["l3", "deny"], ["deny-group", "cidr"]) == [("l3", ["cidr"]), ("deny", ["deny-group"])]
    assert choose(["l3", "deny"], ["deny-group"]) == [("deny", ["deny-group"])]
    with pytest.raises(EnvironmentFailure, match="has no scenario 'warp'"):
        choose(["l3", "deny"], ["deny-group", "warp"])


def test_several_reports_are_one_document(tmp_path: Path) -> None:
    reports = [Report(name, {"Linux": "6"}, 1.0) for name in ("l3", "l4")]
    together = json.loads(together_json(reports))
    assert (together["ok"], [one["suite"] for one in together["suites"]]) == (True, ["l3", "l4"])
    assert json.loads(together_json(reports[:1])) == together["suites"][0]
    write_junit(reports, tmp_path / "all.xml")
    root = ElementTree.parse(tmp_path / "all.xml").getroot()
    assert (root.tag, [suite.get("name") for suite in root]) == ("testsuites", ["conformance.l3", "conformance.l4"])
    write_junit(reports[:1], tmp_path / "one.xml")
    assert ElementTree.parse(tmp_path / "one.xml").getroot().tag == "testsuite"
