"""What an outcome means: which answer the client gets, which flows tell of it, and which must not. Pure.

The flows follow facts of Hubble: an HTTP exchange is two flows per proxy, REQUEST and RESPONSE, the latter with source
and destination swapped and always FORWARDED; a packet that no policy allows is a drop flow with reason POLICY_DENIED.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from conformance.flow_view import Pattern, SeenFlow, missing, spell
from conformance.scenario import GRPC, INGRESS, Outcome, Probe

DENIED_STATUS, DENIED_BODY = 403, "Access denied\r\n"
REDIRECT_STATUS = 307  # Envoy's UNESCAPE_AND_REDIRECT
GRPC_REFUSAL_STATUS = 200  # of HTTP: what is wrong with a call is in its trailers
GRPC_DENIED, GRPC_DENIED_DETAILS = 7, DENIED_BODY  # PERMISSION_DENIED
DENY_REASON = "POLICY_DENY"  # of a deny rule; POLICY_DENIED is what nobody allows
ECHO = {4: 8, 6: 128}
L4_NAME = {
    ("tcp", 4): "TCP",
    ("tcp", 6): "TCP",
    ("udp", 4): "UDP",
    ("udp", 6): "UDP",
    ("sctp", 4): "SCTP",
    ("sctp", 6): "SCTP",
    ("icmp", 4): "ICMPv4",
    ("icmp", 6): "ICMPv6",
}
L4_SUMMARY = {"tcp": "TCP Flags: SYN", "udp": "UDP", "sctp": "SCTP"}
ICMP_SUMMARY = {8: "EchoRequest", 13: "TimestampRequest", 15: "InfoRequest", 128: "EchoRequest"}


class Reaction(StrEnum):
    """How an attempt ended, as the client sees it."""

    ANSWERED = "answered"
    TIMEOUT = "timeout"
    RESET = "reset"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got. `note` is its own complaint; headers have lower-case names."""

    reaction: Reaction
    status: int = 0
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    note: str = ""

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name)

    def __str__(self) -> str:
        if self.reaction is not Reaction.ANSWERED:
            return f"{self.reaction}" + (f" ({self.note})" if self.note else "")
        return " ".join(
            part for part in (str(self.status or "answered"), repr(self.body[:60]) if self.body else "") if part
        )


@dataclass(frozen=True, slots=True)
class Parties:
    """Who a probe is between, as flows name them: client, server (a pattern), and the address that was dialled, which
    is all that the client's own door knows where that is a ClusterIP."""

    source: str
    source_ip: str
    destination: str
    dialled_ip: str
    authority: str
    client_port: int
    ports: tuple[int, int] = (80, 80)  # that is dialled, and that the server listens at

    def port_at(self, direction: str) -> str:
        """The server's port as the flows of this direction name it (a pattern)."""
        dialled, served = self.ports
        return str(served) if direction == INGRESS or dialled == served else f"~{dialled}|{served}"

    def destination_at(self, direction: str) -> str:
        """The server as the flows of this direction name it."""
        if direction == INGRESS or not self.destination.startswith("~"):
            return self.destination
        return f"{self.destination}|{re.escape(self.dialled_ip)}"


REACTIONS: dict[Outcome, tuple[Reaction, ...]] = {
    **dict.fromkeys(Outcome, (Reaction.ANSWERED,)),
    Outcome.PASSED: (Reaction.TIMEOUT,),
    Outcome.DROPPED: (Reaction.TIMEOUT,),
    Outcome.FORBIDDEN: (Reaction.TIMEOUT,),
    Outcome.REFUSED: (Reaction.REFUSED, Reaction.RESET),
}
UNANSWERED = tuple(outcome for outcome, reactions in REACTIONS.items() if Reaction.TIMEOUT in reactions)
BLOCKED = (Outcome.DROPPED, Outcome.FORBIDDEN)
BY_SERVER = (Outcome.ANSWERED, Outcome.DIRECT, Outcome.OPEN, Outcome.ALLOWED, Outcome.FORWARDED)
BY_PROXY = (Outcome.FORWARDED, Outcome.DENIED)


