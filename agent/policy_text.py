"""Answers about policies for people: coloured lines. Prints nothing; the commands do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from policies.differences import rule_in_words
from policies.errors import one_line
from policies.explain import L7, Explanation, L7Verdict, Question, Reason, Side
from policies.near_clauses import port_in_words
from policies.places import Places
from policies.requests import BAD_REQUEST, Request
from policies.types import Direction, Origin

GOOD, BAD, NAME, DIM = "bold green", "bold red", "bold", "dim"
BY_MAX = 10  # clauses that are listed; a port may be open by a thousand

_REASONS = {
    Reason.NO_ENDPOINT: "not a pod of this node: nothing is enforced here",
    Reason.SELF: "a pod that talks to itself does not pass any policy",
    Reason.NOT_ENFORCED: "not enforced: no policy selects it in this direction",
    Reason.ALLOWED: "a rule allows it",
    Reason.DENIED: "a rule denies it",
    Reason.HTTP: "no HTTP rule allows it",
    Reason.DEFAULT_DENY: "default deny: no rule allows it",
    Reason.NO_BACKEND: "the service has no backend, or backends of different identities",
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
    asked = f", {_request(question.request)}" if question.request is not None else ""
    return Text(one_line(f"{source.name} → {target.name}{through}, {port}{asked}"), style=NAME)


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
    decided = side.reason in (Reason.ALLOWED, Reason.DENIED)
    yield from _clauses("by" if decided else "enforced by", side.by, places)
    nearest = side.nearest or (side.l7.nearest if side.l7 is not None else None)
    if nearest is not None:
        found = [str(place) for origin in nearest.origins if (place := places.of(origin)) is not None]
        yield _line("nearest", str(nearest), ", ".join(found))


def _l7_reason(l7: L7) -> str:
    rules = f"{len(l7.rules.http)} HTTP rule{'s' if len(l7.rules.http) != 1 else ''}"
    match l7.verdict:
        case L7Verdict.DENIED if l7.decision is not None and l7.decision.fault:
            return f"servers may read it differently, {l7.decision.fault}: 403"
        case L7Verdict.DENIED:
            return f"none of {rules} matches: 403"
        case L7Verdict.ANSWERED:
            assert l7.decision is not None
            status = l7.decision.arrival.status
            what = "it is malformed" if status == BAD_REQUEST else f"go to {l7.decision.arrival.request.path}"
            return f"Envoy answers {status} by itself: {what}"
        case L7Verdict.NOT_ASKED:
            return f"requests are judged by {rules}: ask with --method and --path"
    if l7.void_by:
        return f"all requests pass, for an allow without L7 covers it too (it voids {rules})"
    return "an HTTP rule allows it"


def _l7_lines(l7: L7, asked: Request | None, places: Places) -> Iterator[Text]:
    if asked is not None and l7.decision is not None and l7.decision.arrival.request.path != asked.path:
        yield _line("judged as", l7.decision.arrival.request.path)
    if l7.rule is not None:
        yield _line("rule", rule_in_words(l7.rule))
        yield from _clauses("", l7.rule.origins, places)
    if l7.void_by:
        yield from _clauses("voided by", l7.void_by, places)


def _clauses(label: str, origins: tuple[Origin, ...], places: Places) -> Iterator[Text]:
    for origin in origins[:BY_MAX]:
        place = places.of(origin)
        yield _line(label, str(origin), str(place) if place is not None else "")
        label = ""
    if len(origins) > BY_MAX:
        yield _line("", f"and {len(origins) - BY_MAX} more")


def _line(label: str, words: str, place: str = "") -> Text:
    text = Text.assemble((f"  {label:<12}", DIM), one_line(words))
    return text.append(f"  {one_line(place)}", style=DIM) if place else text
