"""One outpost for the tests that need sockets; each test finds it as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.l7proxy.kafka.make import ANNOUNCE, PLANS, rule
from tests.l7proxy.kafka.outpost import WAIT_SECONDS, Outpost, founded, wait


@pytest.fixture(scope="module")
def founded_outpost() -> Iterator[Outpost]:
    with founded(f"kafka{os.getpid() % 10_000}") as outpost:
        for topic in (ANNOUNCE, PLANS):
            outpost.broker.list_topics(topic, timeout=WAIT_SECONDS)  # the mock makes it
        yield outpost


@pytest.fixture
def outpost(founded_outpost: Outpost) -> Outpost:
    founded_outpost.apply()
    founded_outpost.retire()
    wait(lambda: founded_outpost.proxy is not None and not founded_outpost.proxy.connections, "the last test's end")
    founded_outpost.records.clear()
    founded_outpost.apply(rule(role="produce", topic=ANNOUNCE), rule(role="consume", topic=ANNOUNCE))
    return founded_outpost
