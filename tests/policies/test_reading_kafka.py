"""Facts 5 and 1.3, as far as reading goes: what rules.kafka asks for, and what roles stand for on a node."""

from __future__ import annotations

from typing import Any

import pytest

from policies.compiling import roles
from policies.compiling.roles import KafkaRoles
from policies.errors import Reason
from policies.ir import KafkaRule, L7Parser
from policies.kafka_keys import CILIUM_ROLES, ROLES
from policies.rules import ToPorts
from tests.policies.judge import judge, ports

AT = "spec.ingress[0].toPorts[0].rules.kafka"


def kafka(rules: str, port: str = '{port: "9092", protocol: TCP}') -> dict[str, Any]:
    return ports(f"ports: [{port}], rules: {{kafka: {rules}}}")


def entry_of(rules: str) -> ToPorts:
    judged = judge(kafka(rules))
    assert judged.valid, judged.errors
    assert judged.policy is not None
    return judged.policy.rules[0].ingress[0].to_ports[0]


def read(rules: str) -> tuple[tuple[Any, ...], ...]:
    return tuple(rule.match_key for rule in entry_of(f"[{rules}]").l7)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("{}", ((), -1, "", "")),
        ("{apiKey: Produce}", ((0,), -1, "", "")),
        ("{apiKey: alterconfigs, apiVersion: '0'}", ((33,), 0, "", "")),
        ("{apiVersion: '+12'}", ((), 12, "", "")),
        ("{clientID: hq-1, topic: plans}", ((), -1, "hq-1", "plans")),
        ("{role: produce, topic: plans}", (ROLES["produce"], -1, "", "plans")),
        ("{role: consume}", (ROLES["consume"], -1, "", "")),
    ],
)
def test_what_is_asked_for(written: str, wanted: tuple[Any, ...]) -> None:
    assert read(written) == (wanted,)


def test_rules_are_sorted_and_each_is_there_once() -> None:
    judged = judge(kafka("[{topic: b}, {topic: a}, {topic: b}]"))
    assert judged.policy is not None
    rules = judged.policy.rules[0].ingress[0].to_ports[0].l7
    assert [rule.match_key[-1] for rule in rules] == ["a", "b"]
    assert (f"{AT}[2]", Reason.SHADOWED) in judged.warnings


@pytest.mark.parametrize("rules", ["[]", "null"])
def test_no_rules_are_no_l7(rules: str) -> None:
    assert entry_of(rules).parser is None
    assert judge(kafka(rules, '{port: "9092"}')).valid  # nor do they need TCP then


def test_any_entry_makes_the_proxy_look() -> None:
    assert entry_of("[{}]").parser is L7Parser.KAFKA


def test_apis_that_cilium_does_not_know_are_read_here_only() -> None:
    judged = judge(kafka("[{apiKey: deletegroups}]"))
    assert judged.valid
    assert (f"{AT}[0].apiKey", Reason.BAD_KAFKA) in judged.by_cilium


@pytest.mark.parametrize(
    ("written", "field"),
    [("{apiVersion: '32768'}", "apiVersion"), (r"{topic: 'a\b'}", "topic"), (r'{clientID: "a\nb"}', "clientID")],
)
def test_what_nothing_could_match_is_refused(written: str, field: str) -> None:
    assert (f"{AT}[0].{field}", Reason.BAD_KAFKA) in judge(kafka(f"[{written}]")).errors


@pytest.mark.parametrize("topic", [".", "..", "t" * 250])
def test_a_topic_that_no_broker_has_is_told_of(topic: str) -> None:
    assert (f"{AT}[0].topic", Reason.SELECTS_NOTHING) in judge(kafka(f"[{{topic: '{topic}'}}]")).warnings


def test_a_node_may_take_roles_for_ciliums() -> None:
    entry = entry_of("[{role: produce, topic: t}, {apiKey: produce}, {role: consume, clientID: c}]")
    assert roles.resolve(entry, KafkaRoles.NATIVE) is entry
    found = roles.resolve(entry, KafkaRoles.CILIUM)
    assert found.ports == entry.ports
    assert [rule.match_key for rule in found.l7] == [
        ((0,), -1, "", ""),
        (CILIUM_ROLES["produce"], -1, "", "t"),
        (CILIUM_ROLES["consume"], -1, "c", ""),
    ]
    plain = ToPorts(entry.ports, (KafkaRule((0,)),))
    assert roles.resolve(plain, KafkaRoles.CILIUM) is plain
