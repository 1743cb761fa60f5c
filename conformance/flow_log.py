"""Follows the flows of a node over the Hubble gRPC API and keeps the latest, flattened.

Bounded: beyond CAPACITY the oldest are forgotten (an index stays valid); what the node itself lost is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import grpc
from flow.flow_pb2 import FlowFilter
from google.protobuf.timestamp_pb2 import Timestamp
from observer import observer_pb2, observer_pb2_grpc

from conformance.flow_view import SeenFlow, view
from flows.channels import Dial, dialled

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

    def connect(self, earlier: int = 0) -> None:
        """Ask for flows from now on: at the start, and again after the node was started anew. `earlier`: seconds by
        which its clock may be behind ours."""
        self._wanted = Timestamp()
        self._wanted.GetCurrentTime()
        self._wanted.seconds -= earlier
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
async def following(dial: Dial, wanted: Sequence[FlowFilter] = ()) -> AsyncIterator[FlowLog]:
    """A FlowLog that `connect` feeds from this Hubble API with flows that one of `wanted` chooses (none: all of them),
    for as long as the block runs."""
    log = FlowLog()
    async with asyncio.TaskGroup() as tasks:
        feeder = tasks.create_task(_feed(log, dial, wanted))
        try:
            yield log
        finally:
            feeder.cancel()


async def _feed(log: FlowLog, dial: Dial, wanted: Sequence[FlowFilter]) -> None:
    while True:
        request = observer_pb2.GetFlowsRequest(follow=True, since=await log.wanted(), whitelist=wanted)
        try:
            async with dialled(dial) as channel:
                stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]  # generated
                await _read(stub.GetFlows(request), log, dial)
        except OSError as error:
            log.fail(f"the Hubble API at {dial} cannot be asked: {error}")


async def _read(call: grpc.aio.UnaryStreamCall, log: FlowLog, dial: Dial) -> None:
    try:
        async for response in call:
            if response.HasField("flow"):
                log.append(view(response.flow))
            elif response.HasField("lost_events"):
                log.lost += response.lost_events.num_events_lost
    except grpc.aio.AioRpcError as error:
        log.fail(f"the Hubble API at {dial} failed: {error.code().name} {error.details()}")
    else:
        log.fail(f"the Hubble API at {dial} ended the stream of flows")
