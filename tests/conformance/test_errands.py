"""Errands to Kafka brokers: how they are written, and which outcomes and flows are right."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from typing import Any

import pytest
from flow import flow_pb2

from conformance import by_hand
from conformance.errand import NEEDED, Courier, Ending, Errand, Job
from conformance.errand_expectation import Road, expected_flows, flow_problems, outcome_problems, own_flows
from conformance.errors import SuiteError
from conformance.expectation import Reaction
from conformance.flow_view import SeenFlow, view
from conformance.kafka_client import Order, Outcome
from conformance.live_courier import read as read_live
from conformance.parse_errand import parse_errands
from conformance.target import Target

ANNOUNCE, PLANS, DENIED = "empire-announce", "deathstar-plans", "TOPIC_AUTHORIZATION_FAILED"
ROAD = Road("default/empire-hq", "10.244.0.12", "default/kafka-broker", 9092)
SENT = Errand("hq", Target("pod", "kafka", 9092), Job.PRODUCE, Ending.SERVED, (ANNOUNCE,), by="guide")
DONE = Outcome(values={ANNOUNCE: 1}, ports=(40001,), begun=1.0, ended=2.0)
METADATA = SeenFlow(
    verdict="FORWARDED",
    event="l7",
    l7="REQUEST",
    direction="INGRESS",
    reply="false",
    source=ROAD.source,
    destination=ROAD.broker,
    source_ip=ROAD.source_ip,
    destination_ip="10.244.0.11",
    allowed_by="CiliumNetworkPolicy default/guide",
    l4="TCP",
    source_port="40001",
    destination_port="9092",
    api_key="metadata",
    topic=ANNOUNCE,
    summary=f"Kafka request metadata correlation id 2 topic '{ANNOUNCE}'",
)


def request(key: str, topic: str, **fields: str) -> SeenFlow:
    summary = f"Kafka request {key} correlation id 7 topic '{topic}'"
    return replace(METADATA, api_key=key, topic=topic, summary=summary, **fields)


def refusal(key: str, topic: str) -> SeenFlow:
    return request(key, topic, verdict="DROPPED", allowed_by="")


def read(**fields: Any) -> list[Errand]:
    written = {"from": "hq", "to": "pod/kafka", "job": "produce", "topics": ANNOUNCE, "expect": "served"}
    return list(parse_errands({**written, **fields}, "steps[0]"))


def test_lists_stand_for_every_combination_and_the_port_is_that_of_kafka() -> None:
    found = read(ip=[4, 6], job=["produce", "transact"], courier=["librdkafka", "aiokafka"])
    assert len(found) == 8
    assert {errand.broker.port for errand in found} == {9092}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"courier": "kcat"}, "courier"),
        ({"courier": "aiokafka", "job": "consume-848"}, "only librdkafka can"),
        ({"courier": "by-hand"}, "are done by hand"),
        ({"refused": PLANS}, "not among topics"),
        ({"topics": []}, "topics: are missing"),
        ({"at": "sideways"}, "must name ingress or egress"),
        ({"job": "destroy"}, "job"),
        ({"shape": "round"}, "shape: is not a known field"),
    ],
)
def test_what_is_not_known_is_refused_with_its_path(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SuiteError, match=complaint):
        read(**fields)


def test_a_served_errand_has_done_something_with_each_topic() -> None:
    assert outcome_problems(SENT, DONE) == []
    assert outcome_problems(SENT, replace(DONE, values={}))
    assert outcome_problems(SENT, replace(DONE, errors={ANNOUNCE: "REQUEST_TIMED_OUT"}))


def test_of_topics_in_part_the_refused_ones_are_told_so() -> None:
    both = replace(SENT, topics=(ANNOUNCE, PLANS), refused=(PLANS,))
    assert outcome_problems(both, replace(DONE, errors={PLANS: DENIED})) == []
    assert outcome_problems(both, DONE)
    assert outcome_problems(both, replace(DONE, errors={PLANS: DENIED, ANNOUNCE: DENIED}))


def test_a_denied_errand_is_told_the_error_and_nothing_else() -> None:
    denied = replace(SENT, expect=Ending.DENIED)
    told = replace(DONE, values={}, errors={ANNOUNCE: DENIED})
    assert outcome_problems(denied, told) == []
    assert outcome_problems(denied, replace(told, errors={ANNOUNCE: "_MSG_TIMED_OUT"}))
    assert outcome_problems(denied, replace(told, values={ANNOUNCE: 1}))


def test_a_client_that_crashes_or_does_not_end_is_never_right() -> None:
    for expect in Ending:
        errand = replace(SENT, expect=expect)
        assert outcome_problems(errand, Outcome({"": "CRASHED"}, ended=1.0))
        assert outcome_problems(errand, Outcome(note="the client did not end"))


def test_a_list_has_what_is_allowed_and_hides_the_rest() -> None:
    listing = Errand("hq", SENT.broker, Job.LIST, Ending.SERVED, sees=(ANNOUNCE,), hidden=(PLANS,))
    assert outcome_problems(listing, Outcome(seen=(ANNOUNCE,), ended=1.0)) == []
    assert outcome_problems(listing, Outcome(seen=(ANNOUNCE, PLANS), ended=1.0))
    assert outcome_problems(listing, Outcome(ended=1.0))


def test_each_api_that_an_errand_takes_is_seen_for_each_topic() -> None:
    flows = [METADATA, request("produce", ANNOUNCE)]
    assert flow_problems(SENT, ROAD, flows) == []
    assert len(flow_problems(SENT, ROAD, [METADATA])) == 1
    assert flow_problems(SENT, ROAD, [METADATA, replace(flows[1], allowed_by="CiliumNetworkPolicy default/other")])
    assert any("refused" in problem for problem in flow_problems(SENT, ROAD, [*flows, refusal("produce", ANNOUNCE)]))
    dropped = replace(METADATA, event="drop", l7="", verdict="DROPPED")
    assert any("dropped" in problem for problem in flow_problems(SENT, ROAD, [*flows, dropped]))


def test_requests_that_name_no_topic_are_seen_once() -> None:
    both = replace(SENT, job=Job.TRANSACT, topics=(ANNOUNCE, PLANS))
    seen = [(flow["api_key"], flow["topic"]) for flow in expected_flows(both, ROAD)]
    assert seen.count(("endtxn", "")) == 1
    assert [topic for key, topic in seen if key == "produce"] == [ANNOUNCE, PLANS]


def test_a_refusal_is_seen_where_it_is_said_and_nothing_goes_through_there() -> None:
    denied = replace(SENT, expect=Ending.DENIED, at_key="produce")
    assert flow_problems(denied, ROAD, [METADATA, refusal("produce", ANNOUNCE)]) == []
    assert flow_problems(denied, ROAD, [METADATA])
    leak = [METADATA, refusal("produce", ANNOUNCE), request("produce", ANNOUNCE)]
    assert any("went through" in problem for problem in flow_problems(denied, ROAD, leak))


def test_what_clients_do_without_may_be_refused() -> None:
    flows = [METADATA, request("produce", ANNOUNCE), refusal("gettelemetrysubscriptions", "")]
    assert flow_problems(SENT, ROAD, flows) == []


@pytest.mark.parametrize(("expect", "reason"), [(Ending.DROPPED, "POLICY_DENIED"), (Ending.FORBIDDEN, "POLICY_DENY")])
def test_who_is_not_let_in_is_a_drop(expect: Ending, reason: str) -> None:
    shut = replace(SENT, expect=expect)
    drop = replace(METADATA, event="drop", l7="", verdict="DROPPED", drop_reason=reason, api_key="", topic="")
    assert flow_problems(shut, ROAD, [drop]) == []
    assert flow_problems(shut, ROAD, [drop, METADATA])
    assert outcome_problems(shut, Outcome({"": "_TRANSPORT"}, ended=1.0)) == []
    assert outcome_problems(shut, DONE)


def test_at_both_doors_the_last_one_refuses() -> None:
    denied = replace(SENT, expect=Ending.DENIED, at=("egress", "ingress"), at_key="produce")
    assert [(flow["direction"], flow["verdict"]) for flow in expected_flows(denied, ROAD)] == [("INGRESS", "DROPPED")]
    served = replace(denied, expect=Ending.SERVED)
    directions = [flow["direction"] for flow in expected_flows(served, ROAD)]
    assert directions == ["EGRESS"] * len(NEEDED[Job.PRODUCE]) + ["INGRESS"] * len(NEEDED[Job.PRODUCE])


def test_own_flows_are_those_of_the_ports_that_the_client_used() -> None:
    other = replace(METADATA, source_port="40002")
    assert own_flows(SENT, ROAD, DONE, [METADATA, other]) == [METADATA]
    doors = replace(SENT, at=("egress", "ingress"))
    assert own_flows(doors, ROAD, DONE, [METADATA, other]) == [METADATA, other]


def test_a_kafka_flow_is_flattened() -> None:
    flow = flow_pb2.Flow(verdict=flow_pb2.DROPPED, Summary="Kafka request fetch correlation id 1 topic 'x'")
    flow.l7.type = flow_pb2.REQUEST
    flow.l7.kafka.api_key, flow.l7.kafka.topic = "fetch", "x"
    seen = view(flow)
    assert (seen.api_key, seen.topic) == ("fetch", "x")
    assert "kafka-request" in str(seen)


def test_orders_and_outcomes_survive_their_way() -> None:
    order = Order("librdkafka", "produce", (ANNOUNCE,), ("127.0.0.1", 4000), ("fd00::1", 9092), group="g", repeats=True)
    assert Order.of(order.text) == order
    assert Outcome.of(DONE.text) == DONE


def test_a_live_client_speaks_in_kafkas_numbers() -> None:
    assert read_live(DONE.text).status == 0
    assert read_live(replace(DONE, errors={ANNOUNCE: DENIED}).text).status == 29
    assert read_live(replace(DONE, errors={ANNOUNCE: "_TRANSPORT"}).text).reaction is Reaction.FAILED


def test_a_topic_is_asked_for_by_hand() -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        port = broker.getsockname()[1]
        order = Order(Courier.BY_HAND, Job.CREATE, ("hoth",), ("127.0.0.1", port), ("127.0.0.1", port))
        asked = by_hand.request(order)
    assert struct.unpack_from(">ihhi", asked) == (len(asked) - 4, 19, 0, 66)
    assert b"\x00\x04hoth" in asked
    answer = struct.pack(">iii", 16, 66, 1) + b"\x00\x04hoth" + struct.pack(">h", 29)
    assert by_hand.read(answer).errors == {"hoth": DENIED}
    assert by_hand.read(answer[:-2] + b"\0\0").values == {"hoth": 1}
