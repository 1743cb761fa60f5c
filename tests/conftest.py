"""What all tests share: golden files, how many random examples, and that privileged tests run where root is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--goldens", action="store_true", help="rewrite golden files instead of comparing (never in CI)")
    parser.addoption("--examples", type=int, help="random examples per property test, new ones each time ('make fuzz')")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if examples := config.getoption("--examples"):
        for item in items:
            _fuzz(item, examples)
    if os.geteuid() == 0:
        return
    needs_root = pytest.mark.skip(reason="needs root: run 'make test' as root")
    for item in items:
        if item.get_closest_marker("privileged"):
            item.add_marker(needs_root)


def _fuzz(item: pytest.Item, examples: int) -> None:
    """Give a property test other settings than its decorator does. Hypothesis has no public way to do this late."""
    test = getattr(item, "obj", None)
    test = getattr(test, "__func__", test)
    own = getattr(test, "_hypothesis_internal_use_settings", None)
    if own is not None:
        more = settings(own, max_examples=examples, derandomize=False, deadline=None)
        test._hypothesis_internal_use_settings = more


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
