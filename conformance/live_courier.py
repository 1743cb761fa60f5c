"""A Kafka client that stays connected and does the same errand again and again, as a connection that is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from conformance.expectation import Answer, Reaction
from conformance.kafka_client import Outcome
from conformance.scenario import Request

# What a client was told, as Kafka's numbers.
CODES = {
    "TOPIC_AUTHORIZATION_FAILED": 29,
    "GROUP_AUTHORIZATION_FAILED": 30,
    "CLUSTER_AUTHORIZATION_FAILED": 31,
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": 53,
}


class LiveCourier:
    """One process of conformance.kafka_client, told to repeat; a site's Connection."""

    client_port = 0  # it has several

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.opened_at = time.monotonic()

    @classmethod
    async def start(cls, command: Sequence[str]) -> LiveCourier:
        """Raises OSError."""
        return cls(
            await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    async def ask(self, request: Request, timeout: float) -> Answer:
        """Do the errand once more; what comes of it, with Kafka's error code as the status (0: none)."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        try:
            async with asyncio.timeout(2 * timeout):  # the client has a limit of its own
                line = await self._process.stdout.readline()
        except TimeoutError:
            return Answer(Reaction.TIMEOUT)
        return read(line.decode()) if line else Answer(Reaction.FAILED, note="the client has ended")

    def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()


def read(line: str) -> Answer:
    """What the client printed as an answer."""
    outcome = Outcome.of(line)
    told = sorted(set(outcome.errors.values()))
    if len(told) > 1 or any(name not in CODES for name in told):
        return Answer(Reaction.FAILED, note=str(outcome))
    return Answer(Reaction.ANSWERED, CODES[told[0]] if told else 0)
