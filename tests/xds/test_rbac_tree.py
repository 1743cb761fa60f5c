"""The matcher tree means what the rule set means, for any rules and any request."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.ir import HeaderMatch, HttpRule, RuleSet
from tests.xds.make import rule, rules
from tests.xds.matcher import Request, allows, evaluate, rules_allow
from tests.xds.strategies import requests, rule_sets
from xds import denial
from xds.patterns import PatternError
from xds.rbac_tree import compile_tree, constant_tree, rule_name


@given(rule_sets, st.lists(requests, min_size=1, max_size=30))
@settings(max_examples=800, deadline=None)
def test_the_tree_allows_what_some_rule_allows_and_nothing_else(rule_set: RuleSet, asked: list[Request]) -> None:
    tree = compile_tree(rule_set)
    for request in asked:
        assert allows(tree.matcher, request) == rules_allow(rule_set, request), request


@given(rule_sets, requests)
@settings(max_examples=300, deadline=None)
def test_the_name_of_an_allow_leads_to_a_rule_that_allows(rule_set: RuleSet, request: Request) -> None:
    tree = compile_tree(rule_set)
    action = evaluate(tree.matcher, request)
    assert action is not None
    if rule_set.allows_all:
        assert action.name == denial.ALLOW_ALL
    elif rules_allow(rule_set, request):
        assert rules_allow(RuleSet(tree.names[action.name]), request)
    else:
        assert action.name in (denial.DENY, denial.AMBIGUOUS_PATH)


@given(rule_sets)
@settings(max_examples=100, deadline=None)
def test_the_same_rules_in_any_order_make_the_same_bytes(rule_set: RuleSet) -> None:
    backwards = RuleSet(tuple(reversed(rule_set.http)))
    assert _bytes(rule_set) == _bytes(backwards)


def _bytes(rule_set: RuleSet) -> bytes:
    encoded: bytes = compile_tree(rule_set).matcher.SerializeToString(deterministic=True)
    return encoded


def test_an_empty_rule_set_denies_everything() -> None:
    assert not allows(compile_tree(RuleSet()).matcher, Request())


def test_an_allow_without_rules_beside_them_allows_everything() -> None:
    action = evaluate(compile_tree(rules(rule("GET", "/a"), wildcard=True)).matcher, Request("POST", "/b"))
    assert action is not None
    assert action.name == denial.ALLOW_ALL


def test_a_single_rule_is_named_after_itself() -> None:
    wanted = rule("POST", "/v1/request-landing")
    action = evaluate(compile_tree(rules(wanted)).matcher, Request("POST", "/v1/request-landing"))
    assert action is not None
    assert action.name == rule_name(wanted)


def test_a_name_does_not_depend_on_who_asks_for_the_rule() -> None:
    assert rule_name(rule("GET", "/a")) == rule_name(HttpRule("GET", "/a"))


def test_the_query_string_is_part_of_the_path() -> None:
    matcher = compile_tree(rules(rule("GET", "/public"))).matcher
    assert allows(matcher, Request(path="/public"))
    assert not allows(matcher, Request(path="/public?a=1"))


def test_presence_of_a_header_asks_for_no_particular_value() -> None:
    matcher = compile_tree(rules(rule(x_token=None))).matcher
    assert allows(matcher, Request(headers={"x-token": ""}))
    assert not allows(matcher, Request())


def test_a_header_name_is_compared_without_case() -> None:
    matcher = compile_tree(RuleSet((HttpRule(headers=(HeaderMatch("X-Token", "1"),)),))).matcher
    assert allows(matcher, Request(headers={"x-token": "1"}))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (rule(path="["), r"path: regex '\[': .*missing \].*default/rule1"),
        (rule(method="("), "method: regex"),
        (rule(host="(?<"), "host: regex"),
        (HttpRule(headers=(HeaderMatch("x key"),)), "headers: 'x key' is not a header name"),
        (HttpRule(headers=(HeaderMatch("X-Key:"),)), "headers: 'X-Key:' is not a header name"),
    ],
)
def test_a_rule_that_cannot_be_said_names_field_and_origin(bad: HttpRule, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        compile_tree(RuleSet((bad,)))
    assert issubclass(PatternError, ValueError)


@pytest.mark.parametrize("allow", [True, False])
def test_a_constant_tree_has_one_answer_and_a_name(allow: bool) -> None:
    action = evaluate(constant_tree("why", allow=allow), Request("BREW", "/tea"))
    assert action is not None
    assert (action.name, allows(constant_tree("why", allow=allow), Request())) == ("why", allow)


@pytest.mark.parametrize(
    "form", ["/svc-{}/res", "/svc-{}/.*", "/svc-{}/[0-9]+", "/[a-z]+/svc-{}/.*x", r"/svc-{}(\?.*)?"], ids=str
)
def test_ten_thousand_rules_are_a_small_tree(form: str) -> None:
    many = rules(*(rule("GET", form.format(f"{i:05d}")) for i in range(10_000)))
    tree = compile_tree(many)
    assert len(_bytes(many)) < 3_000_000
    for number in (0, 4711, 9_999):
        for path in (f"/svc-{number:05d}/res", f"/svc-{number:05d}/7", f"/abc/svc-{number:05d}/yx", "/svc-1/res"):
            request = Request(path=path)
            near = RuleSet(tuple(r for r in many.http if f"{number:05d}" in r.path))
            assert allows(tree.matcher, request) == rules_allow(near, request)