def answer_problems(probe: Probe, parties: Parties, answer: Answer) -> list[str]:
    """What is wrong with the answer; empty if it is right."""
    if answer.reaction not in REACTIONS[probe.expect]:
        return [f"expected {probe.expect}, got {answer}"]
    if probe.request is None or answer.reaction is not Reaction.ANSWERED:
        return []
    status = _status(probe)
    problems = [] if answer.status == status else [f"expected status {status}, got {answer}"]
    denial = GRPC_DENIED_DETAILS if probe.request.http == GRPC else DENIED_BODY
    if probe.expect is Outcome.DENIED and probe.request.method != "HEAD" and answer.body != denial:
        problems.append(f"expected body {denial!r}, got {answer.body!r}")
    problems += [f"expected a body with {t!r}, got {answer.body!r}" for t in probe.body_has if t not in answer.body]
    problems += [f"expected no {t!r} in the body {answer.body!r}" for t in probe.body_lacks if t in answer.body]
    return problems + _receipt_problems(probe, parties, answer)


def _status(probe: Probe) -> int:
    """What the client is told: of a gRPC call that is the gRPC status, 0 where it is right."""
    assert probe.request is not None
    if probe.request.http == GRPC:
        return GRPC_DENIED if probe.expect is Outcome.DENIED else probe.status % 200
    return {Outcome.DENIED: DENIED_STATUS, Outcome.REDIRECTED: REDIRECT_STATUS}.get(probe.expect, probe.status)


def _receipt_problems(probe: Probe, parties: Parties, answer: Answer) -> list[str]:
    """The server sees the client's own address and exactly what was judged; and nothing of what was not passed on."""
    assert probe.request is not None
    received, client = answer.header("x-received"), answer.header("x-client")
    if probe.expect not in BY_SERVER:
        return [f"the server has received {received!r}, and should have received nothing"] if received else []
    path = probe.judged if probe.judged and probe.expect is not Outcome.DIRECT else probe.request.path
    problems = []
    if received != f"{probe.request.method} {path}":
        problems.append(f"the server received {received!r}, not what was judged: '{probe.request.method} {path}'")
    if client != parties.source_ip:
        problems.append(f"the server saw the client as {client!r}, not as {parties.source_ip}")
    return problems


def expected_flows(probe: Probe, parties: Parties) -> list[Pattern]:
    """The flows that must be seen."""
    implied: list[Pattern] = []
    match probe.expect:
        case Outcome.FORWARDED | Outcome.DENIED:
            implied = [pattern for direction in probe.at for pattern in _exchange(probe, parties, direction)]
            if probe.by:
                implied.append(_verdict(probe, parties, probe.at[-1]))
        case Outcome.ALLOWED | Outcome.PASSED:
            implied = [_verdict(probe, parties, direction) for direction in probe.at]
        case Outcome.DROPPED | Outcome.FORBIDDEN:
            implied = [_drop(probe, parties)]
            if not probe.over:
                implied.append(_verdict(probe, parties, probe.at[-1]))
    return [*implied, *probe.flows]


def _verdict(probe: Probe, parties: Parties, direction: str) -> Pattern:
    """What the policy said of the first packet; and in whose name, if the probe knows."""
    blocked = probe.expect in BLOCKED
    verdict = "DROPPED" if blocked else "REDIRECTED" if probe.expect in BY_PROXY else "FORWARDED"
    named = {"denied_by" if blocked else "allowed_by": f"~(.*[ /])?{re.escape(probe.by)}(,.*)?"} if probe.by else {}
    return {
        "event": "policy-verdict",
        "verdict": verdict,
        "direction": direction.upper(),
        "source": parties.source,
        "destination": parties.destination_at(direction),
        "l4": L4_NAME[probe.protocol, probe.family],
        **named,
    }


