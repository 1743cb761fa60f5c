"""The Star Wars story, told with its reasons: a whole node, the real kernel and the real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from conformance import netns
from conformance.blueprint import star_wars
from conformance.galaxy import NODE, Galaxy, galaxy
from conformance.node import DEFLECTOR, Node, running
from tests.agent.galaxy import DROPPED, LANDING, PORT, Asker, http_rule, save

pytestmark = pytest.mark.privileged

RULE1 = "CiliumNetworkPolicy default/rule1"
HTTP = f"{RULE1} spec.ingress[0].toPorts[0].rules.http[0] (POST /v1/request-landing)"
PAGE = "127.0.0.1:9966"
PATIENCE = 10.0


@dataclass
class Story:
    made: Galaxy
    node: Node

    async def inside(self, *argv: str) -> tuple[int, str]:
        """Exit code and output of a command beside the node."""
        process = await asyncio.create_subprocess_exec(
            *netns.inside(self.made.namespace(NODE), argv),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    async def deflector(self, *argv: str) -> tuple[int, str]:
        return await self.inside(str(DEFLECTOR), *argv, "--run-dir", str(self.made.run_dir))

    async def observed(self, awaited: str, *argv: str) -> list[str]:
        """Lines of observe, as soon as some of them have the awaited words."""
        async with asyncio.timeout(PATIENCE):
            while awaited not in (out := (await self.deflector("observe", "--all", *argv))[1]):
                await asyncio.sleep(0.05)
        return out.splitlines()

    async def usage(self) -> dict[str, dict[str, Any]]:
        """By path of the rule."""
        _, out = await self.deflector("policy", "usage", "-o", "json")
        return {rule["path"]: rule for rule in json.loads(out)["rules"]}


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    with galaxy(star_wars(), prefix="why") as made:
        save(made, "rule1", http_rule(LANDING, {"org": "empire"}), http_rule(("GET", "/v1/plans"), {"org": "sith"}))
        async with running(made, ("--hubble-metrics-server", PAGE)) as node:
            yield Story(made, node)


async def test_the_story_with_its_reasons(story: Story) -> None:
    asker = Asker(story.made)
    assert await asyncio.to_thread(asker.ask, "tiefighter", LANDING, 5.0) == "200"
    assert await asyncio.to_thread(asker.ask, "tiefighter", (PORT[0], f"{PORT[1]}?code=hunter2"), 5.0) == "403"
    assert await asyncio.to_thread(asker.ask, "xwing", LANDING, 0.5) == DROPPED

    requests = await story.observed("403 ", "--type", "l7", "--why")
    denied = next(i for i, line in enumerate(requests) if "http-request DROPPED" in line)
    assert requests[denied + 1 : denied + 4] == [
        "    none of 1 HTTP rule matches: 403",
        f"    enforced by {RULE1} spec.ingress[0]",
        f"    nearest {HTTP}: method is PUT, not POST; path is /v1/exhaust-port?[redacted], not /v1/request-landing",
    ]
    allowed = next(i for i, line in enumerate(requests) if "http-request FORWARDED" in line)
    assert requests[allowed + 1] == f"    allowed by {HTTP}"
    assert "hunter2" not in "\n".join(requests)

    drops = await story.observed("Policy denied", "--type", "drop", "--pod", "xwing", "--why")
    assert drops[1:4] == [
        "    default deny: no rule allows it",
        f"    enforced by {RULE1} spec",
        f"    nearest {RULE1} spec.ingress[0]: label org is alliance, not empire",
    ]

    flows = [json.loads(line)["flow"] for line in await story.observed("403", "--type", "l7", "-o", "json")]
    forwarded = [flow for flow in flows if flow["l7"].get("type") == "REQUEST" and flow["verdict"] == "FORWARDED"]
    assert [p["name"] for p in forwarded[0]["ingress_allowed_by"]] == ["rule1"]
    dropped = [flow for flow in flows if flow["verdict"] == "DROPPED"]
    assert not any("ingress_denied_by" in flow for flow in dropped)  # Hubble names those of explicit denials only

    used = await story.usage()
    http = used["spec.ingress[0].toPorts[0].rules.http[0]"]
    assert (http["allowed"], http["near_miss"], http["used"]) == (1, 1, True)
    assert used["spec.ingress[0]"]["allowed"] == 2  # connections
    assert used["spec.ingress[0]"]["near_miss"] >= 1
    code, out = await story.deflector("policy", "usage", "--unused")
    assert code == 1
    assert "spec.ingress[1].toPorts[0].rules.http[0]" in out
    assert "2 of 4 rules unused since" in out
    assert "rules.http[0] (POST" not in out

    _, page = await story.inside("curl", "-sf", f"http://{PAGE}/metrics")
    where = f'kind="CiliumNetworkPolicy",name="rule1",namespace="default",outcome="%s",rule="{http["path"]}"'
    for outcome in ("allowed", "near-miss"):
        assert f"deflector_policy_rule_hits_total{{{where % outcome}}} 1.0" in page.splitlines()


async def test_an_edited_rule_is_counted_anew_and_others_are_not(story: Story) -> None:
    asker = Asker(story.made)
    assert await asyncio.to_thread(asker.ask, "tiefighter", LANDING, 5.0) == "200"
    save(story.made, "rule1", http_rule(LANDING, {"org": "empire"}), http_rule(PORT, {"org": "empire"}))

    async def lands() -> bool:
        return await asyncio.to_thread(asker.ask, "tiefighter", PORT, 5.0) != "403"

    async with asyncio.timeout(PATIENCE):
        while not await lands():
            pass
    used = await story.usage()
    assert used["spec.ingress[0].toPorts[0].rules.http[0]"]["allowed"] == 1
    edited = used["spec.ingress[1].toPorts[0].rules.http[0]"]
    assert edited["allowed"] == 1
    assert edited["since"] > used["spec.ingress[0].toPorts[0].rules.http[0]"]["since"]
