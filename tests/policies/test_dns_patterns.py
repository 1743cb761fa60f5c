"""matchName and matchPattern: the table of facts 6.1, and the tree against the regular expressions it stands for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.dns_patterns import Dialect, NameSet, canonical, canonical_pattern, covers, regex_of

C = "[-a-zA-Z0-9_]"
TABLE = [
    ("*.x.io", f"^{C}*[.]x[.]io[.]$"),
    ("**.x.io", f"^({C}+([.]{C}+){{0,}})[.]x[.]io[.]$"),
    ("***.x.io", f"^({C}+([.]{C}+){{0,}})[.]x[.]io[.]$"),
    ("*x.io", f"^{C}*x[.]io[.]$"),
    ("**x.io", f"^{C}*x[.]io[.]$"),
    ("a.**.x.io", f"^a[.]{C}*[.]x[.]io[.]$"),
    ("X.io", "^x[.]io[.]$"),
    ("", "^[.]$"),
    (" x.io. ", "^x[.]io[.]$"),
    ("*.", f"^{C}*[.]$"),
]


@pytest.mark.parametrize(("pattern", "regex"), TABLE)
@pytest.mark.parametrize("dialect", Dialect)
def test_the_table(pattern: str, regex: str, dialect: Dialect) -> None:
    assert regex_of(pattern, dialect) == regex


@pytest.mark.parametrize("pattern", ["*", "**", "**.", "***", " * "])
def test_a_lone_star_is_everything_in_a_rule_and_every_host_in_to_fqdns(pattern: str) -> None:
    assert regex_of(pattern, Dialect.DNS_RULE) == ".*"
    assert regex_of(pattern, Dialect.TO_FQDNS) == f"(^({C}+[.])+$)|(^[.]$)"
    everything, hosts = (NameSet([], [pattern], dialect) for dialect in (Dialect.DNS_RULE, Dialect.TO_FQDNS))
    assert everything.is_everything
    assert not hosts.is_everything
    for name, is_host in (
        (".", True),
        ("x.io.", True),
        ("_tcp.x.io.", True),
        ("odd\\032name.", False),
        ("a\\.b.", False),
    ):
        assert name in everything
        assert (name in hosts) == is_host


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.x.io", ["a.x.io."], ["x.io.", "a.b.x.io.", "a.x.io.evil.", "a\\.b.x.io."]),
        ("**.x.io", ["a.x.io.", "a.b.c.x.io."], ["x.io.", "ax.io.", "a.x.io.com."]),
        ("*x.io", ["x.io.", "subx.io."], ["www.x.io.", "xx.io.com."]),
        ("a.**.x.io", ["a.b.x.io."], ["a.b.c.x.io.", "a.x.io.", "b.x.io."]),
        ("*.ci*.io", ["a.cilium.io.", "a.ci.io."], ["cilium.io.", "a.c.io."]),
        ("*a*b*.io", ["ab.io.", "xaxbx.io.", "aab.io."], ["ba.io.", "a.b.io."]),
        ("aa*aa.io", ["aaaa.io.", "aaxaa.io."], ["aaa.io.", "aa.io."]),
        ("*.*.x.io", ["a.b.x.io."], ["a.x.io.", "a.b.c.x.io."]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    made = NameSet([], [pattern], Dialect.DNS_RULE)
    for name in yes + no:
        assert (name in made) == (name in yes), name


def test_a_name_is_itself_and_stars_in_it_are_no_stars() -> None:
    made = NameSet(["Web.X.io", "*.y.io"], [], Dialect.DNS_RULE)
    assert "web.x.io." in made
    assert "a.y.io." not in made


def test_a_pattern_of_many_stars_is_linear() -> None:
    made = NameSet([], ["*a" * 30 + "b.io"], Dialect.DNS_RULE)
    assert "a" * 63 + ".io." not in made


LABEL = st.text("ab-", min_size=1, max_size=4)
PATTERN_LABEL = st.one_of(LABEL, st.just("*"), st.just("**"), st.text("ab*", min_size=1, max_size=5))
PATTERN = st.lists(PATTERN_LABEL, min_size=1, max_size=4).map(".".join)
NAME = st.lists(LABEL, max_size=5).map(lambda labels: ".".join(labels) + ".")


@settings(max_examples=500)
@given(
    st.lists(PATTERN, max_size=4),
    st.lists(NAME, max_size=3),
    st.lists(NAME, min_size=1, max_size=8),
    st.sampled_from(Dialect),
)
def test_the_tree_says_what_the_regular_expressions_say(
    patterns: list[str], exact: list[str], asked: list[str], dialect: Dialect
) -> None:
    made = NameSet(exact, patterns, dialect)
    joined = [re.compile(regex_of(pattern, dialect)) for pattern in patterns]
    for name in asked:
        wanted = name in map(canonical, exact) or any(regex.search(name) for regex in joined)
        assert (name in made) == wanted, (name, patterns)


def test_what_selects_a_name_is_told_by_its_place() -> None:
    made = NameSet(("a.org", "b.org"), ("*.x.io", "**.x.io", "c*.y.io", "b.org"), Dialect.DNS_RULE)
    named = {name: made.which(name) for name in ("a.org.", "b.org.", "a.x.io.", "a.b.x.io.", "cd.y.io.", "z.org.")}
    assert named == {"a.org.": 0, "b.org.": 1, "a.x.io.": 3, "a.b.x.io.": 3, "cd.y.io.": 4, "z.org.": None}
    every = NameSet((), ("*.x.io", "*"), Dialect.DNS_RULE)
    assert [every.which(name) for name in ("a.x.io.", "odd\\032name.")] == [1, 1]


@pytest.mark.parametrize(
    ("broad", "narrow", "answer"),
    [
        ("*", "**.x.io.", True),
        ("**.io.", "*.x.io.", True),
        ("**.io.", "**.x.io.", True),
        ("**.io.", "io.", False),
        ("*.io.", "a.io.", True),
        ("*.io.", "a*.io.", True),
        ("*.io.", "**.io.", False),
        ("*.io.", "a.b.io.", False),
        ("a*.io.", "ab.io.", True),
        ("a*.io.", "b.io.", False),
        ("**.x.io.", "**.io.", False),
        ("**.io.", "*", False),
    ],
)
def test_what_covers_what(broad: str, narrow: str, answer: bool) -> None:
    assert covers(broad, narrow) is answer


_parts = st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b"]), min_size=1, max_size=3).map(".".join)
_hosts = st.lists(st.sampled_from(["a", "b", "ab", "c", "acb"]), min_size=1, max_size=4).map(".".join)


@settings(max_examples=500)
@given(_parts.map(canonical_pattern), _parts.map(canonical_pattern), _hosts.map(canonical))
def test_what_is_covered_selects_nothing_else(broad: str, narrow: str, name: str) -> None:
    if covers(broad, narrow) and name in NameSet((), [narrow], Dialect.DNS_RULE):
        assert name in NameSet((), [broad], Dialect.DNS_RULE)
