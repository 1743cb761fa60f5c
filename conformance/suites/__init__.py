"""The suites that come with Deflector: one YAML file each; `bypass` is made from its corpus, a line per trick."""

from __future__ import annotations

from pathlib import Path

import yaml

from conformance.bypass_suite import BYPASS, bypass_suite
from conformance.errors import EnvironmentFailure, SuiteError
from conformance.parse import parse_suite
from conformance.scenario import Suite

FOLDER = Path(__file__).parent
MADE = {BYPASS: bypass_suite}


def names() -> list[str]:
    """Names of the suites, sorted."""
    return sorted([*MADE, *(path.stem for path in FOLDER.glob("*.yaml"))])


def load(name: str) -> Suite:
    """Read a suite. Raises EnvironmentFailure if there is none of that name, SuiteError if it is badly written."""
    if name not in names():
        raise EnvironmentFailure(f"there is no suite {name!r}: choose from {', '.join(names())}")
    if name in MADE:
        return MADE[name]()
    try:
        value = yaml.load((FOLDER / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise SuiteError(f"{name}.yaml", str(error).replace("\n", " ")) from None
    return parse_suite(value)