def _exchange(probe: Probe, parties: Parties, direction: str) -> list[Pattern]:
    assert probe.request is not None
    denied_here = probe.expect is Outcome.DENIED and direction == probe.at[-1]
    refused = GRPC_REFUSAL_STATUS if probe.request.http == GRPC else DENIED_STATUS
    status = refused if probe.expect is Outcome.DENIED else probe.status
    protocol = "HTTP/2" if probe.request.http in ("2", GRPC) else "HTTP/1.1"
    path = (probe.judged or probe.request.path).partition("?")[0]  # flows show no queries, unless told to
    method, url = probe.request.method, f"http://{parties.authority}{path}"
    common = {"event": "l7", "direction": direction.upper(), "l4": "TCP", "method": method, "url": url,
              "protocol": protocol}  # fmt: skip
    port, server = parties.port_at(direction), parties.destination_at(direction)
    there = {"source": parties.source, "destination": server, "destination_port": port}
    back = {"source": server, "destination": parties.source, "source_port": port}
    request = {
        "l7": "REQUEST",
        "verdict": "DROPPED" if denied_here else "FORWARDED",
        "reply": "false",
        "summary": f"{protocol} {method} {url}",
    }
    response = {
        "l7": "RESPONSE",
        "verdict": "FORWARDED",
        "reply": "true",
        "code": str(status),
        "summary": f"~{re.escape(protocol)} {status} [0-9]+ms \\({re.escape(f'{method} {url}')}\\)",
    }
    return [{**common, **there, **request}, {**common, **back, **response}]


def _drop(probe: Probe, parties: Parties) -> Pattern:
    return {
        "event": "drop",
        "verdict": "DROPPED",
        "drop_reason": DENY_REASON if probe.expect is Outcome.FORBIDDEN else probe.drop_reason,
        "direction": probe.at[-1].upper(),
        "source": parties.source,
        "destination": parties.destination_at(probe.at[-1]),
        "l4": L4_NAME[probe.protocol, probe.family],
        "summary": "~TCP Flags: .*" if probe.over else _summary(probe),
    }


def _summary(probe: Probe) -> str:
    if probe.protocol != "icmp":
        return L4_SUMMARY[probe.protocol]
    kind = probe.icmp_type if probe.icmp_type >= 0 else ECHO[probe.family]
    return f"ICMPv{probe.family} {ICMP_SUMMARY.get(kind, f'{kind}(0)')}"


def own_flows(probe: Probe, parties: Parties, flows: Sequence[SeenFlow]) -> list[SeenFlow]:
    """Those of the flows that tell of this probe: by client port where there is one, else by address and protocol.

    A second proxy sees the first one's port instead of the client's; such probes are asked alone (Ask.in_turn), and
    every TCP flow of the client's address is theirs.
    """
    mine = [flow for flow in flows if parties.source_ip in (flow.source_ip, flow.destination_ip)]
    if probe.protocol == "icmp":
        there, back = (parties.source_ip, parties.dialled_ip), (parties.dialled_ip, parties.source_ip)
        asked = _summary(probe)
        pings = [flow for flow in mine if flow.summary in (asked, asked.replace("Request", "Reply"))]
        return [f for f in pings if (f.source_ip, f.destination_ip) == (back if f.reply == "true" else there)]
    if len(probe.at) > 1 and probe.expect in BY_PROXY:
        return [flow for flow in mine if flow.l4 == "TCP"]
    port = str(parties.client_port)
    return [flow for flow in mine if port in (flow.source_port, flow.destination_port)]


def flow_problems(probe: Probe, parties: Parties, flows: Sequence[SeenFlow]) -> list[str]:
    """What is wrong with the flows of the probe: those that miss, those too many, those out of order."""
    patterns = expected_flows(probe, parties)
    problems = [f"no flow {spell(pattern)}" for pattern in missing(patterns, flows)]
    judged = [flow for flow in flows if flow.event == "l7"]
    wanted = sum(1 for pattern in patterns if pattern.get("event") == "l7")
    if len(judged) > wanted and probe.expect not in (Outcome.REDIRECTED, Outcome.REJECTED, Outcome.ANSWERED):
        problems.append(f"{len(judged)} HTTP flows instead of {wanted}")
    if probe.expect not in BLOCKED:
        problems += [f"a packet was dropped: {flow}" for flow in flows if flow.event == "drop"]
    if probe.expect is Outcome.OPEN:
        problems += [f"a policy has judged it: {flow}" for flow in flows if flow.event == "policy-verdict"]
    for direction in {flow.direction for flow in judged}:
        kinds = [flow.l7 for flow in judged if flow.direction == direction]
        if kinds != sorted(kinds):  # REQUEST < RESPONSE
            problems.append(f"a response is reported before its request at {direction}")
    return problems
