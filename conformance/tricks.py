"""Plays tricks of the bypass corpus from pod to pod: what does the client see, what arrives, what do flows tell?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conformance.bypass import CLOSED, Trick, trespass
from conformance.cast import Cast
from conformance.flow_view import SeenFlow
from conformance.galaxy import Galaxy
from conformance.recorder import Recorder, listening, recording
from conformance.scenario import INGRESS, Outcome, Probe, Request, Sneak
from conformance.sneak import sneak
from conformance.target import Target

PORT = 80


@dataclass(frozen=True, slots=True)
class Tried:
    """A trick that was tried, from which port, what came back, and what was wrong with that or with what arrived."""

    trick: Trick
    client_port: int
    answers: tuple[str, ...]
    problems: tuple[str, ...]


async def try_all(step: Sneak, galaxy: Galaxy, cast: Cast) -> list[Tried]:
    """One trick after the other, so that what arrives belongs to it. Raises OSError if nobody can be dialled."""
    probe = Probe(step.source, Target("pod", step.target, PORT), Outcome.ANSWERED, Request())
    tried = []
    async with recording(listening(galaxy.namespace(step.target), PORT)) as seen:
        for trick in step.tricks:
            call = cast.call(probe)
            marks = len(seen.received), len(seen.odd)
            answers = await sneak(call.way, trick)
            problems = [] if answers == trick.answers else [f"answered {_spell(answers)}, not {_spell(trick.answers)}"]
            problems += _arrivals(step, seen, marks)
            tried.append(Tried(trick, call.local[1], answers, tuple(problems)))
        late = _arrivals(step, seen, (0, 0))  # all once more: what was on its way has come by now
    if late and not any(one.problems for one in tried):
        last = tried[-1]
        tried[-1] = Tried(last.trick, last.client_port, last.answers, tuple(late))
    return tried


def _arrivals(step: Sneak, seen: Recorder, marks: tuple[int, int]) -> list[str]:
    """What is wrong with what has arrived since."""
    wrong = [why for request in seen.received[marks[0] :] if (why := trespass(step.allowed, request))]
    return wrong + [f"the server cannot read {odd!r}" for odd in seen.odd[marks[1] :]]


def own(tried: Tried, flows: Sequence[SeenFlow]) -> list[SeenFlow]:
    """The HTTP flows of a trick's connection."""
    port = str(tried.client_port)
    return [flow for flow in flows if flow.event == "l7" and port in (flow.source_port, flow.destination_port)]


def flows_missing(tried: Tried, flows: Sequence[SeenFlow]) -> bool:
    """Whether some answer is not told of yet."""
    return len(_codes(tried, flows)) < len(_statuses(tried))


def flow_faults(tried: Tried, flows: Sequence[SeenFlow]) -> list[str]:
    """What is wrong with the flows: each answer is told, in order, and each at the server's door."""
    codes, wanted = _codes(tried, flows), _statuses(tried)
    faults = [] if codes == wanted else [f"flows tell of {_spell(codes)}, the client saw {_spell(wanted)}"]
    elsewhere = {flow.direction for flow in own(tried, flows)} - {INGRESS.upper()}
    return faults + [f"a flow at {direction}" for direction in sorted(elsewhere)]


def _codes(tried: Tried, flows: Sequence[SeenFlow]) -> list[str]:
    return [flow.code for flow in own(tried, flows) if flow.l7 == "RESPONSE"]


def _statuses(tried: Tried) -> list[str]:
    return [answer for answer in tried.answers if answer != CLOSED]


def _spell(answers: Sequence[str]) -> str:
    return ", ".join(answers) or "nothing"
