"""What the sieve lets through is what the filters want, however much of a flow is common to others."""

from __future__ import annotations

from flow import flow_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.filters import compile_filters
from flows.ring import SPECIAL as SPECIAL_FIELDS
from flows.ring import Event
from flows.sieve import KEPT, SPECIAL, Sieve
from tests.flows.make import denied, drop, exchange, intake, message
from tests.flows.strategies import filters, flows

LISTS = st.lists(filters(), max_size=2)


def parted(flow: flow_pb2.Flow) -> Event:
    """A flow as it lies in the ring: what tells it from others apart from the rest."""
    common, own = flow_pb2.Flow.FromString(flow.SerializeToString()), flow_pb2.Flow.FromString(flow.SerializeToString())
    for field, _ in flow.ListFields():
        (common if field.name in SPECIAL_FIELDS else own).ClearField(field.name)
    return Event(1, own.SerializeToString(), common.SerializeToString())


@settings(max_examples=60, deadline=None)
@given(st.lists(flows(), min_size=1, max_size=4), LISTS, LISTS)
def test_against_the_filters(
    seen: list[flow_pb2.Flow], allow: list[flow_pb2.FlowFilter], deny: list[flow_pb2.FlowFilter]
) -> None:
    sieve, wanted = Sieve(allow, deny), compile_filters(allow, deny)
    every = [parted(flow) for flow in seen] + [Event(1, flow.SerializeToString()) for flow in seen]
    judge = sieve.judge(every)
    assert [judge(event) for event in every] == [sieve.passes(event) for event in every]
    for flow in (*seen, *seen):  # the second time from memory
        assert sieve.passes(parted(flow)) == wanted(flow)
        assert sieve.passes(Event(1, flow.SerializeToString())) == wanted(flow)


@settings(max_examples=50, deadline=None)
@given(flows(), filters())
def test_what_is_not_special_looks_only_at_what_is_common(flow: flow_pb2.Flow, wanted: flow_pb2.FlowFilter) -> None:
    """So that a filter of a new field is not taken for what it is not."""
    whole, common = compile_filters([wanted], []), flow_pb2.Flow.FromString(parted(flow).common)
    if not any(field.name in SPECIAL for field, _ in wanted.ListFields()):
        assert whole(flow) == whole(common)


def test_what_is_special_of_real_flows() -> None:
    made = intake()
    made.access_log(message(*exchange(headers={"a": "b", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}), denied()))
    made.packets([drop()])
    events = [made.ring[at] for at in range(made.ring.start, made.ring.end)]
    assert [bool(event.common) for event in events] == [True, True, True, True, False]
    for event in events[:4]:
        own = flow_pb2.Flow.FromString(event.own)
        assert {field.name for field, _ in own.ListFields()} <= SPECIAL_FIELDS


def test_what_is_remembered_is_bounded() -> None:
    sieve = Sieve([flow_pb2.FlowFilter(verdict=[1])], [])
    for number in range(2 * KEPT + 5):
        common = flow_pb2.Flow(verdict=1 + number % 2, node_name=str(number)).SerializeToString()
        assert sieve.passes(Event(1, b"", common)) is (number % 2 == 0)
    assert len(sieve._known) <= KEPT
