"""Label selectors, as Kubernetes writes them, over labels with a source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.selectors import SelectorError, parse_selector, selects

LABELS = ("k8s:app=x", "k8s:a.b/c=d", "container:app=z", "reserved:world", "k8s:size=7")


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ("", True),
        ("app", True),
        ("!app", False),
        ("app=x", True),
        ("app==x", True),
        ("app = x", True),
        ("app=z", False),  # of several with this key the first counts
        ("container:app=z", True),
        ("any:app=x", True),
        ("k8s:app!=x", False),
        ("org!=empire", True),
        ("app in (w,x)", True),
        ("app notin (w, x)", False),
        ("org notin (empire)", True),
        ("org in (empire)", False),
        ("reserved:world", True),
        ("!reserved:world", False),
        ("k8s:world", False),
        ("a.b/c=d,app=x", True),
        ("a.b/c=d,app=y", False),
        ("size>6", True),
        ("size<6", False),
        ("app>1", False),
        ("reserved:world=", True),
    ],
)
def test_selectors(selector: str, holds: bool) -> None:
    assert selects(parse_selector(selector), LABELS) is holds


@pytest.mark.parametrize(
    "selector",
    ["a b", "a=b c", "=x", "a=b,,c", "!a=b", "a in b", "a in (", "a=(b)", "-a", "a=" + "b" * 64, "size>x", "a/b/c"],
)
def test_what_is_no_selector(selector: str) -> None:
    with pytest.raises(SelectorError):
        parse_selector(selector)


@given(st.text(alphabet="ab:=!,() innot<>.-/", max_size=20))
def test_nothing_but_the_selector_error_escapes(text: str) -> None:
    try:
        selects(parse_selector(text), LABELS)
    except SelectorError:
        pass
