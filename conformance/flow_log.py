"""Follows the flows of a node over the Hubble gRPC API and keeps the latest, flattened.

Bounded: beyond CAPACITY the oldest are forgotten (an index stays valid); what the node itself lost is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from observer import observer_pb2, observer_pb2_grpc

from conformance.flow_view import SeenFlow, view

CAPACITY = 50_000


class FlowLog:
    """The flows seen so far. `mark` before an action and `since(mark)` after it frame what belongs to the action."""

    def __init__(self) -> None:
        self.lost = 0  # events that the node itself could not keep
        self.broken = ""  # why no more flows will come
        self._flows: deque[SeenFlow] = deque(maxlen=CAPACITY)
        self._count = 0
        self._arrived = asyncio.Event()
        self._wanted: Timestamp | None = None

    def connect(self) -> None:
        """Ask the node, from now on, for flows: at the start, and again after it was started anew."""
        self._wanted = Timestamp()
        self._wanted.GetCurrentTime()
        self._arrived.set()

    async def wanted(self) -> Timestamp:
        """For the feeder: since when flows are wanted, as soon as they are."""
        while self._wanted is None:
            self._arrived.clear()
            await self._arrived.wait()
        since, self._wanted, self.broken = self._wanted, None, ""
        return since

    def mark(self) -> int:
        return self._count

    def since(self, mark: int) -> list[SeenFlow]:
        """Flows that came after the mark, oldest first."""
        forgotten = self._count - len(self._flows)
        return list(self._flows)[max(0, mark - forgotten) :]

    def append(self, flow: SeenFlow) -> None:
        self._flows.append(flow)
        self._count += 1
        self._arrived.set()

    def fail(self, why: str) -> None:
        self.broken = why
        self._arrived.set()

    async def wait(self, settled: Callable[[], bool], timeout: float) -> bool:
        """Until the condition holds, looked at again whenever flows arrive; whether it does after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not settled() and not self.broken:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass
        return settled()


@asynccontextmanager
async def following(socket: Path) -> AsyncIterator[FlowLog]:
    """A FlowLog that `connect` feeds from the Hubble API on this Unix socket, for as long as the block runs."""
    log = FlowLog()
    async with asyncio.TaskGroup() as tasks:
        feeder = tasks.create_task(_feed(log, socket))
        try:
            yield log
        finally:
            feeder.cancel()


async def _feed(log: FlowLog, socket: Path) -> None:
    while True:
        since = await log.wanted()
        async with grpc.aio.insecure_channel(f"unix://{socket}") as channel:
            stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]  # generated
            await _read(stub.GetFlows(observer_pb2.GetFlowsRequest(follow=True, since=since)), log, socket)


async def _read(call: grpc.aio.UnaryStreamCall, log: FlowLog, socket: Path) -> None:
    try:
        async for response in call:
            if response.HasField("flow"):
                log.append(view(response.flow))
            elif response.HasField("lost_events"):
                log.lost += response.lost_events.num_events_lost
    except grpc.aio.AioRpcError as error:
        log.fail(f"the Hubble API at {socket} failed: {error.code().name} {error.details()}")
    else:
        log.fail(f"the Hubble API at {socket} ended the stream of flows")
