"""Warnings about one good object: what its author may not have meant."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from policies.errors import Reason
from policies.repository import Repository
from tests.policies.judge import clause, cnp, judge
from tests.policies.make import manifest

EMPIRE = "fromEndpoints: [{matchLabels: {org: empire}}]"
HTTP = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]"
PLAIN = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]"
FIRST_HTTP = "spec.ingress[0].toPorts[0].rules.http"


def warnings(*clauses: str, more: str = "") -> set[tuple[str, str]]:
    """(path, reason) of the warnings of a policy with these entries of ingress."""
    entries = ", ".join(f"{{{clause}}}" for clause in clauses)
    judged = judge(cnp(f"endpointSelector: {{}}, ingress: [{entries}]{more}"))
    assert judged.valid, judged.errors
    return {(path, reason) for path, reason in judged.warnings if reason != Reason.SELECTS_EVERYTHING}


VOIDED = {(FIRST_HTTP, Reason.L7_VOIDED)}


@pytest.mark.parametrize(
    "broader",
    [
        f"{EMPIRE}, {PLAIN}",
        EMPIRE,
        PLAIN,
        "fromEntities: [all]",
        f"fromEndpoints: [{{}}], {PLAIN}",
        f"{EMPIRE}, toPorts: [{{ports: [{{port: '0'}}]}}]",
        f"{EMPIRE}, toPorts: [{{ports: [{{port: '79', endPort: 81, protocol: TCP}}]}}]",
        f"{EMPIRE}, toPorts: [{{ports: [{{port: '80'}}]}}]",
    ],
)
def test_l7_rules_are_void_where_a_broader_allow_is(broader: str) -> None:
    assert warnings(f"{EMPIRE}, {HTTP}", broader) >= VOIDED


@pytest.mark.parametrize(
    "other",
    [
        f"{EMPIRE}, toPorts: [{{ports: [{{port: '81', protocol: TCP}}]}}]",
        f"{EMPIRE}, toPorts: [{{ports: [{{port: '80', protocol: UDP}}]}}]",
        f"fromEndpoints: [{{matchLabels: {{org: alliance}}}}], {PLAIN}",
        f"fromEndpoints: [{{matchLabels: {{org: empire, class: tie}}}}], {PLAIN}",
        "fromEntities: [world]",
        f"{EMPIRE}, toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{method: PUT}}]}}}}]",
        "",
        "fromEndpoints: []",
    ],
)
def test_l7_rules_hold_beside_others(other: str) -> None:
    assert not VOIDED & warnings(f"{EMPIRE}, {HTTP}", other)


def test_l7_rules_are_void_without_default_deny() -> None:
    assert warnings(f"{EMPIRE}, {HTTP}", more=", enableDefaultDeny: {ingress: false}") == VOIDED


def test_l7_rules_of_one_spec_are_void_by_another_with_the_same_subject() -> None:
    def spec(body: str) -> Any:
        return yaml.safe_load(f"{{endpointSelector: {{}}, ingress: [{{{body}}}]}}")

    raw = cnp("") | {"spec": None, "specs": [spec(f"{EMPIRE}, {HTTP}"), spec(EMPIRE)]}
    assert ("specs[0].ingress[0].toPorts[0].rules.http", Reason.L7_VOIDED) in judge(raw).warnings
    raw["specs"][1]["endpointSelector"] = {"matchLabels": {"a": "b"}}
    assert not judge(raw).warnings


@pytest.mark.parametrize(
    ("clauses", "shadowed"),
    [
        ([f"{EMPIRE}, {PLAIN}", EMPIRE], {"spec.ingress[0]"}),
        ([EMPIRE, EMPIRE], {"spec.ingress[1]"}),
        ([f"{EMPIRE}, {HTTP}", f"{EMPIRE}, {HTTP}"], {"spec.ingress[1]"}),
        (["fromCIDR: [10.1.0.0/16]", "fromCIDR: [10.0.0.0/8]"], {"spec.ingress[0]"}),
        (["fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]", "fromCIDR: [10.1.0.0/16]"], set()),
        (["fromEntities: [world-ipv4]", "fromEntities: [world]"], {"spec.ingress[0]"}),
        (["fromEntities: [host]", "fromEntities: [world]"], set()),
        ([EMPIRE, "fromEndpoints: [{matchLabels: {org: alliance}}]"], set()),
    ],
)
def test_an_entry_that_another_covers_has_no_effect(clauses: list[str], shadowed: set[str]) -> None:
    assert {path for path, reason in warnings(*clauses) if reason == Reason.SHADOWED} == shadowed


def test_an_allow_that_is_denied_has_no_effect() -> None:
    found = warnings(EMPIRE, "fromEntities: [world]", more=f", ingressDeny: [{{{EMPIRE}}}]")
    assert found == {("spec.ingress[0]", Reason.SHADOWED)}


@pytest.mark.parametrize(
    ("rules", "shadowed"),
    [
        ("{}, {method: GET}", {1}),
        ("{method: GET, path: /a}, {method: GET}", {0}),
        ("{path: '.*'}, {method: GET}", {1}),
        ("{method: GET, headers: [X-A b]}, {method: GET}", {0}),
        ("{method: GET}, {method: GET}", {1}),
        ("{method: GET}, {method: PUT, path: /a}", set()),
    ],
)
def test_an_http_rule_that_another_covers_has_no_effect(rules: str, shadowed: set[int]) -> None:
    ports = f"toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{rules}]}}}}]"
    expected = {(f"{FIRST_HTTP}[{i}]", Reason.SHADOWED) for i in shadowed}
    assert warnings(f"{EMPIRE}, {ports}") == expected


@pytest.mark.parametrize(
    "selector",
    [
        "{matchLabels: {a: b}, matchExpressions: [{key: a, operator: DoesNotExist}]}",
        "{matchLabels: {a: b}, matchExpressions: [{key: a, operator: In, values: [c, d]}]}",
        "{matchLabels: {a: b}, matchExpressions: [{key: a, operator: NotIn, values: [b]}]}",
    ],
)
def test_a_selector_that_contradicts_itself_selects_nothing(selector: str) -> None:
    assert ("spec.ingress[0]", Reason.SELECTS_NOTHING) in warnings(f"fromEndpoints: [{selector}]")
    judged = judge(cnp(f"endpointSelector: {selector}, ingress: [{{}}]"))
    assert ("spec.endpointSelector", Reason.SELECTS_NOTHING) in judged.warnings


@pytest.mark.parametrize(
    ("clause", "is_everything"),
    [
        (PLAIN, True),
        ("fromEntities: [all]", True),
        ("fromEndpoints: [{matchExpressions: [{key: 'reserved:host', operator: DoesNotExist}]}]", True),
        ("", False),
        ("fromEndpoints: [{}]", False),
        ("fromEntities: [world, cluster]", False),
        ("fromCIDR: [0.0.0.0/0]", False),
    ],
)
def test_who_opens_a_door_to_the_world_is_told(clause: str, is_everything: bool) -> None:
    judged = judge(cnp(f"endpointSelector: {{}}, ingress: [{{{clause}}}]"))
    assert (("spec.ingress[0]", Reason.SELECTS_EVERYTHING) in judged.warnings) == is_everything
    denied = judge(cnp(f"endpointSelector: {{}}, ingressDeny: [{{{clause}}}]"))
    assert Reason.SELECTS_EVERYTHING not in {reason for _, reason in denied.warnings}


def test_the_repository_knows_warnings_with_their_lines() -> None:
    repository = Repository()
    text = "# one line\n---\n" + manifest(cnp(f"endpointSelector: {{}}, ingress: [{{{EMPIRE}, {HTTP}}}, {{{EMPIRE}}}]"))
    assert repository.replace("a.yaml", text).errors == ()
    (warning,) = repository.warnings
    assert (warning.source, warning.path, warning.reason) == ("a.yaml", FIRST_HTTP, Reason.L7_VOIDED)
    assert text.splitlines()[warning.line - 1].strip() == "http:"
    assert str(warning).startswith(f"a.yaml:{warning.line}: CiliumNetworkPolicy d/p: {FIRST_HTTP}: warning: ")
    repository.remove("a.yaml")
    assert repository.warnings == ()


def asking(port: str, rules: str, where: str = "egress") -> dict[str, Any]:
    return clause(f"toEntities: [cluster], toPorts: [{{ports: [{port}], rules: {{{rules}}}}}]", where)


DNS_PORT = '{port: "53", protocol: ANY}'
KAFKA_PORT = '{port: "9092", protocol: TCP}'
AT_RULES = "spec.egress[0].toPorts[0].rules"


@pytest.mark.parametrize(
    ("port", "rules", "path"),
    [
        (DNS_PORT, 'dns: [{matchName: a.io}, {matchPattern: "*"}]', "dns[0]"),
        (DNS_PORT, 'dns: [{matchPattern: "**.io"}, {matchPattern: "*.b.io"}, {matchName: io}]', "dns[1]"),
        (DNS_PORT, "dns: [{matchName: a.io}, {matchPattern: a.io}]", "dns[0]"),  # a pattern without a star is a name
        (KAFKA_PORT, "kafka: [{role: produce, topic: t}, {topic: t}]", "kafka[0]"),
        (KAFKA_PORT, "kafka: [{apiKey: fetch}, {apiKey: fetch, topic: t}]", "kafka[1]"),
        (KAFKA_PORT, "kafka: [{role: consume, topic: t}, {apiKey: fetch, clientID: c, topic: t}]", "kafka[1]"),
    ],
)
def test_a_name_or_topic_that_another_rule_allows(port: str, rules: str, path: str) -> None:
    found = judge(asking(port, rules)).warnings
    assert [where for where, reason in found if reason == Reason.SHADOWED] == [f"{AT_RULES}.{path}"]


@pytest.mark.parametrize(
    ("port", "rules"),
    [
        (DNS_PORT, 'dns: [{matchPattern: "*.io"}, {matchName: io}, {matchName: a.b.io}]'),
        (KAFKA_PORT, "kafka: [{role: produce, topic: t}, {role: consume, topic: t}, {apiKey: deletetopics}]"),
    ],
)
def test_names_and_topics_that_say_something_each(port: str, rules: str) -> None:
    assert not [where for where, reason in judge(asking(port, rules)).warnings if reason == Reason.SHADOWED]


def test_a_topic_says_nothing_of_requests_that_name_none() -> None:
    found = judge(asking(KAFKA_PORT, "kafka: [{apiKey: heartbeat, topic: t}, {apiKey: fetch, topic: t}]")).warnings
    assert [where for where, reason in found if reason == Reason.L7_VOIDED] == [f"{AT_RULES}.kafka[0].topic"]


def test_topics_of_a_version_that_nobody_can_read() -> None:
    found = judge(asking(KAFKA_PORT, 'kafka: [{apiKey: fetch, apiVersion: "99", topic: t}]')).warnings
    assert (f"{AT_RULES}.kafka[0].apiVersion", Reason.SELECTS_NOTHING) in found
    assert not judge(asking(KAFKA_PORT, 'kafka: [{apiKey: fetch, apiVersion: "99"}]')).warnings


def test_rules_of_two_parsers_for_the_same_peers_and_ports() -> None:
    raw = cnp(
        "endpointSelector: {}, egress: ["
        f"{{toEntities: [cluster], toPorts: [{{ports: [{KAFKA_PORT}], rules: {{kafka: [{{}}]}}}}]}}, "
        '{toEntities: [all], toPorts: [{ports: [{port: "9000", endPort: 9099, protocol: TCP}], rules: {http: [{}]}}]}]'
    )
    found = judge(raw).warnings
    assert [where for where, reason in found if reason == Reason.CONFLICT] == [f"{AT_RULES}.kafka"]
