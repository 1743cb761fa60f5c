"""DNS and Kafka as flows: every row of what Hubble shows of them, and as its command line prints them."""

from __future__ import annotations

from typing import Any

import pytest
from flow import flow_pb2
from observer import observer_pb2

from flows.filters import compile_filter
from flows.intake import Intake
from flows.lookups import PolicyRef, Reason
from flows.printer import Printer, Style
from flows.record import DnsAnswer, DnsRecord, KafkaRecord, Leg, Parsed, ParserVerdict, SlotRef
from flows.redact import REDACTED, Redaction
from flows.ring import Ring
from policies.types import Direction, Protocol
from tests.flows.make import DEATHSTAR, TIEFIGHTER, Clock, Galaxy, flows_in, intake, uuids

RESOLVER = "10.0.0.53"
ASKING = Leg(
    SlotRef("egress:2222:udp:53", Direction.EGRESS, 2222), TIEFIGHTER, 45678, RESOLVER, 53, transport=Protocol.UDP
)
QUERY = DnsRecord(ASKING, "example.com.", ("A",))
ANSWER = DnsAnswer(0, ("1.2.3.4", "5.6.7.8"), ("a.example.",), 30, ("CNAME", "A"))
PRODUCING = Leg(SlotRef("ingress:4711:tcp:9092", Direction.INGRESS, 4711), TIEFIGHTER, 40000, DEATHSTAR, 9092)
PRODUCE = KafkaRecord(PRODUCING, "produce", 3, 2, ("empire",))


def seen(*records: Parsed, galaxy: Galaxy | None = None) -> list[flow_pb2.Flow]:
    made = intake(galaxy)
    made.parsed(records)
    return flows_in(made.ring)


def line(flow: flow_pb2.Flow) -> str:
    return Printer().text(observer_pb2.GetFlowsResponse(flow=flow)).partition(": ")[2].rstrip("\n")


def test_a_query() -> None:
    (flow,) = seen(QUERY)
    assert flow.l7 == flow_pb2.Layer7(
        type=flow_pb2.REQUEST, dns=flow_pb2.DNS(query="example.com.", observation_source="proxy", qtypes=["A"])
    )
    assert (flow.Type, flow.event_type.type, flow.verdict) == (flow_pb2.L7, 129, flow_pb2.FORWARDED)
    assert (flow.l4.UDP.source_port, flow.l4.UDP.destination_port) == (45678, 53)
    assert flow.traffic_direction == flow_pb2.EGRESS
    assert flow.HasField("is_reply")
    assert not flow.is_reply.value
    assert line(flow) == (
        f"default/tiefighter:45678 (ID:2222) -> {RESOLVER}:53 (world) dns-request proxy FORWARDED "
        "(DNS Query example.com. A)"
    )


def test_an_answer() -> None:
    (flow,) = seen(QUERY._replace(answer=ANSWER))
    assert flow.l7.type == flow_pb2.RESPONSE
    assert flow.l7.dns == flow_pb2.DNS(
        query="example.com.",
        ips=["1.2.3.4", "5.6.7.8"],
        ttl=30,
        cnames=["a.example."],
        observation_source="proxy",
        qtypes=["A"],
        rrtypes=["CNAME", "A"],
    )
    assert flow.reply
    assert flow.is_reply.value
    assert flow.traffic_direction == flow_pb2.EGRESS
    assert line(flow) == (
        f"default/tiefighter:45678 (ID:2222) <- {RESOLVER}:53 (world) dns-response proxy FORWARDED "
        '(DNS Answer "1.2.3.4,5.6.7.8" CNAMEs: "a.example." TTL: 30 (Proxy example.com. A))'
    )


