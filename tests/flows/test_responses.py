"""Responses that are put together from bytes say what the same responses say that are filled field by field."""

from __future__ import annotations

from typing import Any

import pytest
from flow import flow_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from observer import observer_pb2

from flows.mask import HUBBLE_DEFAULT, HUBBLE_FORGOT, Mask
from flows.responses import KEPT, Responses
from flows.ring import Event
from tests.flows.make import denied, drop, exchange, intake, message
from tests.flows.strategies import flows


def paths_of(descriptor: Any, deep: int) -> list[str]:
    """Every path of a mask through singular messages."""
    found = []
    for field in descriptor.fields:
        found.append(field.name)
        if deep and field.message_type is not None and not field.is_repeated:
            found += [f"{field.name}.{inner}" for inner in paths_of(field.message_type, deep - 1)]
    return found


PATHS = paths_of(flow_pb2.Flow.DESCRIPTOR, 3)
MASKS = st.lists(st.sampled_from(PATHS), max_size=5)


def pruned(message: Any, paths: list[str]) -> None:
    """The slow reference: clear whatever is not asked for; parents stay."""
    heads = {path.partition(".")[0] for path in paths}
    for field, _ in message.ListFields():
        if field.name not in heads:
            message.ClearField(field.name)
    descriptor = message.DESCRIPTOR
    present = {oneof.name: message.WhichOneof(oneof.name) for oneof in descriptor.oneofs}
    for head in sorted(heads - set(paths)):
        oneof = descriptor.fields_by_name[head].containing_oneof
        if oneof is None or present[oneof.name] in (None, head):  # no empty parent displaces what the flow has
            part = getattr(message, head)
            part.SetInParent()
            pruned(part, [path.partition(".")[2] for path in paths if path.startswith(f"{head}.")])


@settings(max_examples=60, deadline=None)
@given(flows(), flows(), MASKS)
def test_what_is_masked_in_parts_is_masked_whole(common: flow_pb2.Flow, own: flow_pb2.Flow, paths: list[str]) -> None:
    for message_ in (common, own):
        message_.ClearField("l4")  # a oneof is all in one part, or told alike by both
        message_.ClearField("l7")
    event = Event(5, own.SerializeToString(), common.SerializeToString())
    sent = observer_pb2.GetFlowsResponse.FromString(Responses(Mask(paths), "n1").response(event))
    expected = event.flow()
    if paths:
        pruned(expected, paths)
    assert sent.flow == expected


@settings(max_examples=60, deadline=None)
@given(flows(), MASKS)
def test_whole_flows(flow: flow_pb2.Flow, paths: list[str]) -> None:
    event = Event(5, flow.SerializeToString())
    sent = observer_pb2.GetFlowsResponse.FromString(Responses(Mask(paths), "n1").response(event))
    if paths:
        pruned(flow, paths)
    assert sent.flow == flow


def real_events() -> list[Event]:
    """An allowed exchange, a denied one, a dropped packet."""
    made = intake()
    made.access_log(message(*exchange(), denied(headers={"x-b": "c"})))
    made.packets([drop()])
    return [made.ring[at] for at in range(made.ring.start, made.ring.end)]


@pytest.mark.parametrize(
    "paths", [[], sorted(HUBBLE_DEFAULT), ["l7.http.code", "node_name"], ["source.pod_name", "time"]]
)
def test_real_events(paths: list[str]) -> None:
    responses = Responses(Mask(paths), "n1")
    for event in real_events():
        sent = observer_pb2.GetFlowsResponse.FromString(responses.response(event))
        kept = event.flow()
        if paths:
            pruned(kept, [*paths, *(HUBBLE_FORGOT if paths == sorted(HUBBLE_DEFAULT) else ())])
        assert sent.node_name == (kept.node_name if not paths or "node_name" in paths else "")
        assert sent.HasField("time") is kept.HasField("time")
        assert sent.time == kept.time
        assert sent.flow == kept


def test_what_is_remembered_is_bounded() -> None:
    responses = Responses(Mask(["verdict"]), "n1")
    for number in range(2 * KEPT + 5):
        common = flow_pb2.Flow(verdict=1, uuid=str(number)).SerializeToString()
        sent = observer_pb2.GetFlowsResponse.FromString(responses.response(Event(1, b"", common)))
        assert sent.flow == flow_pb2.Flow(verdict=1)
    assert len(responses._masked) <= KEPT
