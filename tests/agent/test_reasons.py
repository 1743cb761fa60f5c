"""Why a request or a connection was allowed or denied, as a view tells flows."""

from __future__ import annotations

from typing import Any

import pytest

from agent.documents.policy_text import explanation_text
from agent.views.allowance import Allowance
from agent.views.node_view import NodeView, labels_by_identity
from agent.views.packet_reasons import NO_RULE
from agent.views.reasons import Asked
from agent.views.searches import Searches
from agent.views.slot_reasons import Outcome, Traced
from flows.record import PacketKind, PacketRecord, PacketVerdict
from policies.compiling.slots import SlotBook, assign
from policies.explaining import reasons
from policies.explaining.explain import Question, explain
from policies.explaining.places import Places
from policies.explaining.scene import Scene
from policies.ir import HttpRule, RuleSet
from policies.judging.requests import Request
from policies.types import Direction, Protocol
from tests.policies.make import Node, peers, pod, policy, to_ports
from xds import denial
from xds.rbac_tree import compile_tree

DEATHSTAR, TIEFIGHTER, XWING = "10.0.0.1", "10.0.0.2", "10.0.0.3"
RULE1 = "CiliumNetworkPolicy default/rule1"
LANDING = {"method": "POST", "path": "/v1/request-landing"}


class Clock:
    """Nanoseconds; each look at it takes as long as the story says."""

    def __init__(self, step: int = 0) -> None:
        self.now, self.step = 0, step

    def __call__(self) -> int:
        self.now += self.step
        return self.now


class Story:
    """The Death Star under a policy; `ask` tells what the proxy would log of a request."""

    def __init__(
        self, *http: dict[str, Any], more: tuple[dict[str, Any], ...] = (), clock: Clock | None = None
    ) -> None:
        crew = (
            pod("deathstar", DEATHSTAR, org="empire", **{"class": "deathstar"}),
            pod("tiefighter", TIEFIGHTER, org="empire"),
            pod("xwing", XWING, org="alliance"),
        )
        rule = {"fromEndpoints": peers({"org": "empire"}), "toPorts": [to_ports("80", http=list(http))]}
        node = Node()
        assert node.apply(*crew, *more, policy("rule1", subject={"class": "deathstar"}, ingress=[rule])) == ()
        self.policy, _ = assign(node.compile().node, SlotBook())
        labels = labels_by_identity(node.identities, self.policy)
        self.view = NodeView("here", node.repository.world(), self.policy, labels, searches=Searches(clock or Clock()))
        self.scene = Scene(self.policy, node.repository.world(), labels)
        (self.slot,) = self.policy.slots

    def leaf(self, path: str) -> str:
        """The leaf of the proxy's tree that the rule with this path is in."""
        names = compile_tree(self.slot.rule_set).names
        return next(name for name, rules in names.items() if any(rule.path == path for rule in rules))

    def allowed(self, leaf: str, request: str = "POST /v1/request-landing") -> Traced:
        method, path = request.split(" ")
        return self.view.why_asked(Asked(self.slot.name, None, leaf, method, "deathstar", path))

    def denied(self, request: str, by: str = denial.DENY) -> Traced:
        method, path = request.split(" ")
        return self.view.why_asked(Asked(self.slot.name, by, "", method, "deathstar", path))


# Requests that were allowed


def test_the_leaf_names_the_rule_and_the_rule_its_policy() -> None:
    story = Story(LANDING)
    why = story.allowed(story.leaf("/v1/request-landing"))
    assert why.log == (f"allowed by {RULE1} spec.ingress[0].toPorts[0].rules.http[0] (POST /v1/request-landing)",)
    assert [(ref.kind, ref.namespace, ref.name) for ref in why.policies] == [
        ("CiliumNetworkPolicy", "default", "rule1")
    ]
    assert why.outcome is Outcome.ALLOWED


