"""Which leaf let a request pass, as the real Envoy's log names it, is the rule that the agent then names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from seen import seen_pb2

from agent.views.policy_refs import PolicyRefs
from agent.views.reasons import Asked, RequestReasons
from agent.views.searches import Searches
from agent.views.slot_reasons import SlotReasons, Traced
from flows.accesslog.decode import judged
from policies.ir import HeaderAction, HeaderMatch, HttpRule, Mismatch, NodePolicy, Slot
from policies.types import Origin
from tests.features.live import HttpClient, origin
from tests.features.world import World, world
from tests.xds.make import slot


def rule(number: int, method: str = "", path: str = "", **more: Any) -> HttpRule:
    return HttpRule(method, path, origins=(Origin("CiliumNetworkPolicy", "default", f"p{number}", "spec"),), **more)


RULES = (
    rule(1, "GET", "/exact"),
    rule(2, "GET", "/prefix/.*"),
    rule(3, "GET", "/ships/[0-9]+"),
    rule(4, "GET", "/crews/[0-9]+"),
    rule(5, "GET", "/hosted", host="deathstar"),
    rule(6, "POST", headers=(HeaderMatch("x-clearance", "red"),)),
    rule(7, "GET", "/acting", header_actions=(HeaderAction("X-A", Mismatch.ADD, "1"),)),
)


@dataclass
class Story:
    world: World
    client: HttpClient
    slot: Slot
    reasons: RequestReasons
    asked: int = 0

    async def ask(self, method: str, path: str, *headers: tuple[str, str]) -> Traced:
        """Ask, and say why as the agent would."""
        await self.client.get(path, method=method, headers=headers)
        self.asked += 1
        entry = seen_pb2.Entry.FromString((await self.world.logged(self.asked))[-1].SerializeToString())
        result, leaf = judged(entry.common_properties.metadata)
        denied, allowed = (None, leaf) if result == "allowed" else (leaf, "")
        what = (method, entry.request.authority, entry.request.path)
        return self.reasons.of(Asked(self.slot.name, denied, allowed, *what))


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    async with origin() as server, world(tmp_path, server.port) as one:
        await one.apply(*RULES)
        made = slot("web", *RULES)
        reasons = RequestReasons(SlotReasons(NodePolicy(1, slots=(made,)), PolicyRefs(1, {})), Searches(lambda: 0))
        yield Story(one, await one.client(), made, reasons)


async def test_the_rule_that_let_a_request_pass_is_named(story: Story) -> None:
    told = {
        "/exact": await story.ask("GET", "/exact"),
        "/prefix/1": await story.ask("GET", "/prefix/1"),
        "/ships/7": await story.ask("GET", "/ships/7"),
        "/crews/7": await story.ask("GET", "/crews/7"),
        "/acting": await story.ask("GET", "/acting"),
        "POST": await story.ask("POST", "/", ("X-Clearance", "red")),
    }
    assert {asked: [origin.name for origin in why.rules] for asked, why in told.items()} == {
        "/exact": ["p1"],
        "/prefix/1": ["p2"],
        "/ships/7": ["p3"],
        "/crews/7": ["p4"],
        "/acting": ["p7"],
        "POST": ["p6"],
    }


async def test_a_denial_is_told_with_what_came_nearest(story: Story) -> None:
    why = await story.ask("GET", "/exactly")
    assert why.log[0] == "none of 7 HTTP rules matches: 403"
    assert [origin.name for origin in why.rules] == ["p1"]
    why = await story.ask("POST", "/", ("X-Clearance", "blue"))
    assert why.log[-1].endswith("header x-clearance was not seen (wanted: red)")
