"""One galaxy per test file that needs the kernel; the programs are compiled once for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf.stage import Stage, staged


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of compiled programs."""
    return tmp_path_factory.mktemp("bpf-cache")


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Stage]:
    """Open, with pods `client` and `server` attached, and nothing enforced."""
    part = request.module.__name__.rsplit("_", 1)[-1]
    with staged(f"bpf{os.getpid() % 10_000}{part[:4]}", tmp_path_factory.mktemp(part), cache) as made:
        made.pod("client")
        made.pod("server")
        yield made
