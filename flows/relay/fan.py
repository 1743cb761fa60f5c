"""One GetFlows of all nodes at once: streams are opened, merged, and opened again; what happens to nodes is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import grpc
import grpc.aio
from observer import observer_pb2
from relay import relay_pb2

from flows.relay.merge import Merger
from flows.relay.peers import Peer
from flows.relay.pool import Pool, is_cancelled

RELIST: Final = 2.0  # seconds; while following, how often it is looked for new nodes, and failed ones are tried again
ERRORS_EVERY: Final = 10.0  # seconds; errors of nodes are gathered for so long
UNREAD_MAX: Final = 256  # responses that wait to be merged; then nodes have to wait
CLOSED: Final = "the connection was closed: the node has gone"
METHOD: Final = "/observer.Observer/GetFlows"

Item = tuple[Peer, bytes | str | None]  # a response, the reason why the stream broke, or its end
Metadata = Sequence[tuple[str, str]]


class Fan:
    """What one client asked for. `name` is the relay's own, for the events that it tells of itself."""

    def __init__(self, pool: Pool, request: observer_pb2.GetFlowsRequest, name: str, metadata: Metadata = ()) -> None:
        self._pool, self._request, self._name, self._metadata = pool, request, name, metadata
        self._items: asyncio.Queue[Item] = asyncio.Queue(UNREAD_MAX)
        self._streams: dict[Peer, asyncio.Task[None]] = {}
        self._merger = Merger()
        self._last: dict[str, int] = {}  # node -> time in ns of the last flow that it has sent
        self._told: dict[Peer, int] = {}  # the state that was told last
        self._errors: dict[str, set[str]] = {}
        self._errors_due = 0.0

    async def batches(self) -> AsyncGenerator[list[bytes], None]:
        """Serialised responses, until every node has ended; for ever when the request follows."""
        async with asyncio.TaskGroup() as group:
            try:
                yield await self._list(group)
                async with aclosing(self._merged(group)) as merged:
                    async for batch in merged:
                        yield batch
            finally:
                for task in self._streams.values():
                    task.cancel()

    async def _merged(self, group: asyncio.TaskGroup) -> AsyncGenerator[list[bytes], None]:
        follow, listed = self._request.follow, time.monotonic()
        while follow or self._streams or len(self._merger):
            await self._gather(listed + RELIST if follow else None)
            now = time.monotonic()
            batch = [*self._merger.ready(now), *self._due_errors(now, is_last=False)]
            if follow and now >= listed + RELIST:
                listed = now
                batch += await self._list(group)
            if batch:
                yield batch
        if last := self._due_errors(time.monotonic(), is_last=True):
            yield last

    async def _gather(self, until: float | None) -> None:
        """Take what came, waiting for it no longer than something else is due."""
        now = time.monotonic()
        waits = [wait for wait in (self._merger.wait(now), until - now if until else None) if wait is not None]
        try:
            async with asyncio.timeout(max(0.0, min(waits)) if waits else None):
                self._take(await self._items.get())
        except TimeoutError:
            return
        while not self._items.empty():
            self._take(self._items.get_nowait())

    def _take(self, item: Item) -> None:
        peer, what = item
        if isinstance(what, bytes):
            sent = observer_pb2.GetFlowsResponse.FromString(what)
            at = sent.time.seconds * 1_000_000_000 + sent.time.nanos
            if sent.HasField("flow"):
                self._last[peer.name] = at
            self._merger.push(peer.name, at, what, time.monotonic())
            return
        self._merger.close(peer.name)
        self._streams.pop(peer, None)
        if what:
            self._errors.setdefault(what, set()).add(peer.name)
            self._errors_due = self._errors_due or time.monotonic() + ERRORS_EVERY

    async def _list(self, group: asyncio.TaskGroup) -> list[bytes]:
        """Open the streams that are not open; the events that tell what changed since the last time."""
        up, down = await self._pool.connected()
        for peer, connected in up.items():
            if peer not in self._streams:
                self._merger.open(peer.name)
                self._streams[peer] = group.create_task(self._read(peer, connected))
        now = dict.fromkeys(up, relay_pb2.NODE_CONNECTED) | dict.fromkeys(down, relay_pb2.NODE_UNAVAILABLE)
        for peer in self._streams.keys() - up.keys() - down.keys():
            self._streams.pop(peer).cancel()
            self._merger.close(peer.name)
        gone = dict.fromkeys(self._told.keys() - now.keys(), relay_pb2.NODE_GONE)
        changes = {peer: state for peer, state in {**now, **gone}.items() if self._told.get(peer) != state}
        self._told = dict(now)
        return self._state_events(changes)

    async def _read(self, peer: Peer, connected: grpc.aio.Channel) -> None:
        request = self._request_of(peer).SerializeToString()
        call = connected.unary_stream(METHOD)(request, metadata=tuple(self._metadata))
        reason: str | None = None
        try:
            async for response in call:
                await self._items.put((peer, response))
        except grpc.aio.AioRpcError as error:
            reason = error.details() or error.code().name
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if is_cancelled():
                raise
            reason = CLOSED
        await self._items.put((peer, reason))

    def _request_of(self, peer: Peer) -> observer_pb2.GetFlowsRequest:
        """What to ask a node for; one that comes back, for what it has not sent before."""
        last = self._last.get(peer.name)
        if last is None:
            return self._request
        request = observer_pb2.GetFlowsRequest()
        request.CopyFrom(self._request)
        request.number = 0
        request.since.FromNanoseconds(last + 1)
        return request

    def _state_events(self, changes: Mapping[Peer, int]) -> list[bytes]:
        names: dict[int, list[str]] = {}
        for peer, state in changes.items():
            names.setdefault(state, []).append(peer.name)
        return [self._event(state, sorted(found)) for state, found in sorted(names.items())]

    def _due_errors(self, now: float, *, is_last: bool) -> list[bytes]:
        if not self._errors or (now < self._errors_due and not is_last):
            return []
        errors, self._errors, self._errors_due = self._errors, {}, 0.0
        return [self._event(relay_pb2.NODE_ERROR, sorted(names), text) for text, names in sorted(errors.items())]

    def _event(self, state: int, names: Sequence[str], message: str = "") -> bytes:
        status = relay_pb2.NodeStatusEvent(
            state_change=relay_pb2.NodeState.Name(state), node_names=names, message=message
        )
        sent = observer_pb2.GetFlowsResponse(node_status=status, node_name=self._name)
        sent.time.GetCurrentTime()
        wire: bytes = sent.SerializeToString()
        return wire
