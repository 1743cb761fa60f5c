"""Joined regexes match what their members match, and stay small."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.matcher import full_match
from xds import joined, patterns
from xds.patterns import PatternError

PIECES = r"""
    / a b ab [a-z]+ [^/]* .* 1 \. \d (a|b) (?:/x)? a{2} a{2,}? []a] x+? | (?i)A [[:alpha:]] [^]]
    [\]a] ^ $ \Qa|b\E ( ) { (?i:q) \x61
"""
pieces = st.sampled_from(PIECES.split())
regexes = st.lists(pieces, min_size=1, max_size=6).map("".join)


def is_good(pattern: str) -> bool:
    try:
        patterns.check(pattern)
    except PatternError:
        return False
    return True


@given(
    st.lists(regexes.filter(is_good), min_size=1, max_size=8),
    st.lists(st.text(alphabet="/ab1.x]|qQA", max_size=6), max_size=20),
)
@settings(max_examples=600, deadline=None)
def test_a_join_matches_what_any_member_matches(members: list[str], texts: list[str]) -> None:
    whole = joined.join(members)
    for text in [*texts, *members]:
        assert full_match(whole, text) == any(full_match(one, text) for one in members), (whole, text)


def test_common_beginnings_are_written_once_even_when_they_are_no_literals() -> None:
    assert joined.join(["/[a-z]+/s1/x", "/[a-z]+/s2/x", "/b"]) == "/(?:[a-z]+/s(?:1/x|2/x)|b)"


def test_the_order_of_members_does_not_matter() -> None:
    assert joined.join(["b+", "a+", "ab"]) == joined.join(["ab", "b+", "a+", "a+"])


def test_thousands_of_alternatives_after_a_wildcard_stay_within_the_budget_of_the_DFA() -> None:
    sizes = {p: patterns.check(p).size for p in (f"/[a-z]+/svc-{i:05d}/[0-9]+/res" for i in range(10_000))}
    found = list(joined.chunks(sizes))
    assert sum(map(len, found)) == 10_000
    assert len(found) <= 16
    for chunk in found:
        assert patterns.check(joined.join(chunk)).size < 13_000, "the DFA of a larger one is refused"


def test_neighbours_that_share_nothing_make_smaller_chunks() -> None:
    sizes = {p: patterns.check(p).size for p in (f"{c}{d}[a-z]{{100}}" for c in "abcdefghij" for d in "abcdefghij")}
    for chunk in joined.chunks(sizes):
        assert patterns.check(joined.join(chunk)).size < 13_000


def test_a_group_name_is_never_given_twice() -> None:
    named = ["/(?P<id>[0-9]+)/a", "/(?P<id>[0-9]+)/b", "/[0-9]/c"]
    found = list(joined.chunks({p: patterns.check(p).size for p in named}))
    assert sorted(map(len, found)) == [1, 1, 1]


@pytest.mark.parametrize("pattern", ["/" * 5000, "(" * 900 + "a" + ")" * 900])
def test_long_and_deep_patterns_are_read_without_recursion(pattern: str) -> None:
    assert "".join(joined.atoms(pattern)) == pattern
