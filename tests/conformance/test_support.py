"""support.yaml and the page about conformance tell the truth."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from conformance import suites
from conformance.bypass import corpus
from conformance.parse import parse_suite

SUPPORT = yaml.safe_load((Path(suites.FOLDER).parent / "support.yaml").read_text())
PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()


def test_every_scenario_of_the_first_suite_is_named_once_at_its_level() -> None:
    named = [(name, level) for level in ("core", "extended") for names in SUPPORT[level].values() for name in names]
    assert sorted(named) == sorted((s.name, str(s.level)) for s in suites.load("starwars").scenarios)


def test_every_other_suite_is_named() -> None:
    assert sorted([*SUPPORT["suites"], "starwars"]) == suites.names()


def test_the_page_counts_right() -> None:
    counted = {name: int(count) for name, count in re.findall(r"^\| `([\w-]+)` \| (\d+) \|", PAGE, re.MULTILINE)}
    assert counted == {name: len(suites.load(name).scenarios) for name in suites.names()}
    assert f"({len(corpus().tricks)} lines:" in PAGE


def test_the_example_of_the_page_can_be_read() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    assert parse_suite(yaml.safe_load(example[1])).name == "example"
