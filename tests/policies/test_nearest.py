"""What came nearest: the words, the order of preference, and the index against a look at each rule."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.explaining.nearest import NearMisses, differences, explain_denial
from policies.ir import HeaderMatch, HttpRule, RuleSet, Secret
from policies.judging.evaluate import decide_request, rule_matches
from policies.judging.requests import Request, arrive
from policies.types import Origin
from tests.xds.strategies import rule_sets

LANDING = HttpRule("POST", "/v1/request-landing", origins=(Origin("CiliumNetworkPolicy", "default", "rule1", "spec"),))
_requests = st.builds(
    Request,
    st.sampled_from(["GET", "POST", "PUT", "GETS"]),
    st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/b", "/a?x=1", "/a.b", "/a/12", "/A", "//a"]),
    st.sampled_from(["a.example", "b.example", "axexample", "a.example:80"]),
    st.lists(st.tuples(st.sampled_from(["x-a", "X-B"]), st.sampled_from(["1", "2", ""])), max_size=3).map(tuple),
)


def words(rules: RuleSet, request: Request) -> str:
    return str(explain_denial(rules, request))


def test_each_field_that_differs_is_named() -> None:
    assert words(RuleSet((LANDING,)), Request("PUT", "/v1/exhaust-port")) == (
        "CiliumNetworkPolicy default/rule1 spec (POST /v1/request-landing): "
        "method is PUT, not POST; path is /v1/exhaust-port, not /v1/request-landing"
    )


def test_a_missing_header_and_a_wrong_one() -> None:
    rules = RuleSet((HttpRule(headers=(HeaderMatch("x-token", "1"), HeaderMatch("x-trace"))),))
    found = words(rules, Request(headers=(("X-Token", "2"),)))
    assert found.endswith("header x-token is 2, not 1; header x-trace is missing")


def test_a_secret_is_never_shown() -> None:
    rules = RuleSet((HttpRule(headers=(HeaderMatch("x-token", Secret("hunter2")),)),))
    for sent in ((), (("x-token", "guess"),)):
        nearest = explain_denial(rules, Request(headers=sent))
        assert nearest is not None
        for shown in (str(nearest), str(nearest.to_dict()), repr(nearest.to_dict()["differs"])):
            assert "hunter2" not in shown
            assert "guess" not in shown


def test_a_rule_whose_secret_is_away_says_so() -> None:
    rules = RuleSet((HttpRule("GET", unavailable="Secret default/token is not there"),))
    assert words(rules, Request("GET")).endswith("secret is missing (wanted: Secret default/token is not there)")


def test_fewer_differences_come_first_then_the_right_path() -> None:
    rules = RuleSet((HttpRule("GET", "/a"), HttpRule("POST", "/b"), HttpRule("POST", "/c", "h")))
    nearest = explain_denial(rules, Request("POST", "/a", "x"))
    assert nearest is not None
    assert (nearest.rule, nearest.others) == (HttpRule("GET", "/a"), 1)


def test_of_many_paths_the_one_that_begins_most_alike() -> None:
    rules = RuleSet(tuple(HttpRule("GET", f"/svc-{number:05d}/[0-9]+") for number in range(10_000)))
    nearest = explain_denial(rules, Request("GET", "/svc-04711/latest"))
    assert nearest is not None
    assert nearest.rule == HttpRule("GET", "/svc-04711/[0-9]+")


def test_what_is_allowed_or_never_judged_has_no_nearest_rule() -> None:
    assert explain_denial(RuleSet((LANDING,)), Request("POST", "/v1/request-landing")) is None
    assert explain_denial(RuleSet((LANDING,)), Request("POST", "/a%2Fb")) is None
    assert explain_denial(RuleSet(), Request()) is None


@settings(max_examples=300, deadline=None)
@given(rule_sets, st.lists(_requests, min_size=1, max_size=5))
def test_no_rule_differs_in_less(rules: RuleSet, asked: list[Request]) -> None:
    index = NearMisses(rules)
    for request in asked:
        nearest, judged = index.nearest(request), arrive(request).request
        counts = [len(list(differences(rule, judged))) for rule in rules.http]
        assert [count == 0 for count in counts] == [rule_matches(rule, judged) for rule in rules.http]
        if not counts or min(counts) == 0:
            assert nearest is None
            continue
        assert nearest is not None
        assert nearest.rule is not None
        assert len(nearest.differs) == min(counts)
        assert list(nearest.differs) == list(differences(nearest.rule, judged))
        assert nearest.others == counts.count(min(counts)) - 1
        assert not decide_request(rules, request).allowed


@settings(max_examples=50, deadline=None)
@given(rule_sets, _requests)
def test_the_order_of_the_rules_changes_nothing(rules: RuleSet, request: Request) -> None:
    backwards = RuleSet(tuple(reversed(rules.http)))
    assert explain_denial(backwards, request) == explain_denial(rules, request)


def test_patterns_that_are_too_large_for_one_automaton_are_tried_in_several() -> None:
    large = [HttpRule("GET", f"/((a{{1,100}}b?[a-z]{{1,90}}){{1,9}}x{number})") for number in range(60)]
    nearest = explain_denial(RuleSet(tuple(large)), Request("POST", "/aacx7"))
    assert nearest is not None
    assert (nearest.rule, nearest.others) == (large[7], 0)


# A request that is known from a log: its headers were not seen.


def test_a_header_that_was_not_seen_is_not_called_missing() -> None:
    rules = RuleSet((HttpRule("GET", "/a", headers=(HeaderMatch("x-token", "1"),)),))
    nearest = explain_denial(rules, Request("GET", "/a", is_whole=False))
    assert str(nearest).endswith("header x-token was not seen (wanted: 1)")


def test_a_rule_that_matches_for_sure_goes_before_one_that_may() -> None:
    sure, may = HttpRule("GET", "/a.*"), HttpRule("GET", "/ab", headers=(HeaderMatch("x-token"),))
    near = NearMisses(RuleSet((sure, may)))
    assert near.matching(Request("GET", "/ab", is_whole=False)) == (sure,)
    assert NearMisses(RuleSet((may,))).matching(Request("GET", "/ab", is_whole=False)) == (may,)
    assert NearMisses(RuleSet((may,))).matching(Request("GET", "/ab")) == ()


@settings(max_examples=200)
@given(rule_sets, _requests)
def test_the_rules_that_match_are_found_as_by_a_look_at_each(rules: RuleSet, request: Request) -> None:
    judged = arrive(request).request
    found = NearMisses(rules).matching(request)
    assert set(found) == {rule for rule in rules.http if rule_matches(rule, judged)}


def test_what_may_be_secret_is_not_shown_to_others() -> None:
    rules = RuleSet((HttpRule("GET", "/a", "h", headers=(HeaderMatch("x-token", "1"),)),))
    sent = Request("GET", "/a?token=hunter2", "me:hunter2@h", (("x-token", "hunter2"),))
    nearest = explain_denial(rules, sent)
    assert nearest is not None
    shown = str(nearest.redacted())
    assert "hunter2" not in shown
    assert "path is /a?[redacted], not /a" in shown
    assert "host is [redacted]@h, not h" in shown
