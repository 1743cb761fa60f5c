"""Recorded flows instead of a server: filters, times and numbers, and lines that are no flows."""

from __future__ import annotations

from typing import Any

import pytest
from flow import flow_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from observer import observer_pb2

from flows.jsonpb import to_json
from flows.raw_filters import RawFilterError, filters_yaml, read_filters
from flows.replay import Replay
from flows.request import OptionError
from tests.flows.strategies import filters


def line(second: int, **flow: Any) -> str:
    made = observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow(uuid=str(second), **flow))
    made.time.seconds = made.flow.time.seconds = second
    return to_json(made)


LINES = [line(1), line(2, verdict=flow_pb2.DROPPED), line(3), line(4, verdict=flow_pb2.DROPPED)]
LOSS = '{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"},"time":"1970-01-01T00:00:09Z"}'


def replayed(*lines: str, **request: Any) -> str:
    """The ids of what comes out; L for a loss."""
    replay = Replay(observer_pb2.GetFlowsRequest(**request))
    out = []
    for one in lines:
        if replay.is_done:
            break
        out.append(replay.feed(one))
    return "".join(found.flow.uuid or "L" for found in (*out, *replay.rest()) if found is not None)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, "1234L"),
        ({"number": 2}, "4L"),
        ({"number": 2**64 - 1}, "1234L"),
        ({"number": 2, "first": True}, "12"),
        ({"since": {"seconds": 3}}, "34L"),
        ({"until": {"seconds": 3}}, "123"),
        ({"whitelist": [{"verdict": [2]}]}, "24"),
        ({"whitelist": [{"verdict": [2]}], "number": 1}, "4"),
        ({"blacklist": [{"verdict": [2]}]}, "13L"),
        ({"whitelist": [{"uuid": ["", "3"]}]}, "3"),
        ({"whitelist": [{"node_labels": ["!zone"]}]}, "1234L"),
    ],
)
def test_what_requests_get(request_: dict[str, Any], expected: str) -> None:
    assert replayed(*LINES, LOSS, **request_) == expected


def test_lines_that_are_no_responses_are_left_out_with_a_word() -> None:
    replay = Replay(observer_pb2.GetFlowsRequest())
    for bad in ("{bad", "", "[" * 5000, '{"flow":1}', '{"a":' * 500):
        assert replay.feed(bad) is None
        assert replay.complaint.startswith("not a response in JSON: ")
        assert "\n" not in replay.complaint
    assert replay.feed(LINES[0]) is not None
    assert not replay.complaint


def test_fields_of_the_future_are_left_out_and_complained_of_once() -> None:
    replay = Replay(observer_pb2.GetFlowsRequest())
    newer = LINES[1].replace('"verdict"', '"later":1,"verdict"')
    found = replay.feed(newer)
    assert found is not None
    assert found.flow.verdict == flow_pb2.DROPPED
    assert replay.complaint.startswith("fields that are not known here are left out: ")
    replay.feed(newer)
    assert not replay.complaint


def test_a_last_that_would_fill_memory_is_refused() -> None:
    with pytest.raises(OptionError, match="--last must be <= 1_000_000, got 2000000"):
        Replay(observer_pb2.GetFlowsRequest(number=2_000_000))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_no_line_is_fatal(text: str) -> None:
    Replay(observer_pb2.GetFlowsRequest()).feed(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"nope":1}', "nope"),
        ("{", "failed to decode '{'"),
        ("[]", "a filter is an object in braces"),
        ('{"verdict":["RUMOUR"]}', "RUMOUR"),
        ("[" * 100_000, "failed to decode"),
    ],
)
def test_raw_filters_that_are_none(text: str, complaint: str) -> None:
    with pytest.raises(RawFilterError, match=complaint):
        read_filters([text])


@settings(max_examples=50, deadline=None)
@given(st.lists(filters(), max_size=3))
def test_filters_survive_being_printed_and_read(wanted: list[flow_pb2.FlowFilter]) -> None:
    assert read_filters([" ".join(map(to_json, wanted))]) == wanted


def test_filters_as_yaml() -> None:
    assert filters_yaml(observer_pb2.GetFlowsRequest()) == "{}\n"
    quoting = observer_pb2.GetFlowsRequest(whitelist=[{"source_pod": ["it's/"]}], blacklist=[{"uuid": ["\u2028\x7f"]}])
    assert filters_yaml(quoting) == (
        'allowlist:\n    - \'{"source_pod":["it\'\'s/"]}\'\ndenylist:\n    - "{\\"uuid\\":[\\"\\\\u2028\\x7F\\"]}"\n'
    )
