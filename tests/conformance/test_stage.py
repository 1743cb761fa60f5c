"""The suite has teeth: on a galaxy where nobody enforces anything, only what needs no policy passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from conformance import suites
from conformance.blueprint import star_wars
from conformance.flow_log import FlowLog
from conformance.galaxy import Galaxy, galaxy
from conformance.local_site import LocalSite
from conformance.node import Node
from conformance.report import ScenarioResult
from conformance.scenario import Suite
from conformance.stage import Stage

pytestmark = pytest.mark.privileged
SUITE = suites.load("starwars")


class IdleNode:
    """A node that claims to enforce everything and does nothing."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.flags: tuple[str, ...] = ()

    async def enforced(self) -> None:
        pass

    async def complained(self, words: Any) -> None:
        pass

    async def status(self) -> dict[str, Any]:
        return {"slots": [{"name": "none", "port": 80, "state": "active"}]}

    def log_tail(self) -> list[str]:
        return ["idle"]


@pytest.fixture
def made() -> Iterator[Galaxy]:
    with galaxy(star_wars(), prefix="dfls") as one:
        yield one


async def play(made: Galaxy, name: str, suite: Suite = SUITE) -> ScenarioResult:
    (scenario,) = [scenario for scenario in suite.scenarios if scenario.name == name]
    return await Stage(suite, LocalSite(made, cast(Node, IdleNode())), FlowLog()).play(scenario)


@pytest.mark.parametrize("name", ["demo-1-no-policy", "demo-4-clean-up"])
async def test_without_policy_nothing_needs_to_be_enforced(made: Galaxy, name: str) -> None:
    result = await play(made, name)
    assert result.failures == ()
    assert result.checks > 0


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("demo-2-l4", "expected dropped, got 200"),
        ("demo-3-http", "expected status 403, got 503"),
        ("policy-added", "times 503 instead of 403 after the change"),
    ],
)
async def test_a_node_that_does_nothing_is_found_out(made: Galaxy, name: str, complaint: str) -> None:
    result = await play(made, name)
    problems = [problem for failure in result.failures for problem in failure.problems]
    assert any(complaint in problem for problem in problems)
    assert result.log == ("idle",)


@pytest.mark.parametrize(
    ("suite", "name", "complaint"),
    [
        ("l3", "empty-peer", "expected dropped, got 200"),
        ("l4", "protocol-sctp", "expected dropped, got answered"),
        ("http", "websocket", "expected status 403, got 101"),
        ("deny", "deny-alone", "expected forbidden, got 200"),
        ("modes", "default-by-direction", "expected dropped, got 200"),
        ("bypass", "paths-dot-segments", "may be read as '/admin'"),
    ],
)
async def test_every_suite_finds_it_out(suite: str, name: str, complaint: str) -> None:
    loaded = suites.load(suite)
    with galaxy(loaded.galaxy, prefix="dfls") as made:
        result = await play(made, name, loaded)
    problems = [problem for failure in result.failures for problem in failure.problems]
    assert any(complaint in problem for problem in problems), problems
