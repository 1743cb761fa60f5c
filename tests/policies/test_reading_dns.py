"""Facts 6.1 and 1.3, as far as reading goes: what rules.dns asks for."""

from __future__ import annotations

from typing import Any

import pytest

from policies.errors import Reason
from policies.ir import DnsRule, L7Parser
from policies.rules import Clause, ToPorts
from tests.policies.judge import Judged, judge, ports

PORT = '{port: "53", protocol: ANY}'
AT = "spec.egress[0].toPorts[0].rules.dns"


def dns(rules: str, port: str = PORT) -> dict[str, Any]:
    return ports(f"ports: [{port}], rules: {{dns: {rules}}}", "egress")


def read(rules: str) -> tuple[tuple[str, str], ...]:
    return tuple(rule.match_key for rule in _entry(judge(dns(rules))).l7 if isinstance(rule, DnsRule))


def _entry(judged: Judged) -> ToPorts:
    assert judged.valid, judged.errors
    assert judged.policy is not None
    clause: Clause = judged.policy.rules[0].egress[0]
    return clause.to_ports[0]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("{matchName: API.GitHub.com}", ("api.github.com.", "")),
        ("{matchName: api.github.com.}", ("api.github.com.", "")),
        ('{matchPattern: "*.GitHub.com"}', ("", "*.github.com.")),
        ('{matchPattern: "**.io."}', ("", "**.io.")),
        ('{matchPattern: "*"}', ("", "*")),
        ('{matchPattern: "***"}', ("", "*")),
        ('{matchPattern: "*."}', ("", "*.")),  # one label, which is not everything
        ("{}", (".", "")),  # the root and no other name
        ('{matchName: "", matchPattern: ""}', (".", "")),
    ],
)
def test_names_and_patterns_have_one_form(written: str, wanted: tuple[str, str]) -> None:
    assert read(f"[{written}]") == (wanted,)


def test_a_name_and_a_pattern_in_one_entry_are_two_rules_of_one_origin() -> None:
    judged = judge(dns('[{matchName: a.io, matchPattern: "*.b.io"}]'))
    assert (f"{AT}[0]", Reason.REWRITTEN) in judged.warnings
    rules = _entry(judged).l7
    assert [rule.match_key for rule in rules] == [("", "*.b.io."), ("a.io.", "")]
    assert {origin.path for rule in rules for origin in rule.origins} == {f"{AT}[0]"}


def test_rules_are_sorted_and_each_is_there_once() -> None:
    judged = judge(dns("[{matchName: b.io}, {matchName: a.io}, {matchName: B.io.}]"))
    assert [(rule.match_key[0], rule.origins[0].path[-3:]) for rule in _entry(judged).l7] == [
        ("a.io.", "[1]"),
        ("b.io.", "[0]"),
    ]
    assert (f"{AT}[2]", Reason.SHADOWED) in judged.warnings


@pytest.mark.parametrize("rules", ["[]", "null"])
def test_no_rules_are_no_l7(rules: str) -> None:
    assert _entry(judge(dns(rules))).parser is None


def test_any_entry_makes_the_proxy_look() -> None:
    assert _entry(judge(dns("[{}]"))).parser is L7Parser.DNS
    assert (f"{AT}[0]", Reason.SELECTS_NOTHING) in judge(dns("[{}]")).warnings


@pytest.mark.parametrize("port", ['{port: "53", protocol: UDP}', "{port: dns}", '{port: "5353", protocol: TCP}'])
def test_any_port_of_udp_and_tcp_will_do(port: str) -> None:
    assert judge(dns("[{matchName: a.io}]", port)).valid


def test_an_object_has_only_so_many() -> None:
    many = ", ".join("{matchName: a%d.io}" % i for i in range(20_001))  # noqa: UP031
    assert (AT, Reason.TOO_MANY) in judge(dns(f"[{many}]")).errors
