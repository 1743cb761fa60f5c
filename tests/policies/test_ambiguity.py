"""What servers may read differently, told from what only looks odd; in Python as in RE2."""

from __future__ import annotations

import sys
import unicodedata
from urllib.parse import quote

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.bypass import readings
from policies.judging.ambiguity import AMBIGUOUS, FAULTS, ONE_HOST, ambiguous_host, ambiguous_path
from policies.judging.requests import Request, arrive

LATIN1 = re2.Options()
LATIN1.encoding = re2.Options.Encoding.LATIN1

ODD_PIECES = (
    *("/", ".", "..", "...", ";", ";a=1", "%", "%2", "%zz", "%20", "%25", "%252e", "%252f", "%2e", "%00", "%0a"),
    *("%41", "%c0%ae", "%ef%bc%8e", "%e2%80%a5", "%3b", "a", "admin", "?", "#", "+", "~"),
)
ORDINARY = (
    *("/", "/a", "/a/", "/.well-known/x", "/a...b", "/..data/x", "/a/b..", "/a;v=1/b", "/a;v=1", "/;jsessionid=1"),
    *("/%C3%A9", "/a%20b", "/100%25", "/a%252Fb", "/%7Bid%7D", "/a?x=%zz", "/a?/../b", "/a?x=..", "/~user", "/a+b"),
    *("/a,b", "/a:b@c", "/%E2%82%AC", "/%e0%a4%b9", "/a/%20b", "/a/b%20", "/@scope%25x"),
)
paths = st.lists(st.sampled_from(ODD_PIECES), max_size=8).map(lambda pieces: "/" + "".join(pieces))


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/a/%zz", "an escape that is none"),
        ("/a%", "an escape that is none"),
        ("/a%2", "an escape that is none"),
        ("/a%2?x", "an escape that is none"),
        ("/a%u002e", "an escape that is none"),
        ("/a%0a", "a control character"),
        ("/a%7F", "a control character"),
        ("/%c0%ae", "an overlong encoding"),
        ("/%e0%80%ae", "an overlong encoding"),
        ("/%F0%80%80%AE", "an overlong encoding"),
        ("/%61dmin", "a needless escape"),
        ("/a%2fb", "a needless escape"),
        ("/a/.../b", "a hidden dot segment"),
        ("/a/..%20", "a hidden dot segment"),
        ("/a/..;x/b", "a hidden dot segment"),
        ("/a/%252E%252e/b", "a hidden dot segment"),
        ("/a%252f..%255cb", "a hidden dot segment"),
        ("/a/%ef%bc%8e%EF%BC%8E/b", "a hidden dot segment"),
        ("/a/..%3bx?y", "a hidden dot segment"),
        ("/;/a", "a hidden empty segment"),
        ("/a/%20/b", "a hidden empty segment"),
    ],
)
def test_each_fault_has_its_name(path: str, fault: str) -> None:
    assert fault in FAULTS
    assert ambiguous_path(path) == fault


def test_whatever_folds_to_dots_slashes_and_semicolons_hides_nothing() -> None:
    """All of Unicode that NFKC makes of it, as servers do that fold paths after decoding them."""
    for char in map(chr, range(0x80, sys.maxunicode + 1)):
        if "\ud800" <= char <= "\udfff":
            continue
        folded, written = unicodedata.normalize("NFKC", char), quote(char)
        if set(folded) == {"."}:
            hidden = [f"/a/{written * (3 - len(folded) or 1)}/b"]
        elif folded in ("/", "\\"):
            hidden = [f"/a{written}../b", f"/a/..{written}b"]
        elif folded == ";":
            hidden = [f"/a/..{written}x/b", f"/a/..{written}/b"]
        else:
            continue
        for path in (*hidden, *(path.replace(written, written.lower()) for path in hidden)):
            assert ambiguous_path(path) == "a hidden dot segment", (hex(ord(char)), path)


@pytest.mark.parametrize("path", ORDINARY)
def test_ordinary_paths_are_left_alone(path: str) -> None:
    assert ambiguous_path(path) == ""


@given(paths)
@settings(max_examples=500, deadline=None)
def test_python_and_re2_read_the_patterns_alike(path: str) -> None:
    found = re2.compile(rf"[^?]*(?:{AMBIGUOUS})\C*".encode(), LATIN1).fullmatch(path.encode())
    assert bool(found) == bool(ambiguous_path(path))


@given(st.lists(st.sampled_from(ODD_PIECES), max_size=6))
@settings(max_examples=1000, deadline=None)
def test_no_unambiguous_normalised_path_leads_out_of_its_tree(pieces: list[str]) -> None:
    """The reading is another program's (conformance.bypass), which knows nothing of these patterns."""
    arrival = arrive(Request(path="/public/" + "".join(pieces)))
    path = arrival.request.path
    if arrival.status or not path.startswith("/public/") or ambiguous_path(path):
        return
    assert all(reading == "/public" or reading.startswith("/public/") for reading in readings(path)), path


def test_a_host_is_one_and_without_a_user() -> None:
    assert [h for h in ("a", "a:80", "[fd00::1]:80", "") if ambiguous_host(h)] == []
    assert [h for h in ("a,b", "u@a", "a:80@b") if not ambiguous_host(h)] == []
    assert re2.compile(ONE_HOST.encode(), LATIN1).fullmatch(b"a:80") is not None
