"""The ADS service on grpc.aio: streams in, sessions and consumers behind them. The agent owns the gRPC server and
registers the servicer on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

import grpc
from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3 import ads_pb2_grpc

from xds.consumer import Closed, Consumer, Stream
from xds.session import DeltaSession, SotwSession

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 10.0  # a client that reads nothing for so long is disconnected

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class AdsServicer(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Serves the proxies of the node with this id, both protocols; others are refused. Which proxy asks, the cluster of
    its first request says: `consumers` by cluster."""

    def __init__(
        self, node_id: str, consumers: Mapping[str, Consumer], *, write_timeout_s: float = WRITE_TIMEOUT_S
    ) -> None:
        self._node_id = node_id
        self._consumers = consumers
        self._write_timeout_s = write_timeout_s

    async def StreamAggregatedResources(self, requests: Any, context: Context) -> None:
        """State of the world."""
        await self._serve(Stream(SotwSession(None)), context)

    async def DeltaAggregatedResources(self, requests: Any, context: Context) -> None:
        """Delta."""
        await self._serve(Stream(DeltaSession(None)), context)

    async def _serve(self, stream: Stream, context: Context) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(stream, context))
                group.create_task(self._read(stream, context))
        except* Closed as group_of_one:
            reason = _first(group_of_one)
        finally:
            stream.queue.clear()  # who does not read does not read the end of it either: the call may linger
        if reason.code is not grpc.StatusCode.OK:
            log.warning("closed a stream of %s: %s", self._node_id, reason.text)
            await context.abort(reason.code, reason.text)

    async def _read(self, stream: Stream, context: Context) -> NoReturn:
        request = await context.read()
        if request is grpc.aio.EOF:
            raise Closed
        consumer = self._consumer(request.node)
        consumer.adopt(stream)
        try:
            while request is not grpc.aio.EOF:
                consumer.asked(stream, request)
                request = await context.read()
            raise Closed
        finally:
            consumer.forget(stream)

    def _consumer(self, node: Node) -> Consumer:
        if node.id != self._node_id:
            raise Closed(grpc.StatusCode.PERMISSION_DENIED, f"node id {node.id!r} is not {self._node_id!r}")
        consumer = self._consumers.get(node.cluster)
        if consumer is None:
            known = ", ".join(map(repr, sorted(self._consumers)))
            raise Closed(grpc.StatusCode.PERMISSION_DENIED, f"node cluster {node.cluster!r} is none of {known}")
        return consumer

    async def _write(self, stream: Stream, context: Context) -> NoReturn:
        while True:
            await stream.wake.wait()
            stream.wake.clear()
            while stream.queue and not stream.closed:
                try:
                    async with asyncio.timeout(self._write_timeout_s):
                        await context.write(stream.queue.popleft())
                except TimeoutError:
                    text = f"nothing was read for {self._write_timeout_s:g} s"
                    raise Closed(grpc.StatusCode.DEADLINE_EXCEEDED, text) from None
            if stream.closed:
                raise stream.closed


def _first(group: BaseExceptionGroup[Closed]) -> Closed:
    """Of the tasks of a stream the first to end tells why."""
    inner = group.exceptions[0]
    return inner if isinstance(inner, Closed) else _first(inner)
