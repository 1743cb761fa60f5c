"""What the reader of patterns knows must be true, and what it does not know must be left to RE2."""

from __future__ import annotations

import string

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.matcher import full_match
from xds import patterns
from xds.patterns import Literal

exact, prefix = Literal, lambda text: Literal(text, is_prefix=True)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("GET", [exact("GET")]),
        ("GET|POST", [exact("GET"), exact("POST")]),
        (r"/v1/a\.html", [exact("/v1/a.html")]),
        ("/v(1|2)/x", [exact("/v1/x"), exact("/v2/x")]),
        ("(?:a|b)c", [exact("ac"), exact("bc")]),
        ("/a/.*", [prefix("/a/")]),
        ("/a/.*|/a/b", [prefix("/a/")]),
        (r"/public(\?.*)?", [exact("/public"), prefix("/public?")]),
        ("/a/?", [exact("/a"), exact("/a/")]),
        ("^/a$|/b", [exact("/a"), exact("/b")]),
        (".*", [prefix("")]),
        ("", [exact("")]),
    ],
)
def test_a_finite_alternation_is_known(pattern: str, expected: list[Literal]) -> None:
    assert patterns.literals(pattern) == tuple(expected)


UNCERTAIN = r"a.b /a/.+ (?i)a a* [ab] \d \Qa.b\E a\_b a{2} a$b x^a .*a (a a) .*? (^a) a{ \x41 (?P<n>a)"


@pytest.mark.parametrize(
    "pattern", [*UNCERTAIN.split(), "a\\", "(" * 20 + "a" + ")" * 20, "(a|b|c|d)" * 4, "x" * 100_000]
)
def test_the_rest_is_left_to_the_engine(pattern: str) -> None:
    assert patterns.literals(pattern) is None


@given(
    st.text(alphabet="ab/.|()?*+[]^$\\{}-1:", max_size=14),
    st.lists(st.text(alphabet="ab/.1?-", max_size=8), min_size=1, max_size=12),
)
@settings(max_examples=1500, deadline=None)
def test_literals_equal_the_regex(pattern: str, samples: list[str]) -> None:
    """For every pattern that RE2 accepts and the reader claims to know, both say the same of every text."""
    try:
        patterns.check(pattern)
    except patterns.PatternError:
        return
    found = patterns.literals(pattern)
    if found is None:
        return
    near = [literal.text + tail for literal in found for tail in ("", "a", "/")] + [
        literal.text[:-1] for literal in found
    ]
    for text in {*samples, *near}:
        claimed = any(text.startswith(one.text) if one.is_prefix else text == one.text for one in found)
        assert claimed == full_match(pattern, text), (pattern, text, found)


@given(st.text(alphabet=string.punctuation + string.ascii_letters + "é", max_size=20))
def test_an_escaped_literal_is_itself(text: str) -> None:
    assert full_match(patterns.escape(Literal(text)), text)
    assert full_match(patterns.escape(Literal(text, is_prefix=True)), text + "tail")


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_text_is_accepted_or_refused_and_nothing_else(pattern: str) -> None:
    try:
        assert patterns.check(pattern).size > 0
        re2.compile(pattern.encode(), patterns.OPTIONS)
    except patterns.PatternError:
        pass
    patterns.literals(pattern)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("[", "missing ]"), ("(", r"missing \)"), ("a{5000}", "invalid repetition"), ("(?=a)", "invalid perl")],
)
def test_a_bad_regex_says_why_in_one_line(pattern: str, why: str) -> None:
    with pytest.raises(patterns.PatternError, match=why) as refused:
        patterns.check(pattern)
    assert "\n" not in str(refused.value)


def test_a_regex_that_RE2_has_no_memory_for_is_refused() -> None:
    with pytest.raises(patterns.PatternError, match="too large"):
        patterns.check("a{1000}" * 1000)
