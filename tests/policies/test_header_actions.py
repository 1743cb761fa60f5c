"""Header actions and secrets in the IR: part of what a rule is, and never shown."""

from __future__ import annotations

import json
from dataclasses import replace

from policies.ir import HeaderAction, HeaderMatch, HttpRule, Mismatch, NodePolicy, RuleSet, Secret, Slot
from policies.ir_yaml import node_from_dict
from policies.types import Direction, PortRange, Protocol

PASSWORD = "open-sesame"
RULE = HttpRule(
    "GET",
    headers=(HeaderMatch("x-token", Secret(PASSWORD)),),
    header_actions=(
        HeaderAction("x-env", Mismatch.REPLACE, "prod"),
        HeaderAction("x-key", Mismatch.ADD, Secret(PASSWORD)),
        HeaderAction("x-seen", Mismatch.LOG),
    ),
)
OTHER = replace(RULE, headers=(HeaderMatch("x-token", Secret("changed")),))


def node_with(*rules: HttpRule) -> NodePolicy:
    slot = Slot("ingress:256:tcp:80", Direction.INGRESS, 256, Protocol.TCP, PortRange(80, 80), RuleSet(rules))
    return NodePolicy(1, slots=(slot,))


def test_a_secret_is_compared_like_any_text_and_shown_nowhere() -> None:
    assert Secret(PASSWORD) == PASSWORD
    shown = (
        f"{Secret(PASSWORD)} {Secret(PASSWORD)!r} {Secret(PASSWORD)!s} {RULE} {node_with(RULE)!r}",
        json.dumps(node_with(RULE).to_dict()),
    )
    assert all(PASSWORD not in text and "[redacted]" in text for text in shown)


def test_rules_that_differ_in_a_secret_or_an_action_are_two_rules() -> None:
    without = replace(RULE, header_actions=())
    turned = replace(RULE, header_actions=RULE.header_actions[::-1])
    assert len({rule.match_key for rule in (RULE, OTHER, without, turned)}) == 4
    assert len({RuleSet((rule,)).digest() for rule in (RULE, OTHER, without, turned)}) == 4


def test_actions_restrict_nothing_but_a_missing_secret_does() -> None:
    only_actions = HttpRule(header_actions=RULE.header_actions)
    assert RuleSet((only_actions,)).allows_all
    assert not RuleSet((replace(only_actions, unavailable="secret default/key is not there"),)).allows_all


def test_what_is_written_is_read_back_but_for_the_secrets() -> None:
    missing = HttpRule("PUT", unavailable="secret default/key is not there")
    written = node_with(RULE, missing).to_dict()
    assert node_from_dict(written).to_dict() == written
    assert node_from_dict(node_with(missing).to_dict()) == node_with(missing)
