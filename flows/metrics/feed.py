"""Flows for the metrics: one more reader of the ring, which counts what it sees and what it missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from flow import flow_pb2
from observer import observer_pb2
from prometheus_client import CollectorRegistry, Counter

from flows.metrics.config import MetricsConfig
from flows.metrics.counting import Counting
from flows.reading import Reading, compile_request

Follow = Callable[[Reading], AsyncGenerator[list[bytes], None]]
ALL: Final = observer_pb2.GetFlowsRequest(follow=True)
AT_ONCE: Final = 64  # flows that are counted before others get their turn
KERNEL: Final = "perf_event_ring_buffer"
SOURCES: Final = (KERNEL, "observer_events_queue", "hubble_ring_buffer")


class MetricsFeed:
    """`follow` reads from the ring. Without a metric that is configured nothing is read."""

    def __init__(self, registry: CollectorRegistry, follow: Follow, complain: Callable[[str], None]) -> None:
        self.counting = Counting(registry, complain)
        self._follow, self._complain = follow, complain
        self._configured = asyncio.Event()
        self._lost = Counter("hubble_lost_events_total", "Number of lost events", ("source",), registry=registry)
        for source in SOURCES:
            self._lost.labels(source)

    def configure(self, config: MetricsConfig) -> None:
        """Have these metrics from now on. Raises MetricsConfigError and then changes nothing."""
        self.counting.configure(config)
        for warning in config.warnings:
            self._complain(warning)
        if not self.counting.is_idle:
            self._configured.set()

    def lost(self, count: int) -> None:
        """The kernel has lost events: told here, so that it is counted also when nothing is read."""
        self._lost.labels(KERNEL).inc(count)

    async def run(self) -> None:
        """Never ends."""
        await self._configured.wait()
        async with aclosing(self._follow(compile_request(ALL))) as batches:
            async for batch in batches:
                for number, wire in enumerate(batch, 1):
                    self._take(observer_pb2.GetFlowsResponse.FromString(wire))
                    if number % AT_ONCE == 0:
                        await asyncio.sleep(0)

    def _take(self, sent: observer_pb2.GetFlowsResponse) -> None:
        if sent.HasField("flow"):
            self.counting.take(sent.flow)
        elif sent.HasField("lost_events"):
            lost = sent.lost_events
            if lost.source != flow_pb2.PERF_EVENT_RING_BUFFER:
                self._lost.labels(flow_pb2.LostEventSource.Name(lost.source).lower()).inc(lost.num_events_lost)
