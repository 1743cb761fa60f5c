"""How the fields of a flow are filled."""

from __future__ import annotations

import ipaddress

import pytest
from flow import flow_pb2
from google.protobuf import json_format

from flows.accesslog.decode import decode_entry
from flows.build import Builder, longest_cidr_only
from flows.lookups import EndpointRef, PolicyRef
from flows.record import HttpNews, PacketKind, PacketRecord, PacketVerdict
from flows.summary import ICMP4, ICMP6, icmp_name, packet_summary
from policies.types import Direction, Protocol
from tests.flows.make import (
    DEATHSTAR,
    PODS,
    SERVICE,
    TIEFIGHTER,
    XWING,
    Galaxy,
    denied,
    drop,
    entry,
    exchange,
    flows_in,
    intake,
    message,
    seen,
    uuids,
)

TIME = 1_768_385_472_345_678_901
UUID = b"6ca90bdb-b014-4acf-8a49-b5dfa6c68e3b"


def http(*entries: object, galaxy: Galaxy | None = None) -> list[flow_pb2.Flow]:
    made = intake(galaxy)
    made.access_log(message(*entries))  # type: ignore[arg-type]
    assert made.complaint == ""
    return flows_in(made.ring)


def packet(record: PacketRecord, galaxy: Galaxy | None = None) -> flow_pb2.Flow:
    return Builder(galaxy or Galaxy(), "0.1.0").packet(record, TIME, UUID).flow()


def test_a_request_in_full() -> None:
    request = http(*exchange(user_agent="curl/8"))[0]
    assert json_format.MessageToDict(request, preserving_proto_field_name=True) == {
        "time": "2026-01-14T10:11:12.345678901Z",
        "uuid": "00000000-0000-4000-8000-000000000001",
        "emitter": {"name": "Deflector", "version": "0.1.0"},
        "verdict": "FORWARDED",
        "IP": {"source": TIEFIGHTER, "destination": DEATHSTAR, "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 40000, "destination_port": 80}},
        "source": {
            "ID": 12,
            "identity": 2222,
            "namespace": "default",
            "labels": ["k8s:class=tiefighter", "k8s:io.kubernetes.pod.namespace=default", "k8s:org=empire"],
            "pod_name": "tiefighter",
            "cluster_name": "default",
        },
        "destination": {
            "ID": 17,
            "identity": 4711,
            "namespace": "default",
            "labels": ["k8s:class=deathstar", "k8s:io.kubernetes.pod.namespace=default", "k8s:org=empire"],
            "pod_name": "deathstar-1",
            "workloads": [{"name": "deathstar", "kind": "Deployment"}],
            "cluster_name": "default",
        },
        "Type": "L7",
        "node_name": "n1",
        "l7": {
            "type": "REQUEST",
            "http": {
                "method": "PUT",
                "url": "http://deathstar/v1/exhaust-port",
                "protocol": "HTTP/1.1",
                "headers": [{"key": "User-Agent", "value": "curl/8"}],
            },
        },
        "event_type": {"type": 129},
        "traffic_direction": "INGRESS",
        "is_reply": False,
        "Summary": "HTTP/1.1 PUT http://deathstar/v1/exhaust-port",
    }


def test_a_response_travels_back() -> None:
    request, response = http(*exchange(code=200, latency_ns=12_999_999))
    assert (response.source, response.destination) == (request.destination, request.source)
    assert (response.IP.source, response.IP.destination) == (DEATHSTAR, TIEFIGHTER)
    assert (response.l4.TCP.source_port, response.l4.TCP.destination_port) == (80, 40000)
    assert response.traffic_direction == request.traffic_direction == flow_pb2.INGRESS
    assert (response.is_reply.value, response.reply) == (True, True)
    assert (response.l7.type, response.l7.latency_ns, response.l7.http.code) == (flow_pb2.RESPONSE, 12_999_999, 200)
    assert (response.l7.http.method, response.l7.http.url) == (request.l7.http.method, request.l7.http.url)
    assert response.Summary == "HTTP/1.1 200 12ms (PUT http://deathstar/v1/exhaust-port)"


def test_a_denial_is_a_dropped_request_and_a_forwarded_403() -> None:
    request, response = http(denied())
    assert (request.verdict, request.drop_reason, request.drop_reason_desc) == (flow_pb2.DROPPED, 0, 0)
    assert request.is_reply.value is False
    assert (response.verdict, response.l7.http.code) == (flow_pb2.FORWARDED, 403)


def test_both_halves_carry_the_trace() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    flows = http(*exchange(headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}))
    assert {flow.trace_context.parent.trace_id for flow in flows} == {trace}