def test_two_policies_that_ask_for_the_same_are_both_named() -> None:
    same = policy(
        "rule2",
        subject={"class": "deathstar"},
        ingress=[{"fromEndpoints": peers({"org": "empire"}), "toPorts": [to_ports("80", http=[LANDING])]}],
    )
    story = Story(LANDING, more=(same,))
    why = story.allowed(story.leaf("/v1/request-landing"))
    assert [ref.name for ref in why.policies] == ["rule1", "rule2"]
    assert [origin.name for origin in why.rules] == ["rule1", "rule2"]


def test_among_joined_expressions_the_path_tells_which() -> None:
    story = Story({"path": "/ships/[0-9]+"}, {"path": "/crews/[0-9]+"})
    leaf = story.leaf("/ships/[0-9]+")
    assert leaf.startswith(denial.JOINED_PREFIX)
    ships, crews = story.allowed(leaf, "GET /ships/7"), story.allowed(leaf, "GET /crews/7")
    assert [origin.path[-8:] for origin in (*ships.rules, *crews.rules)] == [".http[0]", ".http[1]"]
    assert story.allowed(leaf, "GET /ships/8") is ships  # what is made of it is remembered by it


def test_an_allow_without_rules_is_named_instead_of_the_rules_that_it_voids() -> None:
    open_house = policy("open-house", subject={"class": "deathstar"}, ingress=[{"toPorts": [to_ports("80")]}])
    story = Story(LANDING, more=(open_house,))
    why = story.allowed(denial.ALLOW_ALL)
    assert why.log == ("allowed by CiliumNetworkPolicy default/open-house spec.ingress[0]",)
    assert why.outcome is None  # the connection is counted for it


def test_a_leaf_of_rules_that_are_gone_is_no_guess() -> None:
    why = Story(LANDING).allowed("rule:0123456789ab")
    assert why.log == (reasons.OUTDATED,)
    assert not why.policies


def test_what_an_author_wants_said_is_said_of_requests_too() -> None:
    loud = policy(
        "loud",
        subject={"class": "deathstar"},
        ingress=[{"fromEndpoints": peers({"org": "empire"}), "toPorts": [to_ports("80", http=[{"path": "/loud"}])]}],
    )
    loud["spec"]["log"] = {"value": "hear hear"}
    story = Story(LANDING, more=(loud,))
    assert [ref.logs for ref in story.allowed(story.leaf("/loud")).policies] == [("hear hear",)]


# Requests that were denied


def test_a_denial_names_what_is_in_force_the_nearest_rule_and_what_differs() -> None:
    why = Story(LANDING).denied("PUT /v1/exhaust-port")
    assert why.log == (
        "none of 1 HTTP rule matches: 403",
        f"enforced by {RULE1} spec.ingress[0]",
        f"nearest {RULE1} spec.ingress[0].toPorts[0].rules.http[0] (POST /v1/request-landing): "
        "method is PUT, not POST; path is /v1/exhaust-port, not /v1/request-landing",
    )
    assert not why.policies  # Hubble names policies of explicit denials only
    assert (why.outcome, [origin.path[-8:] for origin in why.rules]) == (Outcome.NEAR_MISS, [".http[0]"])


def test_query_strings_are_not_quoted() -> None:
    said = Story(LANDING).denied("POST /v1/request-landing?token=hunter2").log[-1]
    assert said.endswith("path is /v1/request-landing?[redacted], not /v1/request-landing")


def test_a_header_that_the_log_does_not_hold_is_not_called_missing() -> None:
    said = Story({**LANDING, "headers": ["X-Clearance: red"]}).denied("POST /v1/request-landing").log[-1]
    assert said.endswith("header x-clearance was not seen (wanted: red)")


def test_the_proxys_own_reasons_have_words() -> None:
    story = Story({"path": "/v1/.*"})
    assert story.denied("GET /v1/%2", denial.AMBIGUOUS_PATH).log[0] == (
        "servers may read it differently, the path has an escape that is none: 403"
    )
    assert story.denied("GET /v1/", denial.RETIRED).log == (reasons.RETIRED,)
    assert story.denied("GET /v1/", denial.UNDELIVERED).log == (reasons.UNDELIVERED,)
    assert story.denied("GET /v1/", "http1.codec_error").log == ("Envoy refused it by itself: http1.codec_error",)


