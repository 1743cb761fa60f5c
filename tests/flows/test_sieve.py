"""What the sieve lets through is what the filters want, however much of a flow is common to others."""

from __future__ import annotations

import pytest
from flow import flow_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.filters import compile_filters
from flows.ring import SPECIAL as SPECIAL_FIELDS
from flows.ring import Event
from flows.sieve import KEPT, SPECIAL, Sieve, looks_at_common
from tests.flows.make import denied, drop, entry, exchange, intake, message
from tests.flows.strategies import filters, flows
from tests.flows.test_parsed import PRODUCE, QUERY

LISTS = st.lists(filters(), max_size=2)


EXPRESSIONS = (
    "_flow.verdict == Verdict.DROPPED",
    "_flow.source.labels.exists(l, l == 'k8s:app=x')",
    "_flow.node_labels[0] == 'zone=a'",
    "_flow.l7.http.code == 200u || _flow.is_reply == true",
    "has(_flow.l4) && _flow.source.identity == 2u",
)
SPLIT = ("l4", "l7")


def _part_l7(common: flow_pb2.Layer7, own: flow_pb2.Layer7) -> None:
    common.ClearField("latency_ns")
    own.ClearField("type")
    record = common.WhichOneof("record")
    if record is None:
        return
    getattr(common, record).Clear()
    getattr(common, record).SetInParent()


def parted(flow: flow_pb2.Flow) -> Event:
    """A flow as it lies in the ring: what tells it from others apart from the rest."""
    common, own = flow_pb2.Flow.FromString(flow.SerializeToString()), flow_pb2.Flow.FromString(flow.SerializeToString())
    for field, _ in flow.ListFields():
        if field.name not in (*SPLIT, "policy_log"):
            (common if field.name in SPECIAL_FIELDS else own).ClearField(field.name)
    if flow.HasField("l4") and (protocol := flow.l4.WhichOneof("protocol")):
        for port in ("source_port", "destination_port"):
            if port in getattr(common.l4, protocol).DESCRIPTOR.fields_by_name:
                getattr(common.l4, protocol).ClearField(port)
        for field, _ in getattr(flow.l4, protocol).ListFields():
            if not field.name.endswith("_port"):
                getattr(own.l4, protocol).ClearField(field.name)
    if flow.HasField("l7"):
        _part_l7(common.l7, own.l7)
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
    made.parsed([QUERY, PRODUCE])
    events = [made.ring[at] for at in range(made.ring.start, made.ring.end)]
    for event in events:
        assert event.common
        own, common = flow_pb2.Flow.FromString(event.own), flow_pb2.Flow.FromString(event.common)
        assert {field.name for field, _ in own.ListFields()} <= SPECIAL_FIELDS
        shared = flow_pb2.Flow.FromString(parted(event.flow()).common)
        assert common.l7.WhichOneof("record") == shared.l7.WhichOneof("record")
        assert common.l4.WhichOneof("protocol") == shared.l4.WhichOneof("protocol")
        assert not own.l4.TCP.HasField("flags")


def test_methods_match_however_a_client_writes_them() -> None:
    made = intake()
    for method in ("PATCH", "pAtch", "purge", "PURGE", "GET"):
        made.access_log(message(entry(request=f"{method} /")))
    events = [made.ring[at] for at in range(made.ring.start, made.ring.end)]
    for wanted, expected in (("patch", ["PATCH", "pAtch"]), ("PuRGE", ["purge", "PURGE"]), ("HEAD", [])):
        sieve = Sieve([flow_pb2.FlowFilter(http_method=[wanted], reply=[False])], [])
        judge = sieve.judge(events)
        assert [event.flow().l7.http.method for event in events if judge(event)] == expected


def test_what_is_remembered_is_bounded() -> None:
    sieve = Sieve([flow_pb2.FlowFilter(verdict=[1])], [])
    for number in range(2 * KEPT + 5):
        common = flow_pb2.Flow(verdict=1 + number % 2, node_name=str(number)).SerializeToString()
        assert sieve.passes(Event(1, b"", common)) is (number % 2 == 0)
    assert len(sieve._known) <= KEPT


@pytest.mark.parametrize(
    ("expression", "is_common"),
    [
        ("_flow.verdict == Verdict.DROPPED", True),
        ("_flow.source.labels.exists(l, l == 'k8s:org=alliance') && !has(_flow.is_reply)", True),
        ("_flow.source_names.size() > 0 || _flow . IP.source == '_flow.l7'", False),  # for all we know
        ("_flow.l4.TCP.destination_port == 80u", False),
        ("[_flow].all(f, f.l7.http.code == 0u)", False),
        ("has(_flow.l7)", False),
        ("true", True),
        ("my_flow.l7 == 1", True),  # no expression at all, and refused elsewhere
    ],
)
def test_which_expressions_are_asked_of_what_is_common(expression: str, is_common: bool) -> None:
    assert looks_at_common([expression]) is is_common


@settings(max_examples=40, deadline=None)
@given(flows(), st.sampled_from(EXPRESSIONS), st.booleans())
def test_expressions(flow: flow_pb2.Flow, expression: str, denies: bool) -> None:
    wanted = [flow_pb2.FlowFilter(experimental={"cel_expression": [expression]})]
    lists = ([], wanted) if denies else (wanted, [])
    assert Sieve(*lists).passes(parted(flow)) == compile_filters(*lists)(flow)
