"""Flows in, the page that Prometheus reads out: each row of Hubble's table."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from flow import flow_pb2
from google.protobuf import json_format
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from flows.metrics import families
from flows.metrics.config import MetricsConfigError, parse_file, parse_line
from flows.metrics.counting import Counting

CLIENT = {"namespace": "default", "pod_name": "tiefighter", "labels": ["k8s:app=tie", "k8s:org=empire"]}
SERVER = {
    "namespace": "space",
    "pod_name": "deathstar-1",
    "labels": ["k8s:app.kubernetes.io/name=star"],
    "workloads": [{"name": "deathstar", "kind": "Deployment"}],
}
WORLD = {"labels": ["reserved:world-ipv4"]}


def flow(**fields: object) -> flow_pb2.Flow:
    base = {
        "source": CLIENT,
        "destination": SERVER,
        "IP": {"source": "10.0.0.2", "destination": "10.0.0.7", "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 4000, "destination_port": 80}},
        "verdict": "FORWARDED",
        "traffic_direction": "INGRESS",
    }
    return json_format.ParseDict({**base, **fields}, flow_pb2.Flow())


def http(kind: str, code: int = 200, **fields: object) -> flow_pb2.Flow:
    """A request from client to server, or its response, which goes the other way."""
    is_response = kind == "RESPONSE"
    record = {
        "method": "PUT",
        "protocol": "HTTP/1.1",
        "url": "http://deathstar/",
        **({"code": code} if is_response else {}),
    }
    ends = {"source": SERVER, "destination": CLIENT} if is_response else {}
    return flow(
        l7={"type": kind, "latency_ns": "30000000", "http": record}, event_type={"type": 129}, is_reply=is_response,
        **{**ends, **fields},
    )  # fmt: skip


def dns(kind: str, **record: object) -> flow_pb2.Flow:
    query = {"query": "endor.example.", "qtypes": ["A"], **record}
    return flow(l7={"type": kind, "dns": query}, event_type={"type": 129})


def page(line: str, flows: Iterable[flow_pb2.Flow]) -> set[str]:
    """Samples of Hubble's metrics that are not zero, as they stand on the page."""
    registry = CollectorRegistry()
    counting = Counting(registry, pytest.fail)
    counting.configure(parse_line(line))
    for one in flows:
        counting.take(one)
    lines = generate_latest(registry).decode().splitlines()
    return {text for text in lines if text.startswith("hubble_") and not text.endswith(" 0.0")}


