"""Streams of nodes become one, in order of time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.relay.merge import WINDOW, Merger


def test_an_event_waits_for_the_other_nodes() -> None:
    merger = Merger(frozenset({"a", "b"}))
    merger.push("a", 10, b"a10", 0.0)
    assert not list(merger.ready(0.0))
    merger.push("b", 5, b"b5", 0.1)
    assert list(merger.ready(0.1)) == [b"b5"], "b may still have something before 10"
    merger.close("b")
    assert list(merger.ready(0.2)) == [b"a10"]


def test_a_silent_node_holds_up_others_no_longer_than_the_window() -> None:
    merger = Merger(frozenset({"a", "silent"}))
    merger.push("a", 10, b"a10", 0.0)
    assert merger.wait(0.25) == WINDOW - 0.25
    assert list(merger.ready(WINDOW)) == [b"a10"]
    assert merger.wait(WINDOW) is None


def test_events_of_one_moment_keep_the_order_in_which_they_came() -> None:
    merger = Merger()
    for event in (b"1", b"2", b"3"):
        merger.push("a", 7, event, 0.0)
    assert list(merger.ready(0.0)) == [b"1", b"2", b"3"]


@given(st.lists(st.lists(st.integers(0, 1000)), min_size=1, max_size=5))
def test_complete_streams_come_out_sorted_and_whole(streams: list[list[int]]) -> None:
    merger = Merger(frozenset(map(str, range(len(streams)))))
    out: list[bytes] = []
    for name, times in enumerate(streams):
        for time_ns in sorted(times):
            merger.push(str(name), time_ns, b"%d" % time_ns, 0.0)
            out += merger.ready(0.0)
    for name in range(len(streams)):
        merger.close(str(name))
    out += merger.ready(0.0)
    assert [int(event) for event in out] == sorted(t for times in streams for t in times)
