"""Facts 4.1 and 4.3, as far as reading goes: what rules.http asks for, and what comes of secrets."""

from __future__ import annotations

from typing import Any

import pytest

from policies.compiling.secret_headers import resolve
from policies.ir import HeaderAction, HeaderMatch, HttpRule, Mismatch
from policies.objects import PodKey, Secret
from policies.rules import SecretHeader, ToPorts
from tests.policies.judge import ccnp, judge, ports

BODY = "ports: [{port: '80', protocol: TCP}], rules: {http: [%s]}"


def entry_of(rules: str) -> ToPorts:
    return only_entry(ports(BODY % rules))


def only_entry(raw: dict[str, Any]) -> ToPorts:
    judged = judge(raw)
    assert judged.policy is not None, judged.errors
    (entry,) = judged.policy.rules[0].ingress[0].to_ports
    return entry


def rule_of(rule: str) -> HttpRule:
    (found,) = entry_of(rule).l7
    return found


def secrets(**values: dict[str, str]) -> dict[PodKey, Secret]:
    return {PodKey("d", name): Secret("d", name, found) for name, found in values.items()}


def test_4_1_patterns_are_taken_as_they_are() -> None:
    found = rule_of("{path: '/public(\\?.*)?', method: GET|POST, host: 'A\\.io:80'}")
    assert (found.path, found.method, found.host) == ("/public(\\?.*)?", "GET|POST", "A\\.io:80")


@pytest.mark.parametrize(
    ("written", "match"),
    [
        ("X-Key value", HeaderMatch("x-key", "value")),
        ("X-Key: value", HeaderMatch("x-key", "value")),
        ("X-Key a b: c", HeaderMatch("x-key", "a b: c")),
        ("X-Key", HeaderMatch("x-key")),
    ],
)
def test_4_1_headers_are_split_at_the_first_blank(written: str, match: HeaderMatch) -> None:
    assert rule_of(f"{{headers: ['{written}']}}").headers == (match,)


def test_4_1_entries_are_alternatives_and_each_is_its_own_origin() -> None:
    found = entry_of("{path: /b}, {path: /a}, {}")
    assert [rule.path for rule in found.l7] == ["", "/a", "/b"]
    assert [rule.origins[0].path.removeprefix("spec.ingress[0].toPorts[0].") for rule in found.l7] == [
        "rules.http[2]",
        "rules.http[1]",
        "rules.http[0]",
    ]


def test_4_1_equal_entries_are_one_rule_that_the_first_names() -> None:
    (found,) = entry_of("{path: /a}, {path: /a}").l7
    assert found.origins[0].path.endswith("http[0]")


@pytest.mark.parametrize(
    ("match", "headers", "actions"),
    [
        ("name: X-A, value: b", [HeaderMatch("x-a", "b")], []),
        ("name: X-A", [HeaderMatch("x-a")], []),
        ("name: X-A, value: ''", [HeaderMatch("x-a")], []),
        *((f"name: X-A, value: b, mismatch: {action}", [], [HeaderAction("x-a", action, "b")]) for action in Mismatch),
        ("name: X-A, mismatch: LOG", [], [HeaderAction("x-a", Mismatch.LOG)]),
    ],
)
def test_4_3_a_match_with_an_action_decides_nothing(match: str, headers: Any, actions: Any) -> None:
    found = rule_of(f"{{headerMatches: [{{{match}}}]}}")
    assert (list(found.headers), list(found.header_actions)) == (headers, actions)


def test_4_3_actions_keep_their_order_beside_plain_headers() -> None:
    found = rule_of(
        "{headers: [B c], headerMatches: [{name: z, mismatch: LOG}, {name: a, value: x}, {name: b, mismatch: DELETE}]}"
    )
    assert found.headers == (HeaderMatch("a", "x"), HeaderMatch("b", "c"))
    assert [action.name for action in found.header_actions] == ["z", "b"]


WITH_SECRET = "{path: /a, headerMatches: [{name: k, secret: {name: s}%s}, {name: e, value: f, mismatch: ADD}]}"


def test_4_3_a_rule_that_waits_for_its_secret_matches_nothing() -> None:
    entry = entry_of(WITH_SECRET % "")
    (rule,) = entry.l7
    assert rule.unavailable
    (waiting,) = entry.secret_rules
    assert waiting.expects == (SecretHeader("k", "d", "s"), HeaderAction("e", Mismatch.ADD, "f"))
    (still,) = resolve(entry, {}).l7
    assert still.unavailable == "no value in Secret d/s"


def test_4_3_the_secrets_value_takes_precedence_over_the_inline_one() -> None:
    entry = entry_of(WITH_SECRET % ", value: inline")
    (found,) = resolve(entry, secrets(s={"key": "hidden"})).l7
    assert found.headers == (HeaderMatch("k", "hidden"),)
    assert found.header_actions == (HeaderAction("e", Mismatch.ADD, "f"),)
    assert not found.unavailable
    assert "hidden" not in repr(found)
    (found,) = resolve(entry, {}).l7
    assert found.headers == (HeaderMatch("k", "inline"),)


def test_4_3_a_secret_with_an_action() -> None:
    (found,) = resolve(entry_of(WITH_SECRET % ", mismatch: REPLACE"), secrets(s={"key": "v"})).l7
    assert found.header_actions == (HeaderAction("k", Mismatch.REPLACE, "v"), HeaderAction("e", Mismatch.ADD, "f"))


def test_4_3_of_a_secret_with_two_values_nobody_knows_which_is_meant() -> None:
    (found,) = resolve(entry_of(WITH_SECRET % ""), secrets(s={"a": "1", "b": "2"})).l7
    assert found.unavailable


def test_4_3_a_secret_is_looked_for_where_the_policy_is_or_where_it_says() -> None:
    def place(raw: dict[str, Any]) -> str:
        (waiting,) = only_entry(raw).secret_rules
        (expected,) = waiting.expects
        assert isinstance(expected, SecretHeader)
        return expected.namespace

    rule = "{headerMatches: [{name: k, secret: {name: s%s}}]}"
    clusterwide = f"endpointSelector: {{}}, ingress: [{{toPorts: [{{{BODY % (rule % '')}}}]}}]"
    assert place(ports(BODY % (rule % ""))) == "d"
    assert place(ports(BODY % (rule % ", namespace: n"))) == "n"
    assert place(ccnp(clusterwide)) == "default"


def test_rules_that_need_a_secret_are_sorted_among_the_others() -> None:
    entry = entry_of(f"{{path: /z}}, {WITH_SECRET % ''}, {{path: /0}}")
    assert [rule.path for rule in resolve(entry, secrets(s={"k": "v"})).l7] == ["/0", "/a", "/z"]
