"""Answers about policies for people: coloured lines. Prints nothing; the commands do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from policies.errors import one_line
from policies.explaining import reasons
from policies.explaining.differences import rule_in_words
from policies.explaining.explain import L7, Asked, Explanation, L7Verdict, Question, Reason, Side
from policies.explaining.near_clauses import port_in_words
from policies.explaining.places import Places
from policies.ir import L7Parser
from policies.judging.kafka import KafkaRequest
from policies.judging.names import NameQuery
from policies.judging.requests import BAD_REQUEST, Request
from policies.kafka_keys import name_of as api_of
from policies.types import Direction, Origin

GOOD, BAD, NAME, DIM = "bold green", "bold red", "bold", "dim"

_REASONS = {
    Reason.NO_ENDPOINT: reasons.NO_ENDPOINT,
    Reason.SELF: "a pod that talks to itself does not pass any policy",
    Reason.NOT_ENFORCED: reasons.NOT_ENFORCED,
    Reason.ALLOWED: reasons.ALLOWED,
    Reason.DENIED: reasons.DENIED,
    Reason.CONFLICT: reasons.CONFLICT,
    Reason.HTTP: reasons.NO_L7_RULE,
    Reason.DNS: reasons.NO_L7_RULE,
    Reason.KAFKA: reasons.NO_L7_RULE,
    Reason.TLS: reasons.NO_L7_RULE,
    Reason.DEFAULT_DENY: reasons.DEFAULT_DENY,
    Reason.NO_BACKEND: reasons.NO_BACKEND,
}
_ASK_WITH = {
    L7Parser.HTTP: "--method and --path",
    L7Parser.DNS: "--dns",
    L7Parser.KAFKA: "--kafka-api and --kafka-topic",
}
_JUDGED_BY = {
    L7Parser.TLS: "connections pass by the server name of their ClientHello (SNI), judged by",
}


def explanation_text(answer: Explanation, places: Places) -> Iterator[Text]:
    """The question, the verdict, and each direction with its reason."""
    yield _question(answer.question)
    yield _verdict(answer.allowed)
    for side in (answer.egress, *answer.ingress):
        yield Text("")
        yield from _side(side, answer.question, places)


def _question(question: Question) -> Text:
    source, target = question.source, question.target
    backends = ", ".join(f"{end.name}:{port}" for end, port in target.ends) if target.service else ""
    through = f" → {backends or 'nobody'}" if target.service else ""
    port = port_in_words(question.protocol, target.port)
    asked = f", {_asked(question.request)}" if question.request is not None else ""
    return Text(one_line(f"{source.name} → {target.name}{through}, {port}{asked}"), style=NAME)


def _asked(asked: Asked) -> str:
    match asked:
        case Request():
            return _request(asked)
        case NameQuery():
            return f"DNS {asked.name}"
        case KafkaRequest():
            named = ", ".join(topic or "an unknown topic" for topic in asked.topics)
            topics = " of all topics" if asked.is_of_all else f" of {named}" if named else ""
            client = f" by {asked.client_id}" if asked.client_id else ""
            return f"Kafka {api_of(asked.api_key)} version {asked.api_version}{topics}{client}"


def _request(request: Request) -> str:
    host = f" of {request.host}" if request.host else ""
    headers = "".join(f", {name}: {value}" for name, value in request.headers)
    return f"{request.method} {request.path}{host}{headers}"


def _verdict(allowed: bool) -> Text:
    return Text("ALLOWED" if allowed else "DENIED", style=GOOD if allowed else BAD)


def _side(side: Side, question: Question, places: Places) -> Iterator[Text]:
    head = Text.assemble((f"{side.direction.value:<8}", NAME), _verdict(side.allowed), "  ")
    other = "to" if side.direction is Direction.EGRESS else "from"
    reason = _l7_reason(side.l7) if side.l7 is not None else _REASONS[side.reason]
    yield head.append(one_line(f"{side.owner} {other} {side.peer}: {reason}"))
    if side.l7 is not None:
        yield from _l7_lines(side.l7, question.request, places)
    decided = side.reason in (Reason.ALLOWED, Reason.DENIED, Reason.CONFLICT)
    yield from _clauses("by" if decided else "enforced by", side.by, places)
    nearest = side.nearest or (side.l7.nearest if side.l7 is not None else None)
    if nearest is not None:
        found = [str(place) for origin in nearest.origins if (place := places.of(origin)) is not None]
        yield _line("nearest", str(nearest), ", ".join(found))


def _l7_reason(l7: L7) -> str:
    match l7.verdict:
        case L7Verdict.DENIED if l7.decision is not None and l7.decision.fault:
            return reasons.read_differently(l7.decision.fault)
        case L7Verdict.DENIED if l7.is_foreign:
            return reasons.foreign(l7.rules)
        case L7Verdict.DENIED:
            is_http = l7.rules.parser is L7Parser.HTTP
            return reasons.none_matches(l7.rules) if is_http else reasons.none_allows(l7.rules)
        case L7Verdict.ANSWERED:
            assert l7.decision is not None
            status = l7.decision.arrival.status
            what = "it is malformed" if status == BAD_REQUEST else f"go to {l7.decision.arrival.request.path}"
            return f"Envoy answers {status} by itself: {what}"
        case L7Verdict.NOT_ASKED:
            if (judged := _JUDGED_BY.get(l7.rules.parser)) is not None:
                return f"{judged} {reasons.counted(l7.rules)}"
            return f"requests are judged by {reasons.counted(l7.rules)}: ask with {_ASK_WITH[l7.rules.parser]}"
        case L7Verdict.ALLOWED if l7.is_filtered:
            return reasons.filtered(l7.rules)
    return reasons.all_pass(l7.rules) if l7.void_by else reasons.l7_allowed(l7.rules)


def _l7_lines(l7: L7, asked: Asked | None, places: Places) -> Iterator[Text]:
    if isinstance(asked, Request) and l7.decision is not None and l7.decision.arrival.request.path != asked.path:
        yield _line("judged as", l7.decision.arrival.request.path)
    if l7.rule is not None:
        yield _line("rule", rule_in_words(l7.rule))
        yield from _clauses("", l7.rule.origins, places)
    if l7.void_by:
        yield from _clauses("voided by", l7.void_by, places)


def _clauses(label: str, origins: tuple[Origin, ...], places: Places) -> Iterator[Text]:
    for origin in origins[: reasons.BY_MAX]:
        place = places.of(origin)
        yield _line(label, str(origin), str(place) if place is not None else "")
        label = ""
    if len(origins) > reasons.BY_MAX:
        yield _line("", f"and {len(origins) - reasons.BY_MAX} more")


def _line(label: str, words: str, place: str = "") -> Text:
    text = Text.assemble((f"  {label:<12}", DIM), one_line(words))
    return text.append(f"  {one_line(place)}", style=DIM) if place else text


# --- deflector policy show -----------------------------------------------------------------------------------------

_VERDICTS = {"allow": ("allow", "green"), "deny": ("deny", "red"), "redirect": ("proxy", "cyan")}
_COMMON_LABELS = ("k8s:io.cilium.k8s.policy.", "k8s:io.cilium.k8s.namespace.labels.")
PEERS_MAX = 10  # identities of a rule that are listed


def policy_text(document: Mapping[str, Any]) -> Iterator[Text]:
    """The document of agent.documents.policy_document for people."""
    group = document["group"]
    about = f"{document['namespace']}/{document['name']}"
    yield Text.assemble(
        (one_line(about), NAME), f"  endpoint {document['endpoint']}, {' '.join(document['addresses'])}"
    )
    yield _line("group", f"{group['identity']}  {_labels(group['labels'])}")
    if len(group["endpoints"]) > 1:
        yield _line("shared with", ", ".join(other for other in group["endpoints"] if other != about))
    for direction in Direction:
        found = document[direction.value]
        yield Text("")
        state = "enforced" if found["enforced"] else "open: no policy selects it in this direction"
        yield Text.assemble((f"{direction.value:<8}", NAME), state)
        for port in found["ports"]:
            for peer in port["peers"]:
                yield from _peer_lines(port, peer)
        if found["enforced"]:
            yield Text("  all else  denied", style=DIM)


def _peer_lines(port: Mapping[str, Any], peer: Mapping[str, Any]) -> Iterator[Text]:
    word, colour = _VERDICTS[peer["verdict"]]
    everything = port["protocol"] == "ANY"
    ports = "any port" if everything else f"{'any' if port['ports'] == '0-65535' else port['ports']}/{port['protocol']}"
    slot = f"  slot {peer['slot']}" if peer.get("slot") else ""
    who = "anybody else" if peer["any"] else f"{len(peer['identities'])} identities"
    if len(peer["identities"]) == 1:
        who = _identity(peer["identities"][0])
    yield Text.assemble(f"  {ports:<10}", (f"{word:<6}", colour), one_line(who), (slot, DIM))
    if len(peer["identities"]) > 1:
        for identity in peer["identities"][:PEERS_MAX]:
            yield Text(f"{'':<18}{one_line(_identity(identity))}")
        if len(peer["identities"]) > PEERS_MAX:
            yield Text(f"{'':<18}and {len(peer['identities']) - PEERS_MAX} more", style=DIM)
    yield from _rule_lines(peer)


def _rule_lines(peer: Mapping[str, Any]) -> Iterator[Text]:
    rules = peer.get("rules", ())
    for rule in rules[: reasons.BY_MAX]:
        yield Text.assemble(f"{'':<18}{rule['words']}", (f"  {one_line(_clause_names(rule['by']))}", DIM))
    if len(rules) > reasons.BY_MAX:
        yield Text(f"{'':<18}and {len(rules) - reasons.BY_MAX} more rules", style=DIM)
    if peer.get("void_by"):
        yield Text(f"{'':<18}all requests pass: {one_line(_clause_names(peer['void_by']))}", style="yellow")
    if not rules:
        yield Text(f"{'':<18}{one_line(_clause_names(peer['by']))}", style=DIM)


def _identity(identity: Mapping[str, Any]) -> str:
    return f"{identity['id']} {_labels(identity['labels'])}"


def _labels(labels: Sequence[str]) -> str:
    """Labels that tell one from another; cluster, service account and namespace labels stay for -o json."""
    shown = (label.removeprefix("k8s:") for label in labels if not label.startswith(_COMMON_LABELS))
    return " ".join(label.replace("io.kubernetes.pod.namespace=", "namespace=") for label in shown)


def _clause_names(origins: Sequence[Mapping[str, str]]) -> str:
    named = [str(Origin(o["kind"], o["namespace"], o["name"], o["path"])) for o in origins[:3]]
    return ", ".join(named) + (f" and {len(origins) - 3} more" if len(origins) > 3 else "")
