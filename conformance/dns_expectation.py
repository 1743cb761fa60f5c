"""What a resolution means: which answer the client gets, which flows tell of it, and which must not. Pure.

The flows follow facts of Hubble: a query is a REQUEST, what the server says a RESPONSE; a query that is refused is one
dropped REQUEST, and the refusal is no flow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from conformance.flow_view import Pattern, SeenFlow, missing, spell
from conformance.question import Client, Question, Resolution
from conformance.resolvers import NO_ANSWER, Reply

RCODES = {"NOERROR": "0", "FORMERR": "1", "SERVFAIL": "2", "NXDOMAIN": "3", "NOTIMP": "4", "REFUSED": "5"}
NAMELESS = ("HTTPS", "ANY")  # types that flows call Unknown, as Hubble's do
SPEAKS_RCODES = (Client.DIG, Client.CARES)


@dataclass(frozen=True, slots=True)
class Ends:
    """Who asks whom, as flows name them (`server` is a pattern), and the addresses that are meant by `addresses`."""

    source: str
    source_ip: str
    server: str
    addresses: tuple[str, ...]


def reply_problems(question: Question, ends: Ends, reply: Reply) -> list[str]:
    """What is wrong with the reply; empty if it is right."""
    wanted = _rcode(question)
    spoken = question.client in SPEAKS_RCODES
    if not spoken:
        wanted = "NOERROR" if wanted == "NOERROR" else "FAILED"
    if reply.rcode != wanted and not (wanted == NO_ANSWER and not spoken):
        return [f"expected {wanted}, got {reply}"]
    if wanted != "NOERROR":
        return []
    problems = []
    if question.client is Client.CURL:
        status, _, address = reply.fetched.partition(" ")
        if status != "200" or address not in ends.addresses:
            problems.append(f"expected 200 from {' or '.join(ends.addresses)}, got {reply}")
    elif question.addresses and reply.addresses != _of_types(question, ends.addresses):
        problems.append(f"expected {','.join(_of_types(question, ends.addresses))}, got {reply}")
    problems += [f"no record has {text!r}: {reply.records}" for text in question.has if text not in str(reply.records)]
    if reply.arrived_by and reply.arrived_by != question.arrives_by:
        problems.append(f"the answer came by {reply.arrived_by}, not by {question.arrives_by}")
    return problems


def _rcode(question: Question) -> str:
    match question.expect:
        case Resolution.REFUSED:
            return "REFUSED" if question.rcode == "NOERROR" else question.rcode
        case Resolution.WITHHELD:
            return "SERVFAIL"
        case Resolution.DROPPED:
            return NO_ANSWER
        case _:
            return question.rcode


def _of_types(question: Question, addresses: Sequence[str]) -> tuple[str, ...]:
    """Those that an answer to these types has."""
    families = {"A": ".", "AAAA": ":"}
    marks = [families[qtype] for qtype in question.qtypes if qtype in families]
    return tuple(sorted(address for address in addresses if any(mark in address for mark in marks)))


def expected_flows(question: Question, ends: Ends) -> list[Pattern]:
    """The flows that must be seen."""
    if question.unwatched:
        return []
    implied: list[Pattern] = []
    transports = dict.fromkeys((question.over, question.arrives_by))
    for transport in transports:
        for qtype in question.qtypes:
            implied += _exchange(question, ends, (transport, qtype))
    return [*implied, *question.flows]


def _exchange(question: Question, ends: Ends, asked: tuple[str, str]) -> list[Pattern]:
    transport, qtype = asked
    named = "Unknown" if qtype in NAMELESS else qtype
    l4 = transport.upper()
    there = {"source": ends.source, "destination": ends.server, "direction": "EGRESS", "l4": l4}
    if question.expect is Resolution.DIRECT:
        return []
    if question.expect is Resolution.DROPPED:
        return [{**there, "event": "drop", "verdict": "DROPPED", "drop_reason": "POLICY_DENIED"}]
    back = {"source": ends.server, "destination": ends.source, "direction": "EGRESS", "l4": l4}
    common = {"event": "l7", "query": question.asked, "qtypes": named}
    refused = question.expect is Resolution.REFUSED
    by = {"allowed_by": f"~(.*[ /])?{re.escape(question.by)}(,.*)?"} if question.by and not refused else {}
    request = {
        **common,
        **there,
        **by,
        "l7": "REQUEST",
        "reply": "false",
        "verdict": "DROPPED" if refused else "FORWARDED",
        "summary": f"DNS Query {question.asked} {named}",
    }
    if refused:
        return [request]
    response = {**common, **back, "l7": "RESPONSE", "reply": "true"}
    if question.expect is Resolution.RESOLVED:
        response |= {"verdict": "FORWARDED", "rcode": RCODES.get(question.rcode, "~.*"), "summary": "~DNS Answer .*"}
        family_ips = [a for a in ends.addresses if (":" in a) == (qtype == "AAAA")] if qtype in ("A", "AAAA") else []
        if family_ips and transport == question.arrives_by:
            response["ips"] = ",".join(sorted(family_ips))
    return [request, response]


def own_flows(question: Question, ends: Ends, flows: Sequence[SeenFlow]) -> list[SeenFlow]:
    """Those of the flows that tell of this question: by name and type; drops by who asks, and over what."""
    mine = [flow for flow in flows if ends.source_ip in (flow.source_ip, flow.destination_ip)]
    port = str(question.server.port)
    types = ["Unknown" if qtype in NAMELESS else qtype for qtype in question.qtypes]
    return [
        flow
        for flow in mine
        if (flow.query == question.asked and flow.qtypes in types)
        or (flow.event == "drop" and flow.l4 == question.over.upper() and flow.destination_port == port)
    ]


def flow_problems(question: Question, ends: Ends, flows: Sequence[SeenFlow]) -> list[str]:
    """What is wrong with the flows of the question: those that miss, and those too many."""
    if question.unwatched:
        return []
    patterns = expected_flows(question, ends)
    problems = [f"no flow {spell(pattern)}" for pattern in missing(patterns, flows)]
    if question.expect is Resolution.DIRECT:
        problems += [f"a proxy has judged it: {flow}" for flow in flows if flow.event == "l7"]
    if question.expect is not Resolution.DROPPED:
        problems += [f"a packet was dropped: {flow}" for flow in flows if flow.event == "drop"]
    return problems
