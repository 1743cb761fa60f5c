"""Brings a node's report to the API server: at once after a change, seldom while changes go on, and once a minute as a
sign of life. Nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from agent.cluster.backoff import Backoff
from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.node_report import NodeReport, to_body
from agent.cluster.resources import DEFLECTOR_NODES

BURST: Final = 10  # reports that go at once; five hundred nodes answer the same edit at the same moment
EVERY_SECONDS: Final = 2.0  # between further ones
SPREAD_SECONDS: Final = 0.05
SIGN_OF_LIFE_SECONDS: Final = 60.0
PAUSES: Final = (0.5, 60.0)  # seconds after a failure, at first and at last

log = logging.getLogger("deflector.cluster")


class Reporter:
    """`take` says what is so now, `run` reports it. `trouble` is what went wrong last, "" if nothing does."""

    def __init__(self, server: ApiServer, version: str, chance: Callable[[], float] = random.random) -> None:
        self.trouble = ""
        self.requests = 0
        self._server = server
        self._version = version
        self._chance = chance
        self._current: NodeReport | None = None
        self._since = 0.0  # when the current one came to be
        self._said: NodeReport | None = None
        self._news = asyncio.Event()
        self._tokens = float(BURST)
        self._refilled: float | None = None
        self._backoff = Backoff(chance, *PAUSES)

    def take(self, report: NodeReport) -> None:
        """This is so now; `held` and `version` are filled in when it goes."""
        if report != self._current:
            self._current, self._since = report, asyncio.get_running_loop().time()
            self._news.set()

    async def run(self) -> None:
        """Report, for ever."""
        while True:
            await self._until_due()
            self._news.clear()
            report = self._current
            assert report is not None
            try:
                await self._say(report)
            except (ApiError, Unreachable) as error:
                await asyncio.sleep(self._failed(error))
                self._news.set()
            else:
                self._said, self.trouble = report, ""
                self._backoff.reset()

    async def _until_due(self) -> None:
        """Until there is something new and a right to say it, or it is time for a sign of life."""
        alive = SIGN_OF_LIFE_SECONDS * (1 - self._chance() / 4)
        try:
            async with asyncio.timeout(alive if self._said is not None else None):
                await self._news.wait()
        except TimeoutError:
            return
        await asyncio.sleep(SPREAD_SECONDS * self._chance() + self._wait_for_token())

    def _wait_for_token(self) -> float:
        now = asyncio.get_running_loop().time()
        if self._refilled is not None:
            self._tokens = min(BURST, self._tokens + (now - self._refilled) / EVERY_SECONDS)
        self._refilled = now
        self._tokens -= 1
        return max(0.0, -self._tokens * EVERY_SECONDS)

    async def _say(self, report: NodeReport) -> None:
        held = asyncio.get_running_loop().time() - self._since if report != self._said else 0.0
        body = to_body(replace(report, held=held, version=self._version), datetime.now(UTC).strftime("%FT%TZ"))
        self.requests += 1
        try:
            await self._server.patch(DEFLECTOR_NODES, "", report.node, body)
        except ApiError as error:
            if not error.is_missing:
                raise
            await self._server.create(DEFLECTOR_NODES, "", body)

    def _failed(self, error: ApiError | Unreachable) -> float:
        words = f"this node cannot report what it enforces: {error}"
        if isinstance(error, ApiError) and error.is_missing:
            words = f"this node reports nothing: {DEFLECTOR_NODES} is not defined (`deflector crds` prints what it is)"
        if not self.trouble:
            log.warning("%s; policies' condition Enforced is behind until it can", words)
        self.trouble = words
        return self._backoff.next(getattr(error, "retry_after", None) or 0.0)
