"""Flows of the Hubble API as scenarios see them."""

from __future__ import annotations

from flow import flow_pb2
from google.protobuf.wrappers_pb2 import BoolValue

from conformance.flow_view import SeenFlow, matches, missing, view


def an_http_response() -> flow_pb2.Flow:
    flow = flow_pb2.Flow(
        verdict=flow_pb2.FORWARDED,
        l4=flow_pb2.Layer4(TCP=flow_pb2.TCP(source_port=80, destination_port=20001)),
        source=flow_pb2.Endpoint(namespace="default", pod_name="deathstar-1"),
        traffic_direction=flow_pb2.INGRESS,
        event_type=flow_pb2.CiliumEventType(type=129),
        is_reply=BoolValue(value=True),
        Summary="HTTP/1.1 200 0ms (GET http://x/)",
    )
    flow.source.workloads.add(name="deathstar", kind="Deployment")
    flow.IP.source, flow.IP.destination = "10.0.0.2", "10.0.0.1"
    flow.l7.type = flow_pb2.RESPONSE
    flow.l7.http.code, flow.l7.http.method = 200, "GET"
    return flow


def test_an_http_flow_is_flattened() -> None:
    seen = view(an_http_response())
    assert (seen.event, seen.l7, seen.verdict, seen.direction, seen.reply) == (
        "l7", "RESPONSE", "FORWARDED", "INGRESS", "true",
    )  # fmt: skip
    assert (seen.source, seen.source_port, seen.source_workload) == (
        "default/deathstar-1",
        "80",
        "Deployment/deathstar",
    )
    assert (seen.destination, seen.destination_port, seen.code) == ("10.0.0.1", "20001", "200")
    assert str(seen).startswith("10.0.0.1:20001 <- default/deathstar-1:80 http-response")


def test_what_is_absent_is_empty() -> None:
    drop = flow_pb2.Flow(event_type=flow_pb2.CiliumEventType(type=1), drop_reason_desc=flow_pb2.POLICY_DENIED)
    seen = view(drop)
    assert (seen.event, seen.drop_reason, seen.reply, seen.l7, seen.code) == ("drop", "POLICY_DENIED", "", "", "")


def test_patterns_are_exact_or_whole_regular_expressions() -> None:
    seen = SeenFlow(source="default/xwing", summary="TCP Flags: SYN")
    assert matches({"source": "default/xwing", "summary": "~TCP .*"}, seen)
    assert not matches({"source": "~default"}, seen)
    assert not matches({"source": "xwing"}, seen)


def test_each_flow_serves_one_pattern() -> None:
    flow, pattern = SeenFlow(verdict="DROPPED"), {"verdict": "DROPPED"}
    assert missing([pattern, pattern], [flow]) == [pattern]
    assert missing([pattern, pattern], [flow, flow]) == []
