"""What an errand means: what its client is told, which flows tell of it, and which must not. Pure.

The flows follow facts of Hubble: a request is a REQUEST for each topic, one without a topic if it names none; what is
refused is dropped, and answers are no flows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from conformance.errand import NEEDED, TOPICLESS, UNASKED, Ending, Errand, Job
from conformance.expectation import DENY_REASON
from conformance.flow_view import Pattern, SeenFlow, missing, spell
from conformance.kafka_client import Outcome

BLOCKED = {Ending.DROPPED: "POLICY_DENIED", Ending.FORBIDDEN: DENY_REASON}  # and Hubble's name of the reason
JUDGED = (Ending.SERVED, Ending.DENIED, Ending.PASSED)
COUNTED = frozenset(Job) - {Job.LIST, Job.CREATE, Job.DELETE}


@dataclass(frozen=True, slots=True)
class Road:
    """Who asks whom, as flows name them (`broker` is a pattern), and the port at which the broker is met."""

    source: str
    source_ip: str
    broker: str
    port: int


def outcome_problems(errand: Errand, outcome: Outcome) -> list[str]:
    """What is wrong with what the client was told; empty if it is right."""
    if "CRASHED" in outcome.errors.values() or not outcome.ended:
        return [f"the client has not done its part: {outcome}"]
    match errand.expect:
        case Ending.DROPPED | Ending.FORBIDDEN:
            return [f"expected no answer, got {outcome}"] if outcome.values or outcome.seen else []
        case Ending.PASSED:
            told = [error for error in outcome.errors.values() if "AUTHORIZATION" in error]
            return [f"expected what the broker says, got {outcome}"] if told else []
        case Ending.DENIED:
            is_right = errand.error in outcome.errors.values() and not outcome.values and not outcome.seen
            return [] if is_right else [f"expected {errand.error}, got {outcome}"]
    problems = [f"{topic}: expected {errand.error}, got {outcome}" for topic in _not_refused(errand, outcome)]
    wrong = {topic: error for topic, error in outcome.errors.items() if topic not in errand.refused_topics}
    problems += [f"{topic or 'all of it'}: {error}" for topic, error in sorted(wrong.items())]
    if errand.job in COUNTED:
        problems += [f"{topic}: nothing came of it" for topic in errand.served_topics if topic not in outcome.values]
    problems += [f"topic {topic} is not listed" for topic in errand.sees if topic not in outcome.seen]
    problems += [f"topic {topic} is listed" for topic in errand.hidden if topic in outcome.seen]
    return problems


def _not_refused(errand: Errand, outcome: Outcome) -> list[str]:
    return [topic for topic in errand.refused_topics if outcome.errors.get(topic) != errand.error]


def expected_flows(errand: Errand, road: Road) -> list[Pattern]:
    """The flows that must be seen."""
    if errand.unwatched:
        return []
    implied: list[Pattern] = []
    if errand.expect in BLOCKED:
        common = {"source": road.source, "destination": road.broker, "direction": errand.at[-1].upper(), "l4": "TCP"}
        implied = [{**common, "event": "drop", "verdict": "DROPPED", "drop_reason": BLOCKED[errand.expect]}]
    elif errand.expect in JUDGED:
        implied = [pattern for direction in errand.at for pattern in _judged(errand, road, direction)]
    return [*implied, *errand.flows]


def _judged(errand: Errand, road: Road, direction: str) -> list[Pattern]:
    is_last = direction == errand.at[-1]
    by = {"allowed_by": f"~(.*[ /])?{re.escape(errand.by)}(,.*)?"} if errand.by and is_last else {}
    patterns: list[Pattern] = []
    if errand.expect is not Ending.DENIED:
        patterns = [
            {**_request(road, direction, key, topic), "verdict": "FORWARDED", **by}
            for key in NEEDED[errand.job]
            for topic in _named(key, errand.served_topics)
        ]
    if is_last:
        refused = _named(errand.at_key, errand.refused_topics) if errand.refused_topics else ()
        patterns += [
            {**_request(road, direction, errand.at_key, topic), "verdict": "DROPPED", "allowed_by": ""}
            for topic in refused
        ]
    return patterns


def _named(key: str, topics: Sequence[str]) -> Sequence[str]:
    return ("",) if key in TOPICLESS else topics


def _request(road: Road, direction: str, key: str, topic: str) -> dict[str, str]:
    return {
        "event": "l7",
        "l7": "REQUEST",
        "source": road.source,
        "destination": road.broker,
        "direction": direction.upper(),
        "l4": "TCP",
        "reply": "false",
        "api_key": key,
        "topic": topic,
        "summary": f"~Kafka request {key} correlation id -?[0-9]+ topic '{re.escape(topic)}'",
    }


def own_flows(errand: Errand, road: Road, outcome: Outcome, flows: Sequence[SeenFlow]) -> list[SeenFlow]:
    """Those of the flows that tell of this errand: by the ports of its connections. A second proxy sees the first one's
    instead: such errands are run alone, and every TCP flow of the client's address is theirs."""
    mine = [flow for flow in flows if road.source_ip in (flow.source_ip, flow.destination_ip) and flow.l4 == "TCP"]
    if len(errand.at) > 1 and errand.expect in JUDGED:
        return mine
    ports = set(map(str, outcome.ports))
    return [flow for flow in mine if flow.source_port in ports or flow.destination_port in ports]


def flow_problems(errand: Errand, road: Road, flows: Sequence[SeenFlow]) -> list[str]:
    """What is wrong with the flows of the errand: those that miss, and those too many."""
    if errand.unwatched:
        return []
    problems = [f"no flow {spell(pattern)}" for pattern in missing(expected_flows(errand, road), flows)]
    judged = [flow for flow in flows if flow.event == "l7"]
    if errand.expect not in JUDGED:
        problems += [f"a proxy has judged it: {flow}" for flow in judged]
    if errand.expect not in BLOCKED:
        problems += [f"a packet was dropped: {flow}" for flow in flows if flow.event == "drop"]
    refused, served = errand.refused_topics, errand.served_topics
    for flow in judged:
        is_denial = flow.verdict == "DROPPED" and flow.api_key not in UNASKED
        if is_denial and (flow.topic in served or not refused):
            problems.append(f"a request was refused: {flow}")
        if not is_denial and flow.topic in refused and flow.api_key == errand.at_key and len(errand.at) == 1:
            problems.append(f"a request went through: {flow}")
    return problems