@pytest.mark.parametrize(
    ("answer", "summary"),
    [
        (DnsAnswer(3), "DNS Answer RCode: Non-Existent Domain TTL: 4294967295 (Proxy nx. A,AAAA)"),
        (DnsAnswer(5), "DNS Answer RCode: Query Refused TTL: 4294967295 (Proxy nx. A,AAAA)"),
        (DnsAnswer(99), "DNS Answer RCode: Unknown TTL: 4294967295 (Proxy nx. A,AAAA)"),
        (DnsAnswer(0, ttl=60), "DNS Answer  TTL: 60 (Proxy nx. A,AAAA)"),
        (DnsAnswer(0, ("::1",), (), 60), 'DNS Answer "::1" TTL: 60 (Proxy nx. A,AAAA)'),
        (DnsAnswer(0, (), ("a.", "b."), 60), 'DNS Answer CNAMEs: "a.,b." TTL: 60 (Proxy nx. A,AAAA)'),
    ],
)
def test_summaries_of_answers(answer: DnsAnswer, summary: str) -> None:
    assert seen(DnsRecord(ASKING, "nx.", ("A", "AAAA"), answer))[0].Summary == summary


def test_a_query_that_was_refused_and_one_that_was_no_query() -> None:
    made = intake()
    made.parsed([QUERY._replace(verdict=ParserVerdict.DROPPED), QUERY._replace(verdict=ParserVerdict.ERROR)])
    refused, broken = flows_in(made.ring)
    assert (refused.verdict, refused.drop_reason, refused.drop_reason_desc) == (flow_pb2.DROPPED, 0, 0)
    assert broken.verdict == flow_pb2.ERROR
    assert len(made.ring.denials) == 1


def test_dns_over_tcp() -> None:
    leg = ASKING._replace(transport=Protocol.TCP)
    (flow,) = seen(QUERY._replace(leg=leg))
    assert flow.l4.TCP.destination_port == 53
    assert not flow.l4.TCP.HasField("flags")


def test_a_kafka_request_is_a_flow_for_each_topic() -> None:
    flows = seen(PRODUCE._replace(topics=("empire", "deathstar-plans")), PRODUCE)
    assert [flow.l7.kafka.topic for flow in flows] == ["empire", "deathstar-plans", "empire"]
    times = [(flow.time.seconds, flow.time.nanos) for flow in flows]
    assert times == sorted(set(times))
    assert len({flow.uuid for flow in flows}) == 3
    assert flows[0].l7 == flow_pb2.Layer7(
        type=flow_pb2.REQUEST,
        kafka=flow_pb2.Kafka(api_version=3, api_key="produce", correlation_id=2, topic="empire"),
    )
    assert flows[0].traffic_direction == flow_pb2.INGRESS
    assert line(flows[0]) == (
        "default/tiefighter:40000 (ID:2222) -> default/deathstar-1:9092 (ID:4711) kafka-request FORWARDED "
        "(Kafka request produce correlation id 2 topic 'empire')"
    )


def test_a_kafka_denial_hides_its_error_and_a_response_tells_it() -> None:
    refused, answered = seen(
        PRODUCE._replace(verdict=ParserVerdict.DROPPED, error_code=29),
        PRODUCE._replace(is_response=True, topics=(), error_code=29),
    )
    assert (refused.verdict, refused.l7.kafka.error_code) == (flow_pb2.DROPPED, 0)
    assert (answered.l7.type, answered.l7.kafka.error_code, answered.verdict) == (2, 29, flow_pb2.FORWARDED)
    assert line(answered) == (
        "default/tiefighter:40000 (ID:2222) <- default/deathstar-1:9092 (ID:4711) kafka-response FORWARDED "
        "(Kafka response produce correlation id 2 topic '' return code 29)"
    )


def test_what_could_not_be_parsed() -> None:
    (flow,) = seen(KafkaRecord(PRODUCING, "", verdict=ParserVerdict.DROPPED))
    assert (flow.l7.kafka.api_key, flow.l7.kafka.topic) == ("", "")


def test_denials_of_all_topics_outlive_a_flood_that_nobody_read() -> None:
    made = intake(capacity=7, reading=False)
    made.parsed([PRODUCE._replace(topics=("a", "b"), verdict=ParserVerdict.DROPPED)])
    made.parsed([QUERY] * 20)
    made.build()
    denials = [event.flow().l7.kafka.topic for _, event in made.ring.denials.between(0, made.ring.end)]
    assert denials == ["a", "b"]


