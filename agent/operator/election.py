"""Takes a lease, keeps it, gives it back. While it is ours, `lead` runs; the moment it may be another's, it does not.

`is_leading` is asked before each write (agent.operator.pen) and goes by the clock: a process that was stopped for a
minute has lost its lease before any of its timers says so.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.resources import LEASES
from agent.operator.leases import Ballot, Observer, Timing, released, taken

LEASE: Final = "deflector-operator"
JITTER: Final = 0.2

log = logging.getLogger("deflector.operator")


@dataclass(slots=True)
class Election:
    """One candidate. `run` never ends but by cancellation, and gives the lease back then."""

    server: ApiServer
    namespace: str
    identity: str
    timing: Timing
    chance: Callable[[], float] = random.random
    answered: float | None = None  # when the server has answered us last
    leader: str = ""  # as far as known
    _until: float = 0.0  # our lease is ours until then
    _ballot: Ballot | None = None
    _observer: Observer = field(init=False)
    _complaint: str = ""

    def __post_init__(self) -> None:
        self._observer = Observer(self.timing.duration)

    @property
    def is_leading(self) -> bool:
        """Whether the lease is ours beyond doubt at this moment."""
        return asyncio.get_running_loop().time() < self._until

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Stand for election, for ever. What `lead` raises ends it."""
        try:
            while True:
                while not await self._try():
                    await self._pause()
                log.info("leading as %s", self.identity)
                try:
                    await self._reign(lead)
                finally:
                    self._until = 0.0
                log.warning("leading no more: %s", self._complaint or f"{self.leader or 'nobody'} has the lease")
        finally:
            await self._release()

    async def _reign(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Until the lease is lost; `lead` is cancelled then."""
        async with asyncio.TaskGroup() as tasks:
            leading = tasks.create_task(_run(lead), name="leading")
            while self.is_leading:
                left = self._until - asyncio.get_running_loop().time()
                await asyncio.wait((leading,), timeout=min(left, self.timing.retry))
                if leading.done():
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._until):
                        if not await self._try() and self.leader != self.identity:
                            break
            self._until = 0.0
            leading.cancel()

    async def _try(self) -> bool:
        """Take or renew the lease; whether it is ours."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self.timing.renew):
                ballot = await self._look()
                if ballot is not None and not self._observer.may_take(ballot, self.identity, clock()):
                    return False
                self._ballot = await self._take(ballot)
        except (ApiError, Unreachable, TimeoutError) as error:
            self._failed(error)
            return False
        self._until, self.leader, self._complaint = began + self.timing.renew, self.identity, ""
        return True

    async def _look(self) -> Ballot | None:
        """The record; a leader goes by what it has written itself, and is told if that is not so."""
        try:
            ballot = Ballot.of(await self.server.get(LEASES, self.namespace, LEASE))
        except ApiError as error:
            if not error.is_missing:
                raise
            ballot = None
        self.answered = asyncio.get_running_loop().time()
        self.leader = ballot.holder if ballot is not None else ""
        self._complaint = ""
        return ballot

    async def _take(self, before: Ballot | None) -> Ballot:
        body = taken(before, self.identity, self.timing, datetime.now(UTC))
        return Ballot.of(await self._write(body, is_new=before is None))

    async def _write(self, body: dict[str, Any], *, is_new: bool) -> dict[str, Any]:
        body["metadata"]["name"] = LEASE
        if is_new:
            return await self.server.create(LEASES, self.namespace, body)
        return await self.server.update(LEASES, self.namespace, body)

    async def _release(self) -> None:
        ballot, self._ballot, self._until = self._ballot, None, 0.0
        if ballot is None or ballot.holder != self.identity or self.leader != self.identity:
            return
        with suppress(ApiError, Unreachable, TimeoutError):
            async with asyncio.timeout(self.timing.retry):
                await self._write(released(ballot, datetime.now(UTC)), is_new=False)

    async def _pause(self) -> None:
        await asyncio.sleep(self.timing.retry * (1 + JITTER * self.chance()))

    def _failed(self, error: Exception) -> None:
        if isinstance(error, ApiError) and (error.is_conflict or error.is_taken):
            return  # another one was quicker; the next look tells
        words = str(error) or "the API server did not answer in time"
        if words != self._complaint:
            self._complaint = words
            log.warning("lease %s/%s: %s", self.namespace, LEASE, words)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
