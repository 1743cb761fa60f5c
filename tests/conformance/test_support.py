"""support.yaml tells the truth: each scenario proves one line of it, at its level."""

from __future__ import annotations

from pathlib import Path

import yaml

from conformance import suites

SUPPORT = yaml.safe_load((Path(suites.FOLDER).parent / "support.yaml").read_text())


def test_every_scenario_is_named_once_at_its_level() -> None:
    named = [(name, level) for level in ("core", "extended") for names in SUPPORT[level].values() for name in names]
    assert sorted(named) == sorted((s.name, str(s.level)) for s in suites.load("starwars").scenarios)
