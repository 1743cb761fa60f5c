"""What an outcome means: the right answers and flows pass, every other is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.expectation import (
    Answer,
    Parties,
    Reaction,
    answer_problems,
    expected_flows,
    flow_problems,
    own_flows,
)
from conformance.flow_view import SeenFlow, missing
from conformance.scenario import Outcome, Probe, Request
from conformance.target import Target

PARTIES = Parties("default/tiefighter", "10.0.0.1", "default/deathstar", "10.0.0.2", "10.0.0.2", 20001)
LAND = Probe("tiefighter", Target("pod", "deathstar"), Outcome.FORWARDED, Request("POST", "/v1/request-landing"))
URL = "http://10.0.0.2/v1/request-landing"
ASKED = SeenFlow(
    verdict="FORWARDED", event="l7", l7="REQUEST", direction="INGRESS", reply="false", source="default/tiefighter",
    destination="default/deathstar", source_ip="10.0.0.1", destination_ip="10.0.0.2", l4="TCP", source_port="20001",
    destination_port="80", method="POST", url=URL, protocol="HTTP/1.1", summary=f"HTTP/1.1 POST {URL}",
)  # fmt: skip
JUDGED = SeenFlow(
    verdict="FORWARDED", event="policy-verdict", direction="INGRESS", source="default/tiefighter",
    destination="default/deathstar", source_ip="10.0.0.1", destination_ip="10.0.0.2", l4="TCP", source_port="20001",
    destination_port="80", allowed_by="CiliumNetworkPolicy default/rule1,NetworkPolicy default/rule2",
)  # fmt: skip
ANSWERED = SeenFlow(
    verdict="FORWARDED", event="l7", l7="RESPONSE", direction="INGRESS", reply="true", source="default/deathstar",
    destination="default/tiefighter", source_ip="10.0.0.2", destination_ip="10.0.0.1", l4="TCP", source_port="80",
    destination_port="20001", method="POST", url=URL, code="200", protocol="HTTP/1.1",
    summary=f"HTTP/1.1 200 3ms (POST {URL})",
)  # fmt: skip
DROP = SeenFlow(
    verdict="DROPPED", event="drop", direction="INGRESS", source="default/tiefighter", destination="default/deathstar",
    source_ip="10.0.0.1", destination_ip="10.0.0.2", l4="TCP", source_port="20001", destination_port="80",
    drop_reason="POLICY_DENIED", summary="TCP Flags: SYN",
)  # fmt: skip
LANDED = Answer(
    Reaction.ANSWERED, 200, "Ship landed\n", (("x-received", "POST /v1/request-landing"), ("x-client", "10.0.0.1"))
)
REFUSAL = Answer(Reaction.ANSWERED, 403, "Access denied\r\n")


def expecting(outcome: Outcome) -> Probe:
    return replace(LAND, expect=outcome)


def test_a_forwarded_request_is_answered_by_the_server_and_told_by_two_flows() -> None:
    assert answer_problems(LAND, PARTIES, LANDED) == []
    assert flow_problems(LAND, PARTIES, [ASKED, ANSWERED]) == []


def test_a_denied_request_is_a_403_of_the_proxy_and_a_dropped_request_flow() -> None:
    refused = replace(ANSWERED, code="403", summary=f"HTTP/1.1 403 0ms (POST {URL})")
    denied = expecting(Outcome.DENIED)
    assert answer_problems(denied, PARTIES, REFUSAL) == []
    assert flow_problems(denied, PARTIES, [replace(ASKED, verdict="DROPPED"), refused]) == []
    assert flow_problems(denied, PARTIES, [ASKED, refused])


def test_a_dropped_packet_is_a_timeout_and_a_drop_and_a_verdict() -> None:
    dropped, verdict = expecting(Outcome.DROPPED), replace(JUDGED, verdict="DROPPED", allowed_by="")
    assert answer_problems(dropped, PARTIES, Answer(Reaction.TIMEOUT)) == []
    assert flow_problems(dropped, PARTIES, [verdict, DROP]) == []
    assert flow_problems(dropped, PARTIES, [DROP]) != []
    assert flow_problems(dropped, PARTIES, [verdict]) != []
    assert flow_problems(dropped, PARTIES, [verdict, DROP, ASKED]) != []


def test_a_forbidden_packet_names_the_deny_rule() -> None:
    forbidden = replace(expecting(Outcome.FORBIDDEN), by="no-ships")
    drop = replace(DROP, drop_reason="POLICY_DENY")
    verdict = replace(JUDGED, verdict="DROPPED", allowed_by="", denied_by="CiliumNetworkPolicy default/no-ships")
    assert answer_problems(forbidden, PARTIES, Answer(Reaction.TIMEOUT)) == []
    assert flow_problems(forbidden, PARTIES, [verdict, drop]) == []
    assert flow_problems(forbidden, PARTIES, [verdict, DROP]) != []
    assert flow_problems(forbidden, PARTIES, [replace(verdict, denied_by="CiliumNetworkPolicy default/x"), drop]) != []


def test_what_is_allowed_is_told_by_a_verdict_in_its_name() -> None:
    allowed = expecting(Outcome.ALLOWED)
    assert answer_problems(allowed, PARTIES, LANDED) == []
    assert flow_problems(allowed, PARTIES, []) != []
    for name in ("", "rule1", "rule2"):
        assert flow_problems(replace(allowed, by=name), PARTIES, [JUDGED]) == []
    assert flow_problems(replace(allowed, by="rule"), PARTIES, [JUDGED]) != []


def test_what_is_open_is_judged_by_nobody() -> None:
    opened = expecting(Outcome.OPEN)
    assert answer_problems(opened, PARTIES, LANDED) == []
    assert flow_problems(opened, PARTIES, []) == []
    assert flow_problems(opened, PARTIES, [JUDGED]) != []


def test_a_grpc_call_has_a_status_of_its_own() -> None:
    call = replace(LAND, request=Request("POST", "/empire.DeathStar/RequestLanding", http="grpc"))
    receipt = (("x-received", "POST /empire.DeathStar/RequestLanding"), ("x-client", "10.0.0.1"))
    assert answer_problems(call, PARTIES, Answer(Reaction.ANSWERED, 0, "", receipt)) == []
    denied = replace(call, expect=Outcome.DENIED)
    assert answer_problems(denied, PARTIES, Answer(Reaction.ANSWERED, 7, "Access denied\r\n")) == []
    assert answer_problems(denied, PARTIES, Answer(Reaction.ANSWERED, 12, "")) != []


WRONG_ANSWERS = [
    (Outcome.FORWARDED, Answer(Reaction.TIMEOUT, note="no luck"), "expected forwarded, got timeout (no luck)"),
    (Outcome.FORWARDED, replace(LANDED, status=503), "expected status 200, got 503"),
    (Outcome.FORWARDED, replace(LANDED, headers=LANDED.headers[:1]), "saw the client as '', not as 10.0.0.1"),
    (Outcome.FORWARDED, replace(LANDED, headers=(("x-received", "POST /x"),)), "received 'POST /x', not what was"),
    (Outcome.DENIED, replace(REFUSAL, body="RBAC: access denied"), "expected body 'Access denied\\r\\n'"),
    (Outcome.DENIED, replace(REFUSAL, headers=LANDED.headers), "should have received nothing"),
    (Outcome.DROPPED, LANDED, "expected dropped, got 200"),
    (Outcome.REFUSED, LANDED, "expected refused, got 200"),
    (Outcome.REDIRECTED, LANDED, "expected status 307"),
    (Outcome.DIRECT, Answer(Reaction.RESET), "expected direct, got reset"),
]


@pytest.mark.parametrize(("outcome", "answer", "complaint"), WRONG_ANSWERS, ids=[c for _, _, c in WRONG_ANSWERS])
def test_a_wrong_answer_is_told(outcome: Outcome, answer: Answer, complaint: str) -> None:
    assert any(complaint in problem for problem in answer_problems(expecting(outcome), PARTIES, answer))


WRONG_FLOWS = [
    (Outcome.FORWARDED, [ASKED], "no flow "),
    (Outcome.FORWARDED, [ANSWERED, ASKED], "a response is reported before its request"),
    (Outcome.FORWARDED, [ASKED, ASKED, ANSWERED], "3 HTTP flows instead of 2"),
    (Outcome.FORWARDED, [ASKED, ANSWERED, DROP], "a packet was dropped"),
    (Outcome.DIRECT, [ASKED, ANSWERED], "2 HTTP flows instead of 0"),
    (Outcome.ANSWERED, [DROP], "a packet was dropped"),
]


@pytest.mark.parametrize(("outcome", "flows", "complaint"), WRONG_FLOWS, ids=[c for _, _, c in WRONG_FLOWS])
def test_wrong_flows_are_told(outcome: Outcome, flows: list[SeenFlow], complaint: str) -> None:
    assert any(complaint in problem for problem in flow_problems(expecting(outcome), PARTIES, flows))


@pytest.mark.parametrize("name", [name for name, value in expected_flows(LAND, PARTIES)[0].items() if value])
def test_every_field_of_a_request_flow_counts(name: str) -> None:
    assert missing(expected_flows(LAND, PARTIES), [replace(ASKED, **{name: "else"}), ANSWERED])


def test_two_proxies_on_the_way_tell_twice_and_only_the_last_denies() -> None:
    both = replace(expecting(Outcome.DENIED), at=("egress", "ingress"))
    patterns = expected_flows(both, PARTIES)
    verdicts = [(p["direction"], p["l7"], p["verdict"]) for p in patterns]
    assert verdicts == [
        ("EGRESS", "REQUEST", "FORWARDED"),
        ("EGRESS", "RESPONSE", "FORWARDED"),
        ("INGRESS", "REQUEST", "DROPPED"),
        ("INGRESS", "RESPONSE", "FORWARDED"),
    ]
    assert {p["code"] for p in patterns if p["l7"] == "RESPONSE"} == {"403"}


def test_the_url_is_the_path_as_judged() -> None:
    tricky = replace(LAND, request=Request("POST", "//v1/x/../request-landing"), judged="/v1/request-landing")
    assert flow_problems(tricky, PARTIES, [ASKED, ANSWERED]) == []
    assert answer_problems(tricky, PARTIES, LANDED) == []


def test_flows_are_told_apart_by_the_clients_port() -> None:
    other = replace(ASKED, source_port="20002")
    assert own_flows(LAND, PARTIES, [other, ASKED, ANSWERED, DROP]) == [ASKED, ANSWERED, DROP]
    ping = replace(LAND, protocol="icmp", request=None)
    echo = SeenFlow(source_ip="10.0.0.1", destination_ip="10.0.0.2", summary="ICMPv4 EchoRequest")
    reply = SeenFlow(source_ip="10.0.0.2", destination_ip="10.0.0.1", summary="ICMPv4 EchoReply", reply="true")
    clock = replace(echo, summary="ICMPv4 TimestampRequest")
    theirs = replace(echo, source_ip="10.0.0.2", destination_ip="10.0.0.1")
    assert own_flows(ping, PARTIES, [ASKED, echo, clock, reply, theirs]) == [echo, reply]
    assert own_flows(replace(ping, icmp_type=13), PARTIES, [echo, clock, reply]) == [clock]
