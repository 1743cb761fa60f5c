"""What a filter matches always holds its hint."""

from __future__ import annotations

import re2
from flow import flow_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.filters import compile_filter
from flows.hints import hints, literal
from tests.flows.strategies import filters, flows


@settings(max_examples=200, deadline=None)
@given(flows(), filters())
def test_what_matches_holds_a_hint(flow: flow_pb2.Flow, wanted: flow_pb2.FlowFilter) -> None:
    if compile_filter(wanted)(flow):
        wire = flow.SerializeToString()
        for field, values in wanted.ListFields():
            needed = hints(field.name, values)
            assert not needed or any(hint in wire for hint in needed)


PIECES = st.sampled_from(
    (
        "abc",
        "xy",
        "7",
        ".",
        "a?",
        "(bc|yz)",
        "[a-z]",
        "[[:alpha:]]",
        "(?i:q)",
        "b*",
        "cd+",
        "ef{0,2}",
        "^",
        "$",
        r"\.",
        "|",
    )
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=6).map("".join), st.text("abcdefxyzqQ7.]", max_size=20))
@example("[[:alpha:]]bc", "abc")
@example("(?i)abc", "ABC")
@example("ab|cd", "cd")
@example("ab{,2}", "ab{,2}")
def test_a_text_that_matches_holds_the_literal(pattern: str, text: str) -> None:
    try:
        compiled = re2.compile(pattern)
    except re2.error:
        return
    if compiled.search(text):
        assert literal(pattern) in text


def test_which_literal() -> None:
    assert literal("^/api/v1/orders/[0-9]+$") == "/api/v1/orders/"
    assert literal("/a.*/checkout") == "/checkout"
    assert literal("a|b") == literal("(?i)orders") == literal(r"\pN+") == literal("") == ""


def test_a_path_may_be_encoded() -> None:
    flow = flow_pb2.Flow()
    flow.l7.http.url = "http://shop/%6frders"
    assert compile_filter(flow_pb2.FlowFilter(http_path=["^/orders$"]))(flow)
    assert any(hint in flow.SerializeToString() for hint in hints("http_path", ["^/orders$"]))


def test_many_alternatives_are_no_hint() -> None:
    assert hints("uuid", ["a", "b"]) == (b"a", b"b")
    assert hints("uuid", [f"u{number}" for number in range(9)]) == ()
    assert hints("source_port", ["0"]) == hints("http_status_code", ["5+"]) == hints("verdict", [1]) == ()
