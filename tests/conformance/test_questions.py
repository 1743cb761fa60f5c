"""Questions to nameservers: how they are written, and which replies and flows are right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.dns_expectation import Ends, expected_flows, flow_problems, own_flows, reply_problems
from conformance.errors import SuiteError
from conformance.flow_view import SeenFlow
from conformance.parse_question import parse_questions
from conformance.question import Client, Question, Resolution
from conformance.resolvers import Reply
from conformance.target import Target

ENDS = Ends("default/bot", "10.244.0.11", "kube-system/dns", ("2001:db8:113::7", "203.0.113.7"))
ASKED = Question(
    "bot", Target("pod", "dns", 53), "api.github.com", Resolution.RESOLVED, addresses=("github",), by="fqdn"
)
QUERY = SeenFlow(
    verdict="FORWARDED",
    event="l7",
    l7="REQUEST",
    direction="EGRESS",
    reply="false",
    source="default/bot",
    destination="kube-system/dns",
    source_ip="10.244.0.11",
    destination_ip="10.244.0.12",
    allowed_by="CiliumNetworkPolicy default/fqdn",
    l4="UDP",
    destination_port="53",
    query="api.github.com.",
    qtypes="A",
    summary="DNS Query api.github.com. A",
)
ANSWER = replace(
    QUERY,
    l7="RESPONSE",
    reply="true",
    source=QUERY.destination,
    destination=QUERY.source,
    source_ip=QUERY.destination_ip,
    destination_ip=QUERY.source_ip,
    ips="203.0.113.7",
    rcode="0",
    summary='DNS Answer "203.0.113.7" TTL: 30 (Proxy api.github.com. A)',
)


def read(**fields: Any) -> list[Question]:
    written = {"from": "bot", "to": "pod/dns", "name": "x.io", "expect": "resolved"}
    return list(parse_questions({**written, **fields}, "steps[0]"))


def test_lists_stand_for_every_combination_and_the_port_is_that_of_dns() -> None:
    found = read(ip=[4, 6], type=["A", "AAAA"], client=["dig", "cares"])
    assert len(found) == 8
    assert {question.server.port for question in found} == {53}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"client": "nslookup"}, "client"),
        ({"client": "glibc", "over": "tcp"}, "only dig"),
        ({"type": "AXFR"}, "type"),
        ({"shape": "round"}, "shape: is not a known field"),
        ({"to": "dns"}, "is none of pod/NAME"),
    ],
)
def test_what_is_not_known_is_refused_with_its_path(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SuiteError, match=complaint):
        read(**fields)


def test_a_name_that_is_resolved_gives_its_addresses_of_the_type_that_was_asked_for() -> None:
    assert reply_problems(ASKED, ENDS, Reply("NOERROR", ("203.0.113.7",), arrived_by="udp")) == []
    assert reply_problems(ASKED, ENDS, Reply("NOERROR", ("198.51.100.1",), arrived_by="udp"))
    assert reply_problems(ASKED, ENDS, Reply("NOERROR", ("203.0.113.7",), arrived_by="tcp"))
    assert reply_problems(ASKED, ENDS, Reply("REFUSED"))


def test_refused_is_what_dig_says_and_nothing_found_what_getaddrinfo_says() -> None:
    refused = replace(ASKED, expect=Resolution.REFUSED)
    assert reply_problems(refused, ENDS, Reply("REFUSED")) == []
    assert reply_problems(refused, ENDS, Reply("NXDOMAIN"))
    by_glibc = replace(refused, client=Client.GLIBC)
    assert reply_problems(by_glibc, ENDS, Reply("FAILED")) == []
    assert reply_problems(by_glibc, ENDS, Reply("NOERROR", ("203.0.113.7",)))


def test_curl_has_fetched_from_an_address_of_the_name() -> None:
    fetching = replace(ASKED, client=Client.CURL)
    assert reply_problems(fetching, ENDS, Reply("NOERROR", fetched="200 203.0.113.7")) == []
    assert reply_problems(fetching, ENDS, Reply("NOERROR", fetched="000 "))
    assert reply_problems(fetching, ENDS, Reply("NOERROR", fetched="200 198.51.100.1"))


def test_a_query_and_its_answer_are_two_flows() -> None:
    assert flow_problems(ASKED, ENDS, [QUERY, ANSWER]) == []
    assert len(flow_problems(ASKED, ENDS, [QUERY])) == 1
    assert len(flow_problems(ASKED, ENDS, [replace(QUERY, allowed_by=""), ANSWER])) == 1
    dropped = replace(QUERY, event="drop", verdict="DROPPED", summary="UDP")
    assert any("dropped" in problem for problem in flow_problems(ASKED, ENDS, [QUERY, ANSWER, dropped]))


def test_a_refused_query_is_one_dropped_flow() -> None:
    refused = replace(ASKED, expect=Resolution.REFUSED)
    assert [flow["verdict"] for flow in expected_flows(refused, ENDS)] == ["DROPPED"]
    assert flow_problems(refused, ENDS, [replace(QUERY, verdict="DROPPED", allowed_by="")]) == []


def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    retried = replace(ASKED, arrives_by="tcp")
    assert [flow["l4"] for flow in expected_flows(retried, ENDS)] == ["UDP", "UDP", "TCP", "TCP"]


def test_what_no_proxy_sees_has_no_flows_of_layer_seven() -> None:
    direct = replace(ASKED, expect=Resolution.DIRECT)
    assert expected_flows(direct, ENDS) == []
    assert flow_problems(direct, ENDS, [QUERY])


def test_own_flows_are_those_of_the_name_and_the_type() -> None:
    other = replace(QUERY, query="swapi.io.")
    assert own_flows(ASKED, ENDS, [QUERY, other, replace(QUERY, qtypes="AAAA"), ANSWER]) == [QUERY, ANSWER]
