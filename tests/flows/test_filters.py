"""Filters against their rules, and against a second evaluator that is slow and plain."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

import pytest
from flow import flow_pb2
from hypothesis import given
from hypothesis import strategies as st

from flows.filters import FIELDS, compile_filter, compile_filters
from flows.patterns import path_of
from flows.predicates import FilterError
from tests.flows.make import denied, drop, exchange, flows_in, intake, message
from tests.flows.strategies import filters, flows
from tests.flows.strategies import message as proto

F = flow_pb2.FlowFilter


def seen() -> list[flow_pb2.Flow]:
    """request, response, denied request, its 403, a dropped packet"""
    made = intake()
    made.access_log(message(*exchange(request="GET /v1/status?full=1"), denied()))
    made.packets([drop()])
    return flows_in(made.ring)


def kept(**fields: Any) -> str:
    """Which of the five flows pass, by number."""
    wanted = compile_filter(F(**fields))
    return "".join(str(number) for number, flow in enumerate(seen()) if wanted(flow))


@pytest.mark.parametrize(
    ("fields", "passing"),
    [
        ({}, "01234"),
        ({"source_pod": ["tie"]}, "02"),
        ({"source_pod": ["default/"]}, "01234"),
        ({"source_pod": ["other/"]}, ""),
        ({"source_pod": ["/xw"]}, "4"),
        ({"source_pod": ["/"], "verdict": [flow_pb2.DROPPED]}, "24"),
        ({"destination_pod": ["deathstar"]}, "024"),
        ({"verdict": [flow_pb2.FORWARDED]}, "013"),
        ({"protocol": ["HTTP"]}, "0123"),
        ({"protocol": ["tcp"]}, "01234"),
        ({"protocol": ["udp", "dns"]}, ""),
        ({"event_type": [{"type": 129}]}, "0123"),
        ({"event_type": [{"type": 1, "match_sub_type": True, "sub_type": 133}]}, "4"),
        ({"event_type": [{"type": 1, "match_sub_type": True, "sub_type": 0}]}, ""),
        ({"source_ip": ["10.0.0.2"]}, "02"),
        ({"source_ip": ["10.0.0.0/30"]}, "024"),
        ({"destination_ip": ["fd00::/8"]}, ""),
        ({"destination_port": ["80"]}, "024"),
        ({"source_port": ["80", "50000"]}, "134"),
        ({"source_label": ["org=empire"]}, "0123"),
        ({"source_label": ["k8s:org=alliance"]}, "4"),
        ({"source_label": ["org!=empire"]}, "4"),
        ({"source_identity": [2222, 3333]}, "024"),
        ({"destination_workload": [{"kind": "Deployment"}]}, "024"),
        ({"http_status_code": ["403"]}, "3"),
        ({"http_status_code": ["2+", "40+"]}, "13"),
        ({"http_method": ["put"]}, "23"),
        ({"http_path": ["^/v1/status$"]}, "01"),
        ({"http_url": ["/status$"]}, "01"),
        ({"http_url": ["full=1"]}, ""),
        ({"reply": [True]}, "13"),
        ({"reply": [False]}, "024"),
        ({"tcp_flags": [{"SYN": True}]}, "4"),
        ({"tcp_flags": [{"SYN": True, "ACK": True}]}, ""),
        ({"drop_reason_desc": [flow_pb2.POLICY_DENIED]}, "4"),
        ({"drop_reason_desc": [flow_pb2.DROP_REASON_UNKNOWN]}, "2"),
        ({"traffic_direction": [flow_pb2.INGRESS]}, "01234"),
        ({"node_name": ["n*"]}, "01234"),
        ({"node_name": ["default/"]}, "01234"),
        ({"node_name": ["other/n1"]}, ""),
        ({"ip_version": [flow_pb2.IPv6]}, ""),
        ({"verdict": [flow_pb2.DROPPED], "protocol": ["http"]}, "2"),
        ({"experimental": {}}, "01234"),
        ({"experimental": {"cel_expression": ["_flow.l7.http.code == 403u"]}}, "3"),
        ({"experimental": {"cel_expression": ["_flow.Type == FlowType.L3_L4", "_flow.is_reply"]}}, "134"),
        ({"experimental": {"cel_expression": ["has(_flow.l7)"]}, "verdict": [flow_pb2.DROPPED]}, "2"),
    ],
)
def test_rules(fields: dict[str, Any], passing: str) -> None:
    assert kept(**fields) == passing


def test_lists() -> None:
    """One of the allowlist, none of the denylist."""
    wanted = compile_filters([F(source_pod=["tie"]), F(source_pod=["xwing"])], [F(verdict=[flow_pb2.FORWARDED])])
    assert [wanted(flow) for flow in seen()] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"experimental": {"cel_expression": ["_flow.nope"]}}, "compiling CEL expression: .* undefined field 'nope'"),
        ({"source_pod": [""]}, "must not be empty"),
        ({"source_cluster_name": [""]}, "must not be empty"),
        ({"source_ip": ["10.0.0.256"]}, 'invalid IP address "10.0.0.256" in filter'),
        ({"source_ip": ["10.0.0.0/33"]}, "invalid IP prefix"),
        ({"source_ip": ["10.0.0.0/255.0.0.0"]}, "invalid IP prefix"),
        ({"source_ip": ["10.0.0.0/08"]}, "invalid IP prefix"),
        ({"source_ip": ["fe80::1%eth0/64"]}, "invalid IP prefix"),
        ({"source_port": ["http"]}, 'invalid source port filter: invalid port "http"'),
        ({"destination_port": ["65536"]}, 'invalid destination port filter: invalid port "65536"'),
        ({"protocol": ["gopher"]}, 'invalid protocol filter: unknown protocol: "gopher"'),
        ({"http_status_code": ["6+"]}, 'invalid status code prefix: "6\\+"'),
        ({"http_path": ["("]}, "http path"),
        ({"dns_query": ["("]}, "DNS query"),
        ({"source_label": ["a b"]}, "invalid source label filter"),
        ({"node_labels": ["a b"]}, "invalid node label filter"),
        ({"source_service": [""]}, "invalid source service filter: invalid filter, name must not be empty"),
        ({"source_fqdn": ["a/b"]}, "'/': invalid rune in pattern"),
        ({"source_fqdn": [" . "]}, "empty pattern"),
        ({"source_fqdn": ["a.."]}, "multiple trailing dots in pattern"),
        ({"node_name": ["a/b/c"]}, "too many slashes in pattern"),
        (
            {"http_status_code": ["200"], "event_type": [{"type": 1}]},
            "filtering by http status code requires the event type filter to only match 'l7' events",
        ),
        (
            {"http_header": [{"key": "A"}], "event_type": [{"type": 4}]},
            "filtering by http headers requires the event type filter to only match 'l7' events",
        ),
    ],
)
def test_what_cannot_be_compiled_is_an_error(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FilterError, match=complaint):
        compile_filter(F(**fields))


def test_a_field_from_the_future_is_an_error() -> None:
    newer = F.FromString(F(verdict=[1]).SerializeToString() + b"\xfa\x3f\x01x")  # field 1023
    with pytest.raises(FilterError, match="does not know \\(number 1023\\)"):
        compile_filter(newer)
    newer = F.FromString(F(http_header=[flow_pb2.HTTPHeader.FromString(b"\xfa\x3f\x01x")]).SerializeToString())
    with pytest.raises(FilterError, match="does not know \\(number 1023\\)"):
        compile_filter(newer)


def test_every_field_is_compiled() -> None:
    assert set(FIELDS) == {field.name for field in F.DESCRIPTOR.fields}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://host/a%20b?c=d", "/a b"),
        ("http://host", ""),
        ("/path", "/path"),
        ("//host/path", "//host/path"),
        ("host/path", None),
        ("", None),
        ("http://h/%zz", None),
        ("http://h/a\tb", None),
    ],
)
def test_the_path_of_a_url(url: str, path: str | None) -> None:
    assert path_of(url) == path


# The second evaluator: one plain expression per field, over a single value.
NAIVE: dict[str, Callable[[flow_pb2.Flow, Any], bool]] = {
    "uuid": lambda f, v: f.uuid == v,
    "verdict": lambda f, v: f.verdict == v,
    "source_identity": lambda f, v: f.HasField("source") and f.source.identity == v,
    "source_ip": lambda f, v: (
        f.IP.source != "" and (ipaddress.ip_address(f.IP.source) in ipaddress.ip_network(v, strict=False))
        if "/" in v
        else f.IP.source == v
    ),
    "source_port": lambda f, v: any(
        f.l4.HasField(p) and getattr(f.l4, p).source_port == int(v) for p in ("TCP", "UDP", "SCTP")
    ),
    "destination_port": lambda f, v: any(
        f.l4.HasField(p) and getattr(f.l4, p).destination_port == int(v) for p in ("TCP", "UDP", "SCTP")
    ),
    "protocol": lambda f, v: {
        "tcp": f.l4.HasField("TCP"),
        "icmp": f.l4.HasField("ICMPv4") or f.l4.HasField("ICMPv6"),
        "http": f.l7.HasField("http"),
        "dns": f.l7.HasField("dns"),
    }[v],
    "http_status_code": lambda f, v: bool(f.l7.http.code and re.match(v.strip("+"), str(f.l7.http.code))),
    "http_method": lambda f, v: f.l7.http.method != "" and f.l7.http.method.lower() == v,
    "reply": lambda f, v: (f.HasField("is_reply") or f.verdict == flow_pb2.DROPPED) and f.is_reply.value == v,
    "ip_version": lambda f, v: f.IP.ipVersion == v,
    "traffic_direction": lambda f, v: f.traffic_direction == v,
    "source_label": lambda f, v: v in [label.partition(":")[2] for label in f.source.labels],
    "source_pod": lambda f, v: (
        (f.source.namespace + f.source.pod_name) != ""
        and f.source.namespace == v.split("/")[0]
        and f.source.pod_name.startswith(v.split("/")[1])
    ),
}


@given(flows(), filters())
def test_against_the_plain_evaluator(flow: flow_pb2.Flow, wanted: flow_pb2.FlowFilter) -> None:
    for field, values in wanted.ListFields():
        alone = F()
        getattr(alone, field.name).extend(values)
        assert compile_filter(alone)(flow) == any(NAIVE[field.name](flow, value) for value in values), field.name
    expected = all(any(NAIVE[field.name](flow, value) for value in values) for field, values in wanted.ListFields())
    assert compile_filter(wanted)(flow) == expected


TEXTS = "source_label source_fqdn node_name http_path source_ip source_pod protocol source_port http_status_code"


@given(proto(F, **{name: st.lists(st.text(max_size=6), max_size=2) for name in TEXTS.split()}))
def test_nothing_but_the_filter_error_escapes(wanted: flow_pb2.FlowFilter) -> None:
    try:
        compile_filter(wanted)(flow_pb2.Flow())
    except FilterError:
        pass


def test_filters_that_would_keep_us_busy() -> None:
    many = flow_pb2.FlowFilter(source_pod=[f"default/pod-{number}" for number in range(600)])
    with pytest.raises(FilterError, match="1202 conditions: more than 1000"):
        compile_filters([many], [many])
    with pytest.raises(FilterError, match=r"invalid http path filter: 'x.*more than 20000 instructions"):
        compile_filter(flow_pb2.FlowFilter(http_path=["x" * 9000] * 3))
    with pytest.raises(FilterError, match="invalid http path filter"):
        compile_filter(flow_pb2.FlowFilter(http_path=["((((a{100}){100}){100}){100})"]))


@pytest.mark.timeout(5)
def test_patterns_of_names_are_matched_in_linear_time() -> None:
    stars = "*a" * 100 + "*b"
    named = flow_pb2.Flow(source_names=["a" * 255], node_name="a" * 255)
    assert not compile_filter(flow_pb2.FlowFilter(source_fqdn=[stars]))(named)
    assert not compile_filter(flow_pb2.FlowFilter(node_name=[stars]))(named)
    assert compile_filter(flow_pb2.FlowFilter(source_fqdn=["*" * 60]))(named)
