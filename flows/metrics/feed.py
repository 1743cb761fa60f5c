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


class MetricsFeed:
    """`follow` reads from the ring. Without a metric that is configured nothing is read."""

    def __init__(self, registry: CollectorRegistry, follow: Follow, complain: Callable[[str], None]) -> None:
        self.counting = Counting(registry, complain)
        self._follow, self._complain = follow, complain
        self._configured = asyncio.Event()
        self._lost = Counter("hubble_lost_events_total", "Number of lost events", ("source",), registry=registry)
        for source in ("perf_event_ring_buffer", "observer_events_queue", "hubble_ring_buffer"):
            self._lost.labels(source)

    def configure(self, config: MetricsConfig) -> None:
        """Have these metrics from now on. Raises MetricsConfigError and then changes nothing."""
        self.counting.configure(config)
        for warning in config.warnings:
            self._complain(warning)
        if not self.counting.is_idle:
            self._configured.set()

    async def run(self) -> None:
        """Never ends."""
        await self._configured.wait()
        async with aclosing(self._follow(compile_request(ALL))) as batches:
            async for batch in batches:
                for wire in batch:
                    self._take(observer_pb2.GetFlowsResponse.FromString(wire))

    def _take(self, sent: observer_pb2.GetFlowsResponse) -> None:
        if sent.HasField("flow"):
            self.counting.take(sent.flow)
        elif sent.HasField("lost_events"):
            lost = sent.lost_events
            source = flow_pb2.LostEventSource.Name(lost.source).lower()
            self._lost.labels(source).inc(lost.num_events_lost)
