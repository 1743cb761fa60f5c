"""Manifest files: documents with their lines, and syntax errors that say where."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
import re2
import yaml
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import PolicyError, PolicyErrors, Reason
from policies.reading.fields import ROOT, steps_of
from policies.reading.manifests import Document, Locator, read_documents, split
from policies.reading.sanitize import _GOOD_REGEX, Refused, header_match, port_value, regex_fault

TWO = """# first
kind: A
---
# second
kind: B
text: |
  --- is no separator here
---
"""


def syntax_error(text: str) -> str:
    with pytest.raises(PolicyErrors) as refused:
        read_documents(text, "f.yaml")
    (error,) = refused.value.errors
    assert error.reason == Reason.SYNTAX
    return str(error)


def test_documents_know_their_lines() -> None:
    assert [(d.raw["kind"], d.line) for d in read_documents(TWO)] == [("A", 2), ("B", 5)]


def test_a_list_is_unpacked() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- kind: A\n- kind: B\n"
    assert read_documents(text) == [Document({"kind": "A"}, 4, "items[0]"), Document({"kind": "B"}, 5, "items[1]")]


def test_an_empty_file_has_no_documents() -> None:
    assert read_documents("") == read_documents("---\n# nothing\n---\n...\n") == read_documents("null") == []


def test_json_is_read_too() -> None:
    assert read_documents('{"kind": "A", "n": [1, true, null, "\\u00e9"]}')[0].raw == {
        "kind": "A",
        "n": [1, True, None, "é"],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", 'f.yaml:2: is not valid YAML (SyntaxError): column 1: the key "a" stands here for the second'),
        ("x: 1\n---\nb: [\n", "f.yaml:4: is not valid YAML (SyntaxError): column 1: "),
        ("a: !!python/object:os.system x\n", "tag tag:yaml.org,2002:python/object:os.system is not supported"),
        ("<<: {a: 1}\n", "merge keys"),
        ("a: &x [*x]\n", "alias *x refers to nothing before it"),
        ("[" * 100, "nested deeper than 64"),
        ("? [a]\n: b\n", "a key must be a plain string"),
        ("a: \x07\n", "control characters are not allowed"),
        ("a: \ud800\n", "not Unicode"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(text: str, words: str) -> None:
    line = syntax_error(text)
    assert words in line
    assert "\n" not in line


def test_aliases_cannot_explode() -> None:
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "more than" in syntax_error("\n".join(bomb))


def test_aliases_work() -> None:
    assert read_documents("a: &x {k: v}\nb: *x\nc: &y w\nd: *y\n")[0].raw == {
        "a": {"k": "v"},
        "b": {"k": "v"},
        "c": "w",
        "d": "w",
    }


def test_scalars_are_what_kubernetes_reads() -> None:
    text = "[010, 0x10, 1:30, 2020-01-01, yes, Off, ~, '8', 1e3, .5, 08, -3, '', 1_0]"
    assert read_documents(text)[0].raw == [
        *(8, 16, "1:30", "2020-01-01", True, False, None, "8", 1000.0, 0.5, 8.0, -3, "", "1_0")
    ]


def test_a_path_leads_to_its_line() -> None:
    text = "spec:\n  ingress:\n  - toPorts:\n    - ports: []\n  labels:\n    k8s:a.b/c: x\n"
    locator = Locator(text)
    assert locator.line("spec.ingress[0].toPorts[0].ports") == 4
    assert locator.line("spec.labels[k8s:a.b/c]") == 6
    assert locator.line("spec.ingress[0].missing[3].x") == 3
    assert Locator("a: [").line("a") == 0


def test_a_written_path_can_be_read_back() -> None:
    path = ((ROOT / "spec" / "ingress")[0] / "matchLabels")["k8s:a.b/c"]
    assert str(path) == "spec.ingress[0].matchLabels[k8s:a.b/c]"
    assert steps_of(str(path)) == ["spec", "ingress", "0", "matchLabels", "k8s:a.b/c"]


# PyYAML writes some texts bare that Kubernetes reads as numbers (0E0, 0o7): those are not for a round trip.
_text = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda text: text[:1] not in tuple("+-.0123456789"))
_leaf = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), _text)
_key = st.text(st.characters(codec="ascii"), max_size=5)
_plain = st.recursive(
    _leaf,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_key, inner, max_size=3)),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text("abc", min_size=1), _plain, min_size=1), max_size=3))
def test_what_was_dumped_is_read(documents: list[object]) -> None:
    text = yaml.safe_dump_all(documents, explicit_start=True)
    assert [document.raw for document in read_documents(text)] == documents


@given(st.text() | st.text("-.[]{}:&*!|>'\"%@#? \n\tab0", max_size=60))
def test_any_text_is_documents_or_one_error(text: str) -> None:
    errors: tuple[PolicyError, ...] = ()
    try:
        read_documents(text)
    except PolicyErrors as refused:
        errors = refused.errors
    assert len(errors) <= 1


@given(st.text("-. \nab:%#", max_size=40))
def test_cutting_loses_no_line(text: str) -> None:
    lines = text.removeprefix("\ufeff").splitlines()
    for chunk in split(text):
        if "%" not in text:
            first = chunk.text.splitlines()[0] if chunk.text.splitlines() else ""
            assert lines[chunk.line - 1] == first


@given(st.from_regex(_GOOD_REGEX, fullmatch=True).filter(lambda pattern: len(pattern) < 200))
def test_patterns_taken_for_good_are_good(pattern: str) -> None:
    assert re2.compile(pattern)
    assert re.compile(pattern)


@given(st.text(max_size=40) | st.text("ab.*+?()[]{}|^$\\CpQE0-9,", max_size=20))
def test_any_text_is_a_regex_or_has_a_fault(pattern: str) -> None:
    if not regex_fault(pattern):
        assert re2.compile(pattern)


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("/v1/[", "missing ]"),
        ("(", "missing )"),
        ("a{1001}", "repetition"),
        (r"a\Cb", r"\C"),
        ("x" * 5000, "longer than"),
        ("(?=a)", "invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
    ],
)
def test_a_bad_regex_is_found(pattern: str, fault: str) -> None:
    found = regex_fault(pattern)
    assert found is not None
    assert fault in found.message


@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,6}", fullmatch=True))
def test_any_text_is_a_port_or_refused(written: str) -> None:
    with suppress(Refused):
        value = port_value(written)
        assert str(value) == written.lower()
        assert isinstance(value, str) or 0 <= value <= 65535


@given(st.text(max_size=20) | st.from_regex(r"[A-Za-z-]{1,8}:? ?.{0,8}", fullmatch=True))
def test_any_text_is_a_header_or_refused(written: str) -> None:
    with suppress(Refused):
        found = header_match(written)
        assert re.fullmatch(r"[^\s:]+", found.name)
        assert found.value is None or written.endswith(f" {found.value}")
