"""Loops of requests on live connections, and the judgement of what they saw while policy changed under them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from conformance.expectation import Answer, Reaction
from conformance.probes import PATIENCE
from conformance.scenario import Request, Settle
from conformance.site import Connection

PAUSE = 0.003  # seconds between an answer and the next request
SAMPLES_MAX = 20_000  # answers that one loop remembers; at PAUSE this is more than a minute
AFTER_MIN = 3  # answers each connection must have got under the new policy


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when its connection was opened, when it was sent and answered (monotonic seconds)."""

    opened: float
    sent: float
    answered: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class Change:
    """A change of policy: before `begun` the old one holds, after `enforced` the new one (monotonic seconds)."""

    begun: float
    enforced: float


class Loop:
    """One live connection that asks the same question until it is told to stop; it reconnects when it must."""

    def __init__(self, request: Request, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._request, self._connect = request, connect
        self.samples: list[Sample] = []
        self._stopping = False
        self._news = asyncio.Event()

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        connection: Connection | None = None
        try:
            while not self._stopping and len(self.samples) < SAMPLES_MAX:
                sent = time.monotonic()
                try:
                    connection = connection or await self._opened()
                    answer = await connection.ask(self._request, PATIENCE)
                except OSError as error:
                    answer = Answer(Reaction.REFUSED, note=error.strerror or str(error))
                opened = connection.opened_at if connection else sent
                self.samples.append(Sample(opened, sent, time.monotonic(), answer))
                self._news.set()
                if connection and answer.reaction is not Reaction.ANSWERED:
                    connection.close()
                    connection = None
                await asyncio.sleep(PAUSE)
        finally:
            if connection:
                connection.close()

    async def _opened(self) -> Connection:
        async with asyncio.timeout(PATIENCE):
            return await self._connect()

    async def served(self, count: int, moment: float) -> None:
        """Until so many requests sent after the moment (monotonic seconds) have come to an end."""
        while sum(1 for sample in self.samples if sample.sent >= moment) < count:
            self._news.clear()
            await self._news.wait()


def judge(samples: list[Sample], change: Change, settle: Settle) -> list[str]:
    """What is wrong with what a loop saw; empty if every answer is one of the policy that held, or could hold, then."""
    wrong: Counter[str] = Counter()
    for sample in samples:
        complaint = _complaint(sample, change, settle)
        if complaint:
            wrong[complaint] += 1
    problems = [f"{count} times {complaint}" for complaint, count in sorted(wrong.items())]
    late = sum(1 for sample in samples if sample.sent >= change.enforced)
    if late < AFTER_MIN:
        problems.append(f"only {late} answers under the new policy, expected at least {AFTER_MIN}")
    return problems


def _complaint(sample: Sample, change: Change, settle: Settle) -> str:
    if sample.answer.reaction is not Reaction.ANSWERED:
        # A connection that was open before the change may be reset by it, seen at the latest by its next request.
        excused = settle.resets and sample.opened < change.enforced and sample.answered >= change.begun
        return "" if excused and sample.answer.reaction is Reaction.RESET else f"no answer: {sample.answer}"
    if sample.answered < change.begun:
        allowed = {settle.before}
    elif sample.sent >= change.enforced:
        allowed = {settle.after}
    else:
        allowed = {settle.before, settle.after}
    if sample.answer.status in allowed:
        return ""
    when = "after the change" if sample.sent >= change.enforced else "before or during the change"
    return f"{sample.answer.status} instead of {' or '.join(map(str, sorted(allowed)))} {when}"
