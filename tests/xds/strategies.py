"""Hypothesis strategies: rule sets that overlap a lot, and requests that come near them."""

from __future__ import annotations

from hypothesis import strategies as st

from policies.ir import HeaderMatch, HttpRule, RuleSet
from tests.xds.matcher import Request

METHODS = ("GET", "POST", "PUT", "GETS")
HOSTS = ("a.example", "b.example", "axexample", "a.example:80")
PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/b", "/a?x=1", "/a.b", "/axb", "/a/1", "/a/12", "/b/1")
ODD_PATHS = ("/a/...", "/a/%zz", "/a/..%20/b", "/a?x=%zz", "/a;x/b")
HEADERS = ("x-a", "x-b")
VALUES = ("1", "2", "")

method_patterns = st.sampled_from(["", "GET", "POST", "GET|POST", "(GET|PUT)", "G.*", "[A-Z]+", "GETS?", ".*"])
host_patterns = st.sampled_from(
    ["", r"a\.example", "a.example", r"a\.example|b\.example", r".*\.example", r"a\.example(:80)?", ".*"]
)
PATH_PATTERNS = r"""
    / /a /a/.* /a.* /a\.b /a.b /a|/b /a(/b)? /a(/.*)? /.* .* /[ab]/[0-9]+ /a/[^/]* /a/[0-9] (?i)/A
    /a(\?.*)? /a/1|/b/1 ^/a$ /(a|b)/(1|12) /a/? /[ab]
"""
path_patterns = st.sampled_from(["", *PATH_PATTERNS.split()])
header_matches = st.builds(HeaderMatch, st.sampled_from(HEADERS), st.sampled_from([None, *VALUES]))
rules = st.builds(
    HttpRule,
    method_patterns,
    path_patterns,
    st.one_of(st.just(""), host_patterns),
    st.one_of(st.just(()), st.tuples(header_matches), st.tuples(header_matches, header_matches)),
)
rule_sets = st.builds(RuleSet, st.lists(rules, max_size=12).map(tuple))
requests = st.builds(
    Request,
    st.sampled_from(METHODS),
    st.sampled_from((*PATHS, *ODD_PATHS)),
    st.sampled_from(HOSTS),
    st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(VALUES)),
)