def test_the_api_key_is_hidden_where_that_is_wanted() -> None:
    numbers = uuids()
    redaction = Redaction(kafka_api_key=True)
    made = Intake(Ring(7), Galaxy, version="0", now_ns=Clock(), new_uuid=lambda: next(numbers), redaction=redaction)
    made.reading = True
    made.parsed([PRODUCE])
    (flow,) = flows_in(made.ring)
    assert flow.l7.kafka.api_key == REDACTED
    assert flow.Summary == f"Kafka request {REDACTED} correlation id 2 topic 'empire'"


def test_names_that_were_asked_for_and_labels_of_the_node() -> None:
    """The tiefighter had asked for the name of the deathstar, and who else had is of no interest."""
    galaxy = Galaxy(
        names={(DEATHSTAR, TIEFIGHTER): ("deathstar.example.org",), (DEATHSTAR, RESOLVER): ("other.example.org",)},
        node_labels=("zone=outer-rim",),
    )
    request, response = seen(PRODUCE, PRODUCE._replace(is_response=True), galaxy=galaxy)
    assert (list(request.source_names), list(request.destination_names)) == ([], ["deathstar.example.org"])
    assert (list(response.source_names), list(response.destination_names)) == (["deathstar.example.org"], [])
    assert list(request.node_labels) == ["zone=outer-rim"]


@pytest.mark.parametrize(
    ("fields", "passing"),
    [
        ({"protocol": ["dns"]}, "01"),
        ({"protocol": ["kafka"]}, "2"),
        ({"protocol": ["udp"]}, "01"),
        ({"dns_query": [r"^example\.com\.$"]}, "01"),
        ({"dns_query": ["exhaust"]}, ""),
        ({"reply": [True]}, "1"),
        ({"event_type": [{"type": 129}]}, "012"),
        ({"http_method": ["GET"]}, ""),
        ({"experimental": {"cel_expression": ["_flow.l7.dns.ips.exists(ip, ip == '1.2.3.4')"]}}, "1"),
    ],
)
def test_filters(fields: dict[str, Any], passing: str) -> None:
    wanted = compile_filter(flow_pb2.FlowFilter(**fields))
    flows = seen(QUERY, QUERY._replace(answer=ANSWER), PRODUCE)
    assert "".join(str(number) for number, flow in enumerate(flows) if wanted(flow)) == passing


RULE = PolicyRef("names", "default", "CiliumNetworkPolicy", logs=("ask away",))


def test_the_reason_is_told_of_the_request_and_of_its_answer() -> None:
    galaxy = Galaxy(why=Reason((RULE,), ("allowed by a rule",)))
    for flow in seen(QUERY, QUERY._replace(answer=ANSWER), galaxy=galaxy):
        assert list(flow.policy_log) == ["ask away", "allowed by a rule"]
        assert [policy.name for policy in flow.egress_allowed_by] == ["names"]
    (produced,) = seen(PRODUCE, galaxy=galaxy)
    assert [policy.name for policy in produced.ingress_allowed_by] == ["names"]


@pytest.mark.parametrize("verdict", [ParserVerdict.DROPPED, ParserVerdict.ERROR])
def test_of_a_denial_nobody_is_named_as_who_allowed_it_and_observe_says_why(verdict: ParserVerdict) -> None:
    galaxy = Galaxy(why=Reason((), ("none of 1 DNS rule allows it", "nearest rule1: name is a, not b")))
    (flow,) = seen(QUERY._replace(verdict=verdict), galaxy=galaxy)
    assert not flow.egress_allowed_by
    assert not flow.egress_denied_by
    assert Printer(Style(why=True)).text(observer_pb2.GetFlowsResponse(flow=flow)).splitlines()[1:] == [
        "    none of 1 DNS rule allows it",
        "    nearest rule1: name is a, not b",
    ]