SYN = {"TCP": {"destination_port": 80, "flags": {"SYN": True}}}
DENIED = {"verdict": "DROPPED", "drop_reason_desc": "POLICY_DENIED"}
ROWS = {
    "drop of a packet": (
        "drop",
        [flow(**DENIED, event_type={"type": 1})],
        ['hubble_drop_total{protocol="TCP",reason="POLICY_DENIED"} 1.0'],
    ),
    "drop of a request has no reason of the kernel": (
        "drop",
        [http("REQUEST", verdict="DROPPED")],
        ['hubble_drop_total{protocol="HTTP",reason="DROP_REASON_UNKNOWN"} 1.0'],
    ),
    "what passes is no drop": ("drop", [flow()], []),
    "flags of a handshake": (
        "tcp",
        [
            flow(l4=SYN),
            flow(l4={"TCP": {"flags": {"SYN": True, "ACK": True}}}),
            flow(l4={"TCP": {"flags": {"ACK": True}}}),
            flow(l4={"TCP": {"flags": {"FIN": True, "RST": True}}}),
            flow(l4=SYN, **DENIED),
        ],
        [f'hubble_tcp_flags_total{{family="IPv4",flag="{flag}"}} 1.0' for flag in ("SYN", "SYN-ACK", "FIN", "RST")],
    ),
    "every flow is processed": (
        "flow",
        [
            http("REQUEST"),
            flow(event_type={"type": 4}),
            flow(event_type={"type": 1, "sub_type": 133}, **DENIED),
            flow(event_type={"type": 5}, verdict="REDIRECTED"),
            flow(event_type={"type": 7}),
        ],
        [
            'hubble_flows_processed_total{protocol="HTTP",subtype="HTTP",type="L7",verdict="FORWARDED"} 1.0',
            'hubble_flows_processed_total{protocol="TCP",subtype="to-endpoint",type="Trace",verdict="FORWARDED"} 1.0',
            'hubble_flows_processed_total{protocol="TCP",subtype="",type="Drop",verdict="DROPPED"} 1.0',
            'hubble_flows_processed_total{protocol="TCP",subtype="",type="PolicyVerdict",verdict="REDIRECTED"} 1.0',
            'hubble_flows_processed_total{protocol="TCP",subtype="7",type="Unknown",verdict="FORWARDED"} 1.0',
        ],
    ),
    "ports of what is known to be no reply": (
        "port-distribution",
        [
            flow(is_reply=False),
            flow(),
            flow(is_reply=True),
            flow(is_reply=False, l4={"ICMPv4": {"type": 8}}),
            flow(is_reply=False, **DENIED),
        ],
        [
            'hubble_port_distribution_total{port="80",protocol="TCP"} 1.0',
            'hubble_port_distribution_total{port="0",protocol="ICMPv4"} 1.0',
        ],
    ),
    "pings": (
        "icmp",
        [flow(l4={"ICMPv4": {"type": 8}}), flow(l4={"ICMPv6": {"type": 129}}), flow()],
        [
            'hubble_icmp_total{family="IPv4",type="EchoRequest"} 1.0',
            'hubble_icmp_total{family="IPv6",type="EchoReply"} 1.0',
        ],
    ),
    "verdicts of policy": (
        "policy",
        [
            flow(event_type={"type": 5}, policy_match_type=2),
            flow(event_type={"type": 5}, source={"labels": ["reserved:host"]}),
            http("REQUEST", verdict="DROPPED"),
            flow(event_type={"type": 4}),
        ],
        [
            'hubble_policy_verdicts_total{action="forwarded",direction="ingress",match="l3-l4"} 1.0',
            'hubble_policy_verdicts_total{action="dropped",direction="ingress",match="l7/http"} 1.0',
        ],
    ),
    "flows to the world": (
        "flows-to-world:port",
        [
            flow(destination=WORLD),
            flow(destination=WORLD, is_reply=True),
            flow(destination=WORLD, **DENIED),
            flow(destination=WORLD, verdict="DROPPED", drop_reason_desc="INVALID_SOURCE_IP"),
            flow(),
        ],
        [
            'hubble_flows_to_world_total{port="80",protocol="TCP",verdict="FORWARDED"} 1.0',
            'hubble_flows_to_world_total{port="80",protocol="TCP",verdict="DROPPED"} 1.0',
        ],
    ),
    "first packets to the world": (
        "flows-to-world:syn-only",
        [flow(destination=WORLD), flow(destination=WORLD, l4=SYN), flow(destination=WORLD, l4={"UDP": {}})],
        ['hubble_flows_to_world_total{protocol="TCP",verdict="FORWARDED"} 1.0'],
    ),
    "names asked for": (
        "dns:query",
        [
            dns("REQUEST"),
            dns("RESPONSE", ips=["1.2.3.4"], rrtypes=["A", "CNAME"]),
            dns("RESPONSE", rcode=3),
        ],
        [
            'hubble_dns_queries_total{ips_returned="0",qtypes="A",query="endor.example",rcode=""} 1.0',
            'hubble_dns_responses_total{ips_returned="1",qtypes="A",query="endor.example",rcode="No Error"} 1.0',
            'hubble_dns_responses_total{ips_returned="0",qtypes="A",query="endor.example",'
            'rcode="Non-Existent Domain"} 1.0',
            'hubble_dns_response_types_total{qtypes="A",query="endor.example",type="A"} 1.0',
            'hubble_dns_response_types_total{qtypes="A",query="endor.example",type="CNAME"} 1.0',
        ],
    ),
    "who asks and who answers (version 1)": (
        "http:sourceContext=pod;destinationContext=workload|pod",
        [http("REQUEST")],
        [
            'hubble_http_requests_total{destination="space/deathstar",method="PUT",protocol="HTTP/1.1",'
            'reporter="server",source="default/tiefighter"} 1.0'
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_each_metric_counts_what_its_row_says(row: str) -> None:
    line, flows, expected = ROWS[row]
    assert page(line, flows) == set(expected)


def test_version_2_counts_responses_with_client_and_server_in_their_places() -> None:
    source, destination = "source_pod,source_namespace,source_app", "destination_workload,destination_workload_kind"
    context = f"{source},{destination},destination_ip,traffic_direction"
    counted = page(
        f"httpV2:labelsContext={context}", [http("REQUEST"), http("RESPONSE", 403, traffic_direction="EGRESS")]
    )
    labels = (
        'destination_ip="10.0.0.2",destination_workload="deathstar",destination_workload_kind="Deployment",method="PUT",'
        'protocol="HTTP/1.1",reporter="client",source_app="tie",source_namespace="default",source_pod="tiefighter",'
        'status="403",traffic_direction="egress"'
    )
    assert f"hubble_http_requests_total{{{labels}}} 1.0" in counted
    buckets = {text for text in counted if "_bucket" in text}
    assert len(buckets) == 9, "of Go's 11 buckets and +Inf, those from 50 ms hold a request of 30 ms"
    assert not any("_created" in text for text in counted)


def test_a_context_for_one_direction_wins_there() -> None:
    line = "drop:sourceContext=pod;sourceIngressContext=ip|dns"
    counted = page(line, [flow(**DENIED), flow(**DENIED, traffic_direction="EGRESS")])
    assert {text.partition('source="')[2].partition('"')[0] for text in counted} == {"10.0.0.2", "default/tiefighter"}


def test_reserved_identity_prefers_the_api_server() -> None:
    labels = {"labels": ["reserved:remote-node", "reserved:kube-apiserver"]}
    (counted,) = page("drop:sourceContext=reserved-identity", [flow(**DENIED, source=labels)])
    assert 'source="reserved:kube-apiserver"' in counted


def test_exemplars_carry_the_trace() -> None:
    registry = CollectorRegistry()
    counting = Counting(registry, pytest.fail)
    counting.configure(parse_line("httpV2:exemplars=true"))
    counting.take(http("RESPONSE", trace_context={"parent": {"trace_id": "ab" * 16}}))
    assert f'# {{traceID="{"ab" * 16}"}} 1.0' in openmetrics(registry).decode()


def test_a_filter_says_which_flows_count() -> None:
    registry = CollectorRegistry()
    counting = Counting(registry, pytest.fail)
    counting.configure(parse_file({"metrics": [{"name": "drop", "excludeFilters": [{"source_pod": ["default/tie"]}]}]}))
    counting.take(flow(**DENIED))
    counting.take(flow(**DENIED, source=SERVER))
    assert registry.get_sample_value("hubble_drop_total", {"reason": "POLICY_DENIED", "protocol": "TCP"}) == 1


def test_series_of_a_pod_go_when_it_is_forgotten() -> None:
    registry = CollectorRegistry()
    counting = Counting(registry, pytest.fail)
    counting.configure(parse_line("drop:sourceContext=pod tcp:labelsContext=source_pod,source_namespace flow"))
    counting.take(flow(**DENIED))
    counting.take(flow(l4=SYN))
    counting.take(flow(l4=SYN, source=SERVER))
    assert counting.forget_pod("default", "tiefighter") == 2
    text = generate_latest(registry).decode()
    assert "tiefighter" not in text
    assert "deathstar-1" in text
    assert counting.forget_pod("default", "tiefighter") == 0


def test_a_metric_with_too_many_series_takes_no_more_and_says_why_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "SERIES_MAX", 3)
    registry, complaints = CollectorRegistry(), list[str]()
    counting = Counting(registry, complaints.append)
    counting.configure(parse_line("drop:sourceContext=ip"))
    for number in range(6):
        counting.take(flow(**DENIED, IP={"source": f"10.0.0.{number}", "ipVersion": "IPv4"}))
    labels = {"metric": "hubble_drop_total"}
    assert registry.get_sample_value("deflector_hubble_metrics_overflow_total", labels) == 3
    assert len(complaints) == 1
    assert "label source has 3 values" in complaints[0]


def test_reconfiguring_keeps_what_stays_and_a_bad_one_changes_nothing() -> None:
    registry = CollectorRegistry()
    counting = Counting(registry, pytest.fail)
    counting.configure(parse_line("drop tcp"))
    counting.take(flow(**DENIED))
    counting.configure(parse_line("drop icmp"))
    with pytest.raises(MetricsConfigError, match='"nobody" is none of'):
        counting.configure(parse_line("flow:sourceContext=nobody"))
    assert registry.get_sample_value("hubble_drop_total", {"reason": "POLICY_DENIED", "protocol": "TCP"}) == 1
    text = generate_latest(registry).decode()
    assert "hubble_icmp_total" in text
    assert "hubble_tcp_flags_total" not in text
    assert "hubble_flows" not in text
