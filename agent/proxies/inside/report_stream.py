"""The stream on which a proxy of ours tells the agent what it has seen and learned; kept up across the agent's lives.

What waits to be told is the source's (bounded, and counted where it is lost); here is when it goes: at once what
somebody waits for, the rest a few milliseconds later with all that has come by then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import grpc

from xds.client import CHANNEL, ENDED, RETRY_BASE_S, RETRY_MAX_S
from xds.protos.deflector.l7.v1.reports_pb2 import Answers, Batch

METHOD: Final = "/deflector.l7.v1.Reports/Report"
GATHER_SECONDS: Final = 0.004  # what has been seen is told so much later, together; more at once holds up what waits
COUNTERS_SECONDS: Final = 1.0  # so often it is looked whether some counter has moved


class Source(Protocol):
    """What there is to tell, and who hears the answers. All is called in the loop of the stream."""

    def batch(self) -> Batch | None:
        """The next batch; None if nothing waits."""

    def answered(self, in_force: Sequence[int], cannot_be: Sequence[int]) -> None:
        """What has become of lessons. The agent's first word, of none perhaps, says that it answers from now on."""

    def away(self) -> None:
        """The agent is gone, or not there yet."""

    def back(self) -> None:
        """An agent listens: it knows nothing of what another one was told."""


class ReportStream:
    """Tells the agent behind a socket as `proxy`."""

    def __init__(self, socket: Path, proxy: str, source: Source) -> None:
        self._target = f"unix://{socket}"
        self._proxy = proxy
        self._source = source
        self._waits = asyncio.Event()
        self._urgent = asyncio.Event()
        self.is_connected = False

    def wake(self, *, urgent: bool = False) -> None:
        """There is something to tell; urgent, if an answer is held for it."""
        self._waits.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Follow the agent, whichever it is, until cancelled."""
        failures = 0
        async with grpc.aio.insecure_channel(self._target, CHANNEL) as channel:
            open_stream = channel.stream_stream(
                METHOD, request_serializer=Batch.SerializeToString, response_deserializer=Answers.FromString
            )
            while True:
                self._source.away()
                try:
                    await self._follow(open_stream())
                except* ENDED:
                    failures = 0 if self.is_connected else failures + 1
                finally:
                    self.is_connected = False
                    self._source.away()
                most = min(RETRY_MAX_S, RETRY_BASE_S * 2 ** min(failures, 10))
                await asyncio.sleep(random.uniform(most / 2, most))

    async def _follow(self, call: Any) -> None:
        await call.initial_metadata()  # the agent sends it at once: it is there
        await call.write(Batch(proxy=self._proxy))
        self.is_connected = True
        self._source.back()
        self.wake(urgent=True)
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell(call))
            await self._hear(call)
            telling.cancel()

    async def _hear(self, call: Any) -> None:
        while (answers := await call.read()) is not grpc.aio.EOF:
            self._source.answered(answers.in_force, answers.cannot_be)

    async def _tell(self, call: Any) -> None:
        while True:
            await _within(self._waits, COUNTERS_SECONDS)
            self._waits.clear()
            await _within(self._urgent, GATHER_SECONDS)
            self._urgent.clear()
            while (batch := self._source.batch()) is not None:
                await call.write(batch)


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
