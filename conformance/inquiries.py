"""Puts questions to nameservers, from pods with real resolvers, and judges reply and flows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from conformance.cast import Cast
from conformance.dns_expectation import Ends, expected_flows, flow_problems, own_flows, reply_problems
from conformance.flow_log import FlowLog
from conformance.flow_view import SeenFlow, missing
from conformance.galaxy import Galaxy
from conformance.question import Question
from conformance.report import Failure
from conformance.resolvers import Inquiry, Reply, resolve
from conformance.scenario import Resolve

SEEN_MAX = 8  # flows that a failure shows


@dataclass(frozen=True, slots=True)
class _Asked:
    inquiry: Inquiry
    ends: Ends
    reply: Reply
    mark: int

    def flows(self, log: FlowLog) -> list[SeenFlow]:
        return own_flows(self.inquiry.question, self.ends, log.since(self.mark))

    def failure(self, log: FlowLog) -> Failure | None:
        question, flows = self.inquiry.question, self.flows(log)
        problems = reply_problems(question, self.ends, self.reply) + flow_problems(question, self.ends, flows)
        if not problems:
            return None
        seen = (f"reply: {self.reply}", *(f"flow: {flow}" for flow in flows[-SEEN_MAX:]))
        return Failure(f"question {question}", tuple(problems), seen, str(self.inquiry))


class Inquiries:
    """Asks what a step says, on one galaxy."""

    def __init__(self, galaxy: Galaxy, cast: Cast, log: FlowLog) -> None:
        self._galaxy, self._cast, self._log = galaxy, cast, log

    async def ask(self, step: Resolve, patience: float) -> list[Failure]:
        """The step's failures. `patience`: seconds until an expected flow is seen."""
        failures = []
        inquiries = [self._inquiry(question) for question in step.questions]
        for batch in [[one] for one in inquiries] if step.in_turn else [inquiries]:
            mark = self._log.mark()
            replies = await asyncio.gather(*map(resolve, batch))
            asked = [_Asked(i, self._ends(i), r, mark) for i, r in zip(batch, replies, strict=True)]
            await self._log.wait(partial(self._complete, asked), patience)
            failures += [failure for one in asked if (failure := one.failure(self._log)) is not None]
        return failures

    def _complete(self, asked: Sequence[_Asked]) -> bool:
        return not any(missing(expected_flows(a.inquiry.question, a.ends), a.flows(self._log)) for a in asked)

    def _inquiry(self, question: Question) -> Inquiry:
        galaxy = self._galaxy
        local = (galaxy.address(question.source, question.family), self._cast.ports.take())
        remote = self._cast.remote(question.server, question.family)
        return Inquiry(question, galaxy.namespace(question.source), local, remote, galaxy.folder)

    def _ends(self, inquiry: Inquiry) -> Ends:
        question = inquiry.question
        hosts = [self._galaxy.blueprint.host(name) for name in question.addresses]
        return Ends(
            source=self._cast.named(question.source) or inquiry.local[0],
            source_ip=inquiry.local[0],
            server=self._cast.server(question.server, inquiry.remote),
            addresses=tuple(sorted(address for host in hosts for address in (host.v4, host.v6))),
        )
