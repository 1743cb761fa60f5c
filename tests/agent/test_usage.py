"""Which rules are used: the book, its document, its metrics and the command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

import agent.usage.metrics
from agent.documents.status import agent_handler
from agent.from_loop import FromLoop
from agent.usage.book import Usage
from agent.usage.document import unused, usage_document
from agent.usage.metrics import Hits, RuleHits, hits_of
from agent.views.node_view import NodeView, labels_by_identity
from agent.views.searches import Searches
from agent.views.slot_reasons import Outcome
from flows.record import PacketKind, PacketRecord, PacketVerdict
from flows.tally import Count, Use
from policies.compiling.slots import SlotBook, assign
from policies.types import Direction
from tests.policies.make import Node, peers, pod, policy, to_ports
from xds.rbac_tree import rule_name

DEATHSTAR, TIEFIGHTER, XWING = "10.0.0.1", "10.0.0.2", "10.0.0.3"
CREW = (
    pod("deathstar", DEATHSTAR, org="empire", **{"class": "deathstar"}),
    pod("tiefighter", TIEFIGHTER, org="empire"),
    pod("xwing", XWING, org="alliance"),
)
LANDING, PLANS = {"method": "POST", "path": "/landing"}, {"method": "GET", "path": "/plans"}
HTTP = "spec.ingress[0].toPorts[0].rules.http[%d]"


class Story:
    """A node whose policy is edited while it counts."""

    def __init__(self, *http: dict[str, Any]) -> None:
        self.usage = Usage(1_000_000_000)
        self._node = Node()
        self._searches = Searches(lambda: 0)
        self.time = 1
        self.edit(*http)

    def edit(self, *http: dict[str, Any], deny: bool = False) -> None:
        rule = {"fromEndpoints": peers({"org": "empire"}), "toPorts": [to_ports("80", http=list(http))]}
        more: dict[str, Any] = {"ingressDeny": [{"fromEndpoints": peers({"org": "alliance"})}]} if deny else {}
        elsewhere = policy("elsewhere", subject={"class": "sandcrawler"}, ingress=[{}])
        made = policy("rule1", subject={"class": "deathstar"}, ingress=[rule], **more)
        assert self._node.apply(*CREW, elsewhere, made) == ()
        compiled, _ = assign(self._node.compile().node, SlotBook())
        labels = labels_by_identity(self._node.identities, compiled)
        self.view = NodeView("here", self._node.repository.world(), compiled, labels, searches=self._searches)
        (self.slot,) = compiled.slots
        self.time += 1
        self.usage.follow(self.view, self.now)

    @property
    def now(self) -> int:
        return self.time * 1_000_000_000

    def request(self, path: str, number: int = 1, denied: bool = False) -> None:
        self.time += 1
        rules = [rule for rule in self.slot.rule_set.http if rule.path == path]
        leaf = "deny" if denied else rule_name(rules[0])
        asked = ("GET", "deathstar", path) if denied else ()
        self.usage.requests(self.view, [(Use(self.slot.name, denied, leaf, *asked), Count(number, self.now))])

    def knock(self, who: str, reason: int = 0) -> None:
        self.time += 1
        record = PacketRecord(
            PacketKind.POLICY_VERDICT,
            who,
            DEATHSTAR,
            destination_port=80,
            verdict=PacketVerdict.DROPPED if reason else PacketVerdict.REDIRECTED,
            direction=Direction.INGRESS,
            source_identity=self.view.identity_by_ip(who),
            destination_identity=self.view.identity_by_ip(DEATHSTAR),
            drop_reason=reason,
        )
        self.usage.packets(self.view, [record], self.now)

    @property
    def document(self) -> dict[str, Any]:
        return usage_document(self.usage, self.view.policies, self.view.groups)

    @property
    def rules(self) -> dict[str, dict[str, Any]]:
        return {rule["path"]: rule for rule in self.document["rules"]}


def test_a_rule_counts_what_it_allowed_and_when_last() -> None:
    story = Story(LANDING, PLANS)
    story.request("/landing", 3)
    story.request("/landing")
    landing = story.rules[HTTP % 0]
    assert (landing["allowed"], landing["near_miss"], landing["last_hit"]) == (4, 0, story.time)
    assert [rule["path"] for rule in unused(story.document["rules"])] == ["spec.ingress[0]", HTTP % 1]


def test_a_near_miss_is_no_use() -> None:
    story = Story(LANDING)
    story.request("/landing", denied=True)
    landing = story.rules[HTTP % 0]
    assert (landing["near_miss"], landing["used"], landing["last_hit"]) == (1, False, None)
    assert landing["last_near_miss"] == story.time


def test_clauses_are_counted_by_connections() -> None:
    story = Story(LANDING)
    story.edit(LANDING, deny=True)
    story.knock(TIEFIGHTER)
    story.knock(XWING, 181)
    story.knock(XWING, 181)
    assert story.rules["spec.ingress[0]"]["allowed"] == 1
    denying = story.rules["spec.ingressDeny[0]"]
    assert (denying["action"], denying["denied"], denying["used"]) == ("deny", 2, True)


def test_policies_that_select_no_pod_of_this_node_are_not_listed() -> None:
    assert {rule["name"] for rule in Story(LANDING).document["rules"]} == {"rule1"}


def test_an_edit_keeps_the_numbers_of_rules_that_stay() -> None:
    story = Story(LANDING, PLANS)
    story.request("/landing")
    story.request("/plans")
    story.edit(LANDING, {**PLANS, "path": "/plans2"})
    rules = story.rules
    assert [rules[HTTP % number]["allowed"] for number in (0, 1)] == [1, 0]
    assert rules[HTTP % 1]["since"] > rules[HTTP % 0]["since"]


def test_a_rule_in_the_place_of_another_starts_anew() -> None:
    story = Story(LANDING, PLANS)
    story.request("/landing")
    story.edit(PLANS)
    assert story.rules[HTTP % 0]["allowed"] == 0
    assert HTTP % 1 not in story.rules


def test_requests_that_nobody_knows_one_by_one_leave_rules_in_doubt() -> None:
    story = Story(LANDING, PLANS)
    untold = Use(story.slot.name, False, "rules:0123456789ab", is_told=False)
    story.usage.requests(story.view, [(untold, Count(9, 1))])
    story.request("/landing")
    assert (story.rules[HTTP % 0]["used"], story.rules[HTTP % 1]["used"]) == (True, None)
    assert [rule["path"] for rule in unused(story.document["rules"])] == ["spec.ingress[0]"]
    assert story.document["untraced"]["allowed"] == 9


# Metrics


async def page(usage: Usage) -> list[str]:
    registry = CollectorRegistry()
    registry.register(RuleHits(FromLoop(lambda: hits_of(usage), Hits())))
    return (await asyncio.to_thread(generate_latest, registry)).decode().splitlines()


async def test_metrics_of_rules_that_were_used() -> None:
    story = Story(LANDING, PLANS)
    story.request("/landing", 2)
    about, rule = 'kind="CiliumNetworkPolicy",name="rule1",namespace="default"', f'rule="{HTTP % 0}"'
    lines = await page(story.usage)
    hits = [line for line in lines if line.startswith("deflector_policy_rule_hits_total")]
    assert hits == [f'deflector_policy_rule_hits_total{{{about},outcome="allowed",{rule}}} 2.0']
    last = "deflector_policy_rule_last_hit_timestamp_seconds"
    assert f"{last}{{{about},{rule}}} {float(story.time)}" in lines


async def test_too_many_series_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.usage.metrics, "SERIES_MAX", 1)
    story = Story(LANDING, PLANS)
    story.request("/landing")
    story.request("/plans")
    lines = await page(story.usage)
    assert len([line for line in lines if line.startswith("deflector_policy_rule_hits_total")]) == 1
    assert "deflector_policy_rule_series_left_out 2.0" in lines


# The command


async def run(*argv: str) -> tuple[int, str]:
    code = "from agent.__main__ import main; main()"
    process = await asyncio.create_subprocess_exec(
        ".venv/bin/python", "-c", code, *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_the_command_lists_what_is_unused(tmp_path: Path) -> None:
    story = Story(LANDING, PLANS)
    story.request("/landing")
    server, socket = grpc.aio.server(), tmp_path / "agent.sock"

    async def document() -> dict[str, Any]:
        return story.document

    server.add_generic_rpc_handlers((agent_handler(dict, lambda namespace, name: None, document, document),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        argv = ("policy", "usage", "--run-dir", str(tmp_path))
        code, out = await run(*argv)
        assert code == 0
        assert "allow POST /landing" in out
        assert "allow 80/TCP from org=empire" in out
        assert "2 of 3 rules unused since 1970-01-01 00:00:01Z" in out
        code, out = await run(*argv, "--unused", "-o", "json")
        assert code == 1
        assert [rule["path"] for rule in json.loads(out)["rules"]] == ["spec.ingress[0]", HTTP % 1]
    finally:
        await server.stop(None)


async def test_no_agent_is_one_line(tmp_path: Path) -> None:
    code, out = await run("policy", "usage", "--run-dir", str(tmp_path))
    assert code == 2
    assert len(out.splitlines()) == 1


def test_outcomes_are_words_of_the_document() -> None:
    rule = Story(LANDING).rules[HTTP % 0]
    assert {outcome.value.replace("-", "_") for outcome in Outcome} <= rule.keys()
