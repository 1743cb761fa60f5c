"""Stories of one client and one type: what it asked for is what it gets."""

from __future__ import annotations

from xds.subscription import Subscription


def test_legacy_wildcard_is_a_first_request_without_names() -> None:
    sub = Subscription()
    sub.replace([])
    assert sub.wants("anything")


def test_legacy_wildcard_lasts_while_no_name_is_ever_given() -> None:
    sub = Subscription()
    sub.replace([])
    sub.replace([])
    assert sub.wants("anything")


def test_legacy_wildcard_ends_with_the_first_name() -> None:
    sub = Subscription()
    sub.replace([])
    sub.replace(["a"])
    assert (sub.wants("a"), sub.wants("b")) == (True, False)


def test_no_names_after_some_names_is_nothing() -> None:
    sub = Subscription()
    sub.replace(["a"])
    sub.replace([])
    assert not sub.wants("a")


def test_explicit_wildcard_beside_names() -> None:
    sub = Subscription()
    sub.replace(["*", "a"])
    assert sub.wants("b")
    sub.replace(["a"])
    assert (sub.wants("a"), sub.wants("b")) == (True, False)


def test_delta_legacy_wildcard_outlives_names() -> None:
    sub = Subscription()
    sub.change([], [], is_first=True)
    sub.change(["a"], [], is_first=False)
    assert sub.wants("b")
    sub.change([], ["*"], is_first=False)
    assert (sub.wants("a"), sub.wants("b")) == (True, False)


def test_delta_names_come_and_go() -> None:
    sub = Subscription()
    sub.change(["a", "b"], [], is_first=True)
    sub.change(["c"], ["a"], is_first=False)
    assert [name for name in "abc" if sub.wants(name)] == ["b", "c"]


def test_delta_unsubscribing_a_name_leaves_the_wildcard() -> None:
    sub = Subscription()
    sub.change(["*", "a"], [], is_first=True)
    sub.change([], ["a"], is_first=False)
    assert sub.wants("a")


def test_delta_an_empty_later_request_asks_for_nothing_more() -> None:
    sub = Subscription()
    sub.change(["a"], [], is_first=True)
    sub.change([], [], is_first=False)
    assert not sub.wants("b")
