"""What Envoy makes of a path before it is judged. Each pair was seen at the real one; tests/oracle tries more."""

from __future__ import annotations

import pytest

from policies.ir import HttpRule, RuleSet
from policies.judging.evaluate import decide_request
from policies.judging.requests import BAD_REQUEST, REDIRECT, Request, arrive

JUDGED = {
    "/a": "/a",
    "//a//b": "/a/b",
    "//": "//",
    "/a/./b": "/a/b",
    "/a/../b": "/b",
    "/../a": "/a",
    "/a/..": "/",
    "/a/b//../c": "/a/b/c",
    "/a\\..\\b": "/b",
    "/%41%2e%2e": "/A..",
    "/a/%2e%2e/b": "/b",
    "/a/..;x/b": "/b",
    "/a/%2e%2e;/b": "/a/..;/b",
    "/a;x=1/b": "/a;x=1/b",
    '/a"b<>^`{|}': "/a%22b%3C%3E%5E%60%7B%7C%7D",
    "/%c3%a9": "/%c3%a9",
    "/a%": "/a%",
    "/%2%41": "/%252A",
    "/a?x=/../b//c%2F": "/a?x=/../b//c%2F",
}
REDIRECTED = {"/a%2Fb": "/a/b", "/a%5Cb?x=%2F": "/a/b?x=%2F", "/a%2f..%2fb": "/b", "/%5C..;": "/..;"}


@pytest.mark.parametrize("written", JUDGED)
def test_a_path_is_judged_in_its_normal_form(written: str) -> None:
    arrival = arrive(Request(path=written))
    assert (arrival.status, arrival.request.path) == (0, JUDGED[written])


@pytest.mark.parametrize("written", REDIRECTED)
def test_an_encoded_slash_is_answered_with_a_redirect(written: str) -> None:
    arrival = arrive(Request(path=written))
    assert (arrival.status, arrival.request.path) == (REDIRECT, REDIRECTED[written])


@pytest.mark.parametrize("written", ["", "a", "/a#b", "/a%00b", "/a b", "/\xe9", "/a\x01"])
def test_what_is_no_path_is_refused(written: str) -> None:
    assert arrive(Request(path=written)).status == BAD_REQUEST


def test_repeated_headers_are_one_value() -> None:
    request = Request(host="a.example", headers=(("X-A", "1 "), ("x-a", "2")))
    assert request.header("x-A") == "1,2"
    assert request.header("host") == "a.example"
    assert request.header("x-b") is None


def test_a_request_without_a_host_is_meant_by_no_rule_about_hosts() -> None:
    """As HTTP/1.0 may be; `.*` says any host, and this has none."""
    any_host, any_request = (RuleSet((HttpRule("", "", host, (), ()),)) for host in (".*", ""))
    assert [decide_request(any_host, Request(host=host)).allowed for host in ("", "a.example")] == [False, True]
    assert decide_request(any_request, Request()).allowed