def test_an_egress_slot_sees_a_service() -> None:
    request, response = http(*exchange(slot="egress:2222:tcp:80", server=SERVICE))
    assert request.traffic_direction == flow_pb2.EGRESS
    assert (request.destination_service.name, request.destination_service.namespace) == ("deathstar", "default")
    assert not request.HasField("source_service")
    assert response.source_service.name == "deathstar"


def test_whom_nobody_knows_is_the_world() -> None:
    request = http(*exchange(client="8.8.8.8"))[0]
    assert (request.source.identity, list(request.source.labels)) == (2, ["reserved:world"])
    assert (request.source.ID, request.source.pod_name) == (0, "")


def test_ipv6() -> None:
    pods = {**PODS, "fd00::2": PODS[TIEFIGHTER]}
    request = http(*exchange(client="fd00::2", server="fd00::7"), galaxy=Galaxy(pods))[0]
    assert (request.IP.ipVersion, request.source.pod_name) == (flow_pb2.IPv6, "tiefighter")


def test_a_drop() -> None:
    flow = packet(drop())
    assert (flow.verdict, flow.Type) == (flow_pb2.DROPPED, flow_pb2.L3_L4)
    assert (flow.event_type.type, flow.event_type.sub_type) == (1, 133)
    assert (flow.drop_reason, flow.drop_reason_desc) == (133, flow_pb2.POLICY_DENIED)
    assert flow.traffic_direction == flow_pb2.INGRESS
    assert not flow.HasField("is_reply")
    assert flow.l4.TCP.flags == flow_pb2.TCPFlags(SYN=True)
    assert (flow.source.pod_name, flow.destination.pod_name) == ("xwing", "deathstar-1")
    assert flow.Summary == "TCP Flags: SYN"


@pytest.mark.parametrize(
    ("verdict", "reason", "field", "is_reply"),
    [
        (PacketVerdict.FORWARDED, 0, "ingress_allowed_by", False),
        (PacketVerdict.REDIRECTED, 0, "ingress_allowed_by", False),
        (PacketVerdict.AUDIT, 0, "ingress_allowed_by", False),
        (PacketVerdict.DROPPED, 133, "", None),
        (PacketVerdict.DROPPED, 181, "ingress_denied_by", None),
    ],
)
def test_policy_verdicts(verdict: PacketVerdict, reason: int, field: str, is_reply: bool | None) -> None:
    policy = PolicyRef("rule1", "default", "CiliumNetworkPolicy", ("k8s:io.cilium.k8s.policy.name=rule1",), 3)
    record = drop(kind=PacketKind.POLICY_VERDICT, verdict=verdict, drop_reason=reason, match_type=2)
    flow = packet(record, Galaxy(policies=(policy,)))
    assert (flow.event_type.type, flow.event_type.sub_type, flow.policy_match_type) == (5, 0, 2)
    assert flow.verdict == flow_pb2.Verdict.Value(verdict.name)
    assert (flow.is_reply.value if flow.HasField("is_reply") else None) == is_reply
    fields = ("ingress_allowed_by", "ingress_denied_by", "egress_allowed_by", "egress_denied_by")
    assert [name for name in fields if getattr(flow, name)] == ([field] if field else [])
    if field:
        assert getattr(flow, field)[0].name == "rule1"


def test_a_verdict_says_what_the_authors_of_its_policies_want_said() -> None:
    policies = tuple(PolicyRef(name, "default", "CiliumNetworkPolicy", logs=("a", name)) for name in ("p", "q"))
    record = drop(kind=PacketKind.POLICY_VERDICT, drop_reason=181)
    assert list(packet(record, Galaxy(policies=policies)).policy_log) == ["a", "p", "q"]
    assert not packet(drop(kind=PacketKind.POLICY_VERDICT), Galaxy(policies=policies)).policy_log


def test_egress_verdicts_name_egress_policies() -> None:
    record = drop(kind=PacketKind.POLICY_VERDICT, verdict=PacketVerdict.FORWARDED, direction=Direction.EGRESS)
    flow = packet(record, Galaxy(policies=(PolicyRef("a", "b", "CiliumNetworkPolicy"),)))
    assert [policy.name for policy in flow.egress_allowed_by] == ["a"]


