"""One town for the tests that need sockets; each test finds it as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.l7proxy.dns.town import Town, ask, founded, wait


@pytest.fixture(scope="session")
def founded_town() -> Iterator[Town]:
    with founded(f"dns{os.getpid() % 10_000}") as town:
        town.apply()
        for family in (4, 6):  # neighbours get to know each other
            town.udp(family, ask("allowed.example.org"), timeout=10.0)
        yield town


@pytest.fixture
def town(founded_town: Town) -> Town:
    wait(lambda: founded_town.proxy is not None and founded_town.proxy.open_queries == 0, "the end of the last test")
    founded_town.reset()
    return founded_town
