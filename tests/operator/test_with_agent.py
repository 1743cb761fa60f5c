"""An operator, and a node's agent on the real kernel with the real Envoy: what the node enforces, people see."""

from __future__ import annotations

import time

import pytest

from agent.cluster.resources import DEFLECTOR_NODES
from tests.agent.galaxy import DROPPED, LANDING, http_rule
from tests.cluster.test_agent import EMPIRE, Story, story
from tests.operator.town import Town, eventually

__all__ = ["story"]
pytestmark = [pytest.mark.privileged, pytest.mark.timeout(180)]


async def test_what_the_agent_enforces_the_operator_tells(story: Story) -> None:
    town = Town(story.cluster)
    async with town.operator() as leia:

        async def reported() -> bool:
            return leia.reign is not None and story.node_name in leia.reign.rollout.fleet.members()

        await story.ready()
        await eventually(reported, 30)
        town.cluster.namespace = "default"
        await story.policy(http_rule(LANDING, EMPIRE))
        began = time.monotonic()
        told = await town.until("rule1", "Enforced", lambda c: c["status"] == "True", 20)
        assert told["message"].startswith("1 of 1 nodes, at worst after ")
        took = time.monotonic() - began
        assert await story.ask("xwing", LANDING) == DROPPED
        assert took < 2.0

        await story.policy(http_rule(("GET", "["), EMPIRE))  # refused: the last good one stays
        valid = await town.until("rule1", "Valid", lambda c: c["status"] == "False", 5)
        assert valid["observedGeneration"] == 2
        assert await story.ask("tiefighter", LANDING) == "200"

        began = time.monotonic()
        await story.policy(http_rule(LANDING, EMPIRE))
        await town.until("rule1", "Enforced", lambda c: c["status"] == "True" and c["observedGeneration"] == 3, 10)
        assert time.monotonic() - began < 2.0
        report = await town.api.get(DEFLECTOR_NODES, "", story.node_name)
        assert report["status"]["policies"] >= 1
        assert report["status"]["complete"]
