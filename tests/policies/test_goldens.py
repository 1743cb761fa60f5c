"""testdata/NAME.in.yaml -> NAME.ir.yaml: the important cases, from manifests to slots. `make goldens` rewrites them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from policies.ir_yaml import node_from_dict
from tests.policies.make import node_from

TESTDATA = Path(__file__).parent / "testdata"
NAMES = sorted(path.name.removesuffix(".in.yaml") for path in TESTDATA.glob("*.in.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_manifests_become_this_policy(name: str, golden: Callable[[Path, str], None]) -> None:
    node = node_from((TESTDATA / f"{name}.in.yaml").read_text())
    text = yaml.safe_dump(node.to_dict(), sort_keys=False)
    golden(TESTDATA / f"{name}.ir.yaml", text)
    assert node_from_dict(yaml.safe_load(text)) == node


def test_no_golden_is_left_over() -> None:
    found = {path.name.removesuffix(".ir.yaml") for path in TESTDATA.glob("*.ir.yaml")}
    assert found <= set(NAMES), "remove the golden files whose .in.yaml is gone"