def test_a_request_that_the_rules_of_now_would_allow_was_judged_by_others() -> None:
    assert Story(LANDING).denied("POST /v1/request-landing").log[0] == reasons.OUTDATED


def test_a_flood_of_different_denials_says_less_and_says_so() -> None:
    story = Story(LANDING, clock=Clock(step=40_000_000))
    told = [story.denied(f"PUT /v1/{number}") for number in range(50)]
    searched = [why for why in told if why.is_traced]
    assert 1 <= len(searched) < 25
    assert told[-1].log[-1] == reasons.NOT_SEARCHED
    assert story.denied("PUT /v1/0") is told[0]  # what is known costs nothing


def test_explain_says_the_same_words() -> None:
    story = Story(LANDING)
    ends = story.scene.end("default/tiefighter"), story.scene.target("default/deathstar", Protocol.TCP, 80)
    request = Request("PUT", "/v1/exhaust-port", "deathstar")
    answer = explain(story.scene, Question(*ends, Protocol.TCP, request))
    explained = "\n".join(line.plain for line in explanation_text(answer, Places({})))
    verdict, enforced, nearest = story.denied("PUT /v1/exhaust-port").log
    assert verdict in explained
    for said, label in ((enforced, "enforced by"), (nearest, "nearest")):
        assert f"{label:<12}{said.removeprefix(label + ' ')}" in explained


# Connections


def knock(who: str, port: int, story: Story, reason: int = NO_RULE) -> PacketRecord:
    return PacketRecord(
        PacketKind.POLICY_VERDICT,
        who,
        DEATHSTAR,
        destination_port=port,
        verdict=PacketVerdict.DROPPED if reason else PacketVerdict.FORWARDED,
        direction=Direction.INGRESS,
        source_identity=story.view.identity_by_ip(who),
        destination_identity=story.view.identity_by_ip(DEATHSTAR),
        drop_reason=reason,
    )


def test_a_default_deny_says_who_enforces_it_and_what_came_nearest() -> None:
    story = Story(LANDING)
    assert story.view.why_packet(knock(XWING, 80, story)).log == (
        reasons.DEFAULT_DENY,
        f"enforced by {RULE1} spec",
        f"nearest {RULE1} spec.ingress[0]: label org is alliance, not empire",
    )
    assert story.view.why_packet(knock(TIEFIGHTER, 443, story)).log[-1].endswith("port is 443/TCP, not 80/TCP")


def test_an_allowed_connection_says_by_which_clause() -> None:
    story = Story(LANDING)
    assert story.view.why_packet(knock(TIEFIGHTER, 80, story, 0)).log == (f"allowed by {RULE1} spec.ingress[0]",)


def test_a_drop_for_which_no_policy_is_to_blame_has_no_reason_of_ours() -> None:
    story = Story(LANDING)
    assert story.view.why_packet(knock(XWING, 80, story, 132)).log == ()


# The allowance


def test_time_is_saved_up_and_spent() -> None:
    clock = Clock()
    allowance = Allowance(clock, share=0.1, burst_ns=1000)

    def work() -> str:
        clock.now += 1500
        return "done"

    assert allowance.run(work) == "done"  # it may take longer than what was saved ...
    assert allowance.run(work) is None  # ... and is paid for by what comes later
    clock.now += 5001
    assert allowance.run(work) == "done"
    assert allowance.refused == 1


@pytest.mark.parametrize("name", ["RULE_PREFIX", "JOINED_PREFIX"])
def test_leaves_are_named_as_the_tree_names_them(name: str) -> None:
    story = Story(LANDING, {"path": "/a/[0-9]+"}, {"path": "/b/[0-9]+"})
    assert any(leaf.startswith(getattr(denial, name)) for leaf in compile_tree(story.slot.rule_set).names)


def test_rule_sets_that_are_kept_ready_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.views.searches.RULES_MAX", 350)
    searches = Searches(Clock())
    sets = [RuleSet((HttpRule("GET", f"/{number}"),)) for number in range(5)]
    indexes = [searches.index(one) for one in sets]
    assert searches.index(sets[4]) is indexes[4]
    assert searches.index(sets[0]) is not indexes[0]
