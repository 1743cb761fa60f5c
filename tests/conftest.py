"""What all tests share: golden files, and the rule that privileged tests run where root is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--goldens", action="store_true", help="rewrite golden files instead of comparing (never in CI)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    needs_root = pytest.mark.skip(reason="needs root: run 'make test' as root")
    for item in items:
        if item.get_closest_marker("privileged"):
            item.add_marker(needs_root)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare text with a golden file, or rewrite the file under --goldens."""
    rewrite = bool(request.config.getoption("--goldens"))

    def check(path: Path, text: str) -> None:
        if rewrite:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        assert path.exists(), f"{path} is missing: run 'make goldens' and read the diff"
        assert path.read_text() == text, f"{path} differs: run 'make goldens' and read the diff"

    return check
