"""An Envoy that hangs holds up nothing but what needs it, and what waited is finished as soon as it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from conformance.blueprint import star_wars
from conformance.galaxy import Galaxy, galaxy
from conformance.node import Node, running
from tests.agent.galaxy import DROPPED, LANDING, PORT, Asker, http_rule, l4_rule, policy_name, save

pytestmark = pytest.mark.privileged

SOON = 2.0  # seconds: far less than the 5 that peers of a late slot wait; asking for the status alone takes 0.2
LATER = 15.0


@dataclass
class Story:
    made: Galaxy
    node: Node
    asker: Asker

    async def status_until(self, condition: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while True:
            status = await self.node.status()
            if status is not None and condition(status):
                return status
            assert time.monotonic() < end, status

    async def denied(self, who: str) -> float:
        """Seconds until this pod does not get through any more."""
        begun = time.monotonic()
        while await asyncio.to_thread(self.asker.ask, who, LANDING, 0.1) != DROPPED:
            assert time.monotonic() < begun + SOON, f"{who} still gets through"
        return time.monotonic() - begun


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    with galaxy(star_wars(), prefix="late") as made:
        save(made, "land", http_rule(LANDING, {"org": "empire"}))
        save(made, "alliance", l4_rule({"org": "alliance"}))
        async with running(made) as node:
            story = Story(made, node, Asker(made))
            status = await node.status()
            assert status is not None
            envoy = int(status["envoy"]["pid"])
            os.kill(envoy, signal.SIGSTOP)
            try:
                yield story
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(envoy, signal.SIGCONT)


async def test_a_hanging_envoy_delays_no_denial_and_catches_up_by_itself(story: Story) -> None:
    status = await story.node.status()
    assert status is not None
    envoy = int(status["envoy"]["pid"])
    assert await asyncio.to_thread(story.asker.ask, "xwing", LANDING, 1.0) == "200", "nothing of Envoy's is in the way"
    save(story.made, "land", http_rule(PORT, {"org": "empire"}))
    await story.status_until(lambda s: any("no proxy has confirmed" in p for p in s["problems"]), SOON)
    story.made.manifests.remove(policy_name("alliance"))
    await story.denied("xwing")
    os.kill(envoy, signal.SIGCONT)
    await story.status_until(lambda s: not s["pending"] and not s["problems"], LATER)
    assert await asyncio.to_thread(story.asker.ask, "tiefighter", PORT, 2.0) == "503"
    assert await asyncio.to_thread(story.asker.ask, "tiefighter", LANDING, 2.0) == "403"


async def test_an_envoy_that_comes_back_gets_what_the_last_one_did_not_confirm(story: Story) -> None:
    status = await story.node.status()
    assert status is not None
    save(story.made, "land", http_rule(PORT, {"org": "empire"}))
    await story.status_until(lambda s: any("no proxy has confirmed" in p for p in s["problems"]), SOON)
    os.kill(int(status["envoy"]["pid"]), signal.SIGKILL)
    await story.status_until(lambda s: not s["pending"] and not s["problems"], LATER)
    assert await asyncio.to_thread(story.asker.ask, "tiefighter", PORT, 2.0) == "503"
    assert await asyncio.to_thread(story.asker.ask, "tiefighter", LANDING, 2.0) == "403"
