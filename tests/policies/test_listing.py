"""The rules of an object one by one, as usage counts and shows them."""

from __future__ import annotations

from policies.explaining.listing import content_of, rules_of
from policies.rules import Policy
from tests.policies.judge import cnp, judge

SPEC = """
endpointSelector: {}, egress: [
  {toEntities: [cluster], toPorts: [
    {ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*.io"}, {matchName: b.org, matchPattern: b}]}},
    {ports: [{port: "9092", protocol: TCP}], rules: {kafka: [%s]}}]}]
"""
AT = "spec.egress[0]"


def made(kafka: str) -> Policy:
    policy = judge(cnp(SPEC % kafka)).policy
    assert policy is not None
    return policy


def test_rules_of_every_parser_are_listed_behind_their_clause() -> None:
    listed = [
        (rule.origin.path, rule.words) for rule in rules_of(made("{role: consume, topic: t}, {apiKey: fetch}, {}"))
    ]
    assert listed == [
        (AT, "53/ANY, 9092/TCP with entity cluster"),
        (f"{AT}.toPorts[0].rules.dns[0]", "pattern *.io"),
        (f"{AT}.toPorts[0].rules.dns[1]", "pattern b or name b.org"),
        (f"{AT}.toPorts[1].rules.kafka[0]", "role consume topic t"),
        (f"{AT}.toPorts[1].rules.kafka[1]", "fetch"),
        (f"{AT}.toPorts[1].rules.kafka[2]", "any request"),
    ]


def test_what_a_rule_says_changes_with_it_and_not_with_others() -> None:
    before, after = content_of(made("{topic: a}, {topic: b}")), content_of(made("{topic: a}, {topic: c}"))
    changed = {origin.path for origin in before if before[origin] != after[origin]}
    assert changed == {f"{AT}.toPorts[1].rules.kafka[1]"}
