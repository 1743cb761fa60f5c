"""Flows to an OpenTelemetry collector, by OTLP over gRPC: a thread with a bounded queue before it.

A collector that is slow, dead or refuses holds up nobody but this thread. What was not taken is kept and tried again,
at longer and longer intervals, for as long as there is room in the queue; what then comes is dropped, denials last,
and counted.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from flow import flow_pb2
from observer import observer_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.export.admission import admitted
from flows.export.otlp_records import rejected, request

METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
BATCH_EVENTS: Final = 512
BATCH_BYTES: Final = 1 << 19  # as they come; the json of it stays below what collectors take at once (4 MiB)
RECONNECT_MS: Final = 30_000  # between two attempts to connect at most
GATHER: Final = 1.0  # seconds that a batch waits to become full
TIMEOUT: Final = 10.0  # seconds that a collector has to answer (the default of OpenTelemetry's exporters)
FAREWELL: Final = 2.0  # seconds in which a thread that is to end may send what is left
RETRY_FIRST, RETRY_MAX = 1.0, 30.0  # seconds
# OTLP 1.x, failures of gRPC: these may be tried again.
RETRYABLE: Final = frozenset(
    (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
OUTCOMES: Final = ("offered", "sent", "rejected", "failed", "dropped")


@dataclass(frozen=True, slots=True)
class OtlpSpec:
    """`endpoint` is host:port or unix:///path. Filters are serialised. Without `insecure` it is TLS, with the machine's
    authorities if no `ca` is given; `certificate` and `key` go together."""

    endpoint: str
    insecure: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    include: frozenset[bytes] = frozenset()
    exclude: frozenset[bytes] = frozenset()

    def wanted(self) -> observer_pb2.GetFlowsRequest:
        """What is asked of the ring."""
        asked = observer_pb2.GetFlowsRequest(follow=True)
        asked.whitelist.extend(flow_pb2.FlowFilter.FromString(wire) for wire in sorted(self.include))
        asked.blacklist.extend(flow_pb2.FlowFilter.FromString(wire) for wire in sorted(self.exclude))
        return asked

    def channel(self) -> grpc.Channel:
        """Raises OSError if a file cannot be read."""
        options = (("grpc.max_reconnect_backoff_ms", RECONNECT_MS),)
        if self.insecure or self.endpoint.startswith("unix:"):
            return grpc.insecure_channel(self.endpoint, options)
        ca, key, certificate = (
            path.read_bytes() if path is not None else None for path in (self.ca, self.key, self.certificate)
        )
        return grpc.secure_channel(self.endpoint, grpc.ssl_channel_credentials(ca, key, certificate), options)


@dataclass(slots=True)
class OtlpCounts:
    """Once nothing waits, `offered` is the sum of the others."""

    offered: int = 0
    sent: int = 0
    rejected: int = 0  # the collector took the batch but not these
    failed: int = 0  # the collector refused for good, or there was no time left at the end
    dropped: int = 0  # the queue was full
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class OtlpExporter(Collector):
    """`complain` gets one line per series of errors; it is called in the thread."""

    def __init__(self, spec: OtlpSpec, node_name: str, version: str, complain: Callable[[str], None]) -> None:
        """Raises OSError if a file cannot be read."""
        self.spec, self.counts = spec, OtlpCounts()
        self._node_name, self._version, self._complain = node_name, version, complain
        self._channel = spec.channel()
        self._export = self._channel.unary_unary(
            METHOD,
            request_serializer=logs_service_pb2.ExportLogsServiceRequest.SerializeToString,
            response_deserializer=logs_service_pb2.ExportLogsServiceResponse.FromString,
        )
        self._queue: deque[bytes] = deque()
        self._changed = threading.Condition(self.counts.lock)
        self._stop_at: float | None = None  # time.monotonic() when it must have ended
        self._trouble = ""
        self._unsent = 0  # events of the batch that is being sent
        self._thread = threading.Thread(target=self._run, name="export otlp", daemon=True)

    @property
    def trouble(self) -> str:
        """What keeps the collector from taking flows; empty if nothing does."""
        return self._trouble

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def offer(self, responses: Sequence[bytes]) -> None:
        """Take serialised GetFlowsResponses; never blocks."""
        with self._changed:
            taken = admitted(responses, len(self._queue))
            self.counts.offered += len(responses)
            self.counts.dropped += len(responses) - len(taken)
            self._queue.extend(taken)
            self._changed.notify()

    def stop(self) -> None:
        """Send what waits, as far as the collector takes it in FAREWELL seconds, and end."""
        with self._changed:
            self._stop_at = time.monotonic() + FAREWELL
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(FAREWELL + 1.0)
        self._channel.close()

    def _run(self) -> None:
        pause = RETRY_FIRST
        while batch := self._next():
            outcome = self._send(batch)
            if outcome is None and self._wait(pause * random.uniform(0.8, 1.2)):
                with self._changed:
                    self._queue.extendleft(reversed(batch))
                    self._unsent = 0
                pause = min(pause * 2, RETRY_MAX)
            elif outcome is None:
                self._count("failed", len(batch))
            else:
                pause = RETRY_FIRST
        with self._changed:
            self.counts.failed += len(self._queue)
            self._queue.clear()

    def _next(self) -> list[bytes]:
        """The next batch: full, or as old as it may become; none when there is nothing left to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stop_at is not None)
            self._changed.wait_for(lambda: len(self._queue) >= BATCH_EVENTS or self._stop_at is not None, GATHER)
            if not self._queue or (self._stop_at is not None and time.monotonic() >= self._stop_at):
                return []
            batch, size = [self._queue.popleft()], 0
            while self._queue and len(batch) < BATCH_EVENTS and size < BATCH_BYTES:
                batch.append(self._queue.popleft())
                size += len(batch[-1])
            self._unsent = len(batch)
            return batch

    def _wait(self, seconds: float) -> bool:
        """False if there is no time to wait: it is to end."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._stop_at is not None, seconds)

    def _send(self, batch: Sequence[bytes]) -> bool | None:
        """Whether the collector took it; None if it may be tried again."""
        events = [observer_pb2.ExportEvent.FromString(wire) for wire in batch]
        left = TIMEOUT if self._stop_at is None else max(0.1, self._stop_at - time.monotonic())
        try:
            answer = self._export(
                request(events, self._node_name, self._version, time.time_ns()), timeout=min(TIMEOUT, left)
            )
        except grpc.RpcError as error:
            self._fail(error)
            if error.code() in RETRYABLE:
                return None
            self._count("failed", len(batch))
            return False
        except ValueError:  # the channel was closed under us
            return None
        refused = min(len(batch), rejected(answer))
        self._count("rejected", refused)
        self._count("sent", len(batch) - refused)
        self._trouble = ""
        return True

    def _fail(self, error: grpc.RpcError) -> None:
        was_up = not self._trouble
        self._trouble = f"collector {self.spec.endpoint}: {error.code().name}: {error.details()}"
        if was_up:
            self._complain(f"{self._trouble}; trying again")

    def _count(self, outcome: str, events: int) -> None:
        with self.counts.lock:
            self._unsent = max(0, self._unsent - events)
            setattr(self.counts, outcome, getattr(self.counts, outcome) + events)

    def collect(self) -> Iterator[Metric]:
        """What became of the events."""
        events = CounterMetricFamily(
            "deflector_otlp_events", "Events for the collector by what became of them", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            events.add_metric([outcome], getattr(self.counts, outcome))
        yield events
        yield GaugeMetricFamily(
            "deflector_otlp_queue_events", "Events that wait for the collector", value=len(self._queue) + self._unsent
        )
        yield GaugeMetricFamily("deflector_otlp_up", "1 if the collector took the last batch", value=not self._trouble)
