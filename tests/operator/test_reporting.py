"""What a node tells of itself: which policies proxies keep from being as they are written, and what mends itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.cluster.node_report import Fault, NodeReport
from agent.cluster.reporter import Reporter
from agent.node import reporting
from agent.node.policy_loop import Enforced, policies_behind
from agent.node.reporting import Reporting, report_of
from policies.errors import PolicyError
from policies.ir import HttpRule, PeerRule, RuleSet, Verdict
from policies.types import Origin
from tests.agent.test_regenerate import DEATHSTAR, SLOT, TIEFIGHTER, Story, may_all, node
from tests.cluster.stage import until

RULE1 = "CiliumNetworkPolicy default/rule1"


def may(path: str, policy: str) -> PeerRule:
    origin = Origin("CiliumNetworkPolicy", "default", policy, "spec.ingress[0]")
    rules = RuleSet((HttpRule(path=path, origins=(origin,)),))
    return PeerRule((TIEFIGHTER,), Verdict.REDIRECT, rule_set=rules)


async def test_policies_whose_rules_a_proxy_refuses_are_behind() -> None:
    story = Story()
    await story.want(may("/a", "rule1"))
    story.effects.refuse = {f"{SLOT}:1": "the regex is too large", SLOT: "the regex is too large"}
    wanted = may("/b", "rule1")
    outcome = await story.want(wanted)
    assert list(outcome.behind) == [DEATHSTAR]
    assert "the regex is too large" in outcome.behind[DEATHSTAR]
    assert policies_behind(node(wanted), outcome.behind) == {RULE1: outcome.behind[DEATHSTAR]}
    story.effects.refuse = {}
    assert not (await story.want(may("/c", "rule1"))).behind


async def test_a_slot_that_nobody_confirms_is_of_policies_that_are_behind() -> None:
    story = Story()
    story.effects.silent = {SLOT}
    outcome = await story.want(may("/a", "rule1"))
    assert outcome.behind == {DEATHSTAR: f"slot {SLOT}: no proxy has confirmed it yet"}
    assert not (await Story().want(may_all(TIEFIGHTER))).behind


def test_what_is_wrong_is_told_of_the_policy_or_else_of_the_node() -> None:
    state = Enforced(1, files={RULE1: "1/u"}, complete=True)
    assert report_of("one", state).complete
    error = PolicyError("CiliumNetworkPolicy", "default", "rule1", "", "IdentitiesExhausted", "none left")
    told = report_of("one", replace(state, compile_errors=(error,)))
    assert [fault.policy for fault in told.faults] == [RULE1]
    behind = replace(state, complete=False, degraded=("slot x: refused",), behind={RULE1: "slot x: refused"})
    assert report_of("one", behind).faults == (Fault(RULE1, "slot x: refused"),)
    assert not report_of("one", behind).problems
    full = replace(state, complete=False, degraded=("maps are full",))
    assert report_of("one", full).problems == ("maps are full",)


class Told(Reporter):
    """Keeps what it is to report."""

    def __init__(self) -> None:
        self.reports: list[NodeReport] = []

    def take(self, report: NodeReport) -> None:
        self.reports.append(report)


async def test_what_mends_itself_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "PATIENCE_SECONDS", 0.1)
    told = Told()
    made = Reporting("one", told)
    made.take(Enforced())  # nothing is enforced yet
    late = Enforced(1, files={RULE1: "1/u"}, complete=False, degraded=("slot x: late",), behind={RULE1: "late"})
    made.take(late)
    made.take(replace(late, complete=True, degraded=(), behind={}))
    assert [report.complete for report in told.reports] == [True]
    made.take(late)
    await until(lambda: len(told.reports) == 2)
    assert not told.reports[1].complete
    made.take(replace(late, complete=True, degraded=(), behind={}))
    assert told.reports[2].complete
    assert made._waiting is None