@pytest.mark.parametrize(
    ("point", "name", "reason", "is_reply"),
    [
        (0, "TO_ENDPOINT", flow_pb2.NEW, False),
        (1, "TO_PROXY", flow_pb2.ESTABLISHED, False),
        (5, "FROM_ENDPOINT", flow_pb2.REPLY, True),
        (2, "TO_HOST", flow_pb2.TRACE_REASON_UNKNOWN, None),
    ],
)
def test_traces(point: int, name: str, reason: int, is_reply: bool | None) -> None:
    record = drop(
        kind=PacketKind.TRACE,
        verdict=PacketVerdict.FORWARDED,
        drop_reason=0,
        observation_point=point,
        trace_reason=reason,
        interface_index=7,
        interface_name="lxc1",
    )
    flow = packet(record)
    assert (flow.event_type.type, flow.event_type.sub_type) == (4, point)
    assert flow.trace_observation_point == flow_pb2.TraceObservationPoint.Value(name)
    assert (flow.is_reply.value if flow.HasField("is_reply") else None) == is_reply
    assert (flow.verdict, flow.interface.index, flow.interface.name) == (flow_pb2.FORWARDED, 7, "lxc1")


def test_the_kernels_identity_wins_over_the_address() -> None:
    flow = packet(drop(source_identity=9999))
    assert (flow.source.identity, flow.source.pod_name) == (9999, "")
    assert packet(drop(source_identity=3333)).source.pod_name == "xwing"


def test_macs_are_shown_where_there_are_some() -> None:
    assert not packet(drop()).HasField("ethernet")
    assert packet(drop(source_mac="aa:bb:cc:dd:ee:ff")).ethernet.source == "aa:bb:cc:dd:ee:ff"


@pytest.mark.parametrize(
    ("changes", "field", "summary"),
    [
        ({"tcp_flags": 0x12}, "TCP", "TCP Flags: SYN, ACK"),
        ({"tcp_flags": 0x1FF}, "TCP", "TCP Flags: SYN, ACK, RST, FIN, PSH, URG, ECE, CWR, NS"),
        ({"protocol": Protocol.UDP}, "UDP", "UDP"),
        ({"protocol": Protocol.SCTP}, "SCTP", "SCTP"),
        ({"protocol": Protocol.ICMP, "icmp_type": 8}, "ICMPv4", "ICMPv4 EchoRequest"),
        ({"protocol": Protocol.ICMP, "icmp_type": 3, "icmp_code": 3}, "ICMPv4", "ICMPv4 DestinationUnreachable(Port)"),
        ({"protocol": Protocol.ICMPV6, "icmp_type": 135}, "ICMPv6", "ICMPv6 NeighborSolicitation"),
        ({"protocol": 47}, None, ""),
    ],
)
def test_layer_4(changes: dict[str, int], field: str | None, summary: str) -> None:
    flow = packet(drop(**changes))
    assert flow.l4.WhichOneof("protocol") == field
    assert flow.Summary == packet_summary(drop(**changes)) == summary


def test_icmp_names_for_odd_codes() -> None:
    assert icmp_name(ICMP4, 8, 1) == "EchoRequest(Code: 1)"
    assert icmp_name(ICMP4, 3, 99) == "DestinationUnreachable(Code: 99)"
    assert icmp_name(ICMP6, 99, 1) == "99(1)"


def test_of_cidr_labels_the_longest_remains() -> None:
    labels = ("cidr:0.0.0.0/0=", "cidr:10.0.0.0/8=", "cidr:10.1.0.0/16=", "reserved:world")
    assert longest_cidr_only(labels) == ("cidr:10.1.0.0/16=", "reserved:world")
    assert longest_cidr_only(("cidr:fd00--/8=", "cidr:fd00--1/128=")) == ("cidr:fd00--1/128=",)


def test_templates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.build.KEPT", 10)
    builder = Builder(Galaxy(), "0.1.0")
    for number in range(50):
        record = decode_entry(seen(entry(client=str(ipaddress.ip_address("10.1.0.0") + number))))
        assert record is not None
        (event,) = builder.http(HttpNews(record, True, False), TIME, uuids().__next__)
        assert event.flow().IP.source == record.exchange.client_ip
    assert len(builder._legs) <= 10
    assert len(builder._endpoints) <= 10


def test_a_new_view_is_used_for_what_comes_after_it() -> None:
    views = [Galaxy()]
    made = intake(lambda: views[-1], reading=False)
    made.access_log(message(*exchange()))
    views.append(Galaxy({**PODS, TIEFIGHTER: EndpointRef(1, 1, "default", "tiefighter-2")}))
    made.access_log(message(*exchange()))
    made.build()
    assert [flow.source.pod_name for flow in flows_in(made.ring) if flow.l7.type == flow_pb2.REQUEST] == [
        "tiefighter",
        "tiefighter-2",
    ]


def test_xwing_is_not_the_empire() -> None:
    assert "k8s:org=alliance" in packet(drop()).source.labels
    assert packet(drop()).IP.source == XWING
