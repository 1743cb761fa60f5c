"""A thread that makes lines of responses and writes them: slow disks and full ones hold up nobody but it.

The queue before it is bounded; what does not fit is dropped, denials last, and counted. After an error the writer
tries again with what comes next, at longer and longer intervals.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from flow import flow_pb2
from observer import observer_pb2

from flows.export.admission import admitted
from flows.export.aggregate import Aggregator
from flows.export.config import ExporterSpec
from flows.export.files import Sink, open_sink
from flows.jsonpb import to_json

RETRY_FIRST, RETRY_MAX = 1.0, 60.0  # seconds after an error until the sink is tried again
REST_MAX: Final = 1.0  # seconds
IDLE: Final = 1.0  # seconds; how often an aggregating writer looks at the clock at least


@dataclass(slots=True)
class Counts:
    """What became of the events that were offered: once nothing waits, `offered` is the sum of the others.
    The lines of counts themselves are not among them."""

    offered: int = 0
    written: int = 0
    dropped: int = 0  # the queue was full
    failed: int = 0  # the sink could not take them
    ended: int = 0  # they came after the exporter's end
    aggregated: int = 0  # they became a part of a count
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class Writer:
    """One exporter's thread. `complain` gets one line per series of errors; it is called in the thread.

    `rest` says for how many seconds the thread should leave the CPU to others after so many seconds of work: lines cost
    more than flows do.
    """

    def __init__(
        self,
        spec: ExporterSpec,
        complain: Callable[[str], None],
        *,
        open_sink: Callable[[], Sink] | None = None,
        rest: Callable[[float], float] = lambda worked: 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.spec = spec
        self.counts = Counts()
        self._complain, self._monotonic, self._unix_ns = complain, monotonic, unix_ns
        self._rest = rest
        self._open = open_sink or (lambda: _open(spec))
        self._queue: queue.Queue[Sequence[bytes] | None] = queue.Queue()
        self._waiting = 0
        self._stopping = threading.Event()
        self._sink: Sink | None = None
        self._retry_at, self._retry_after = 0.0, RETRY_FIRST
        self._trouble = ""
        self._aggregator = Aggregator(spec.aggregate) if spec.aggregates else None
        self._flush_at = monotonic() + spec.interval
        self._thread = threading.Thread(target=self._run, name=f"export {spec.name}", daemon=True)

    @property
    def trouble(self) -> str:
        """What keeps it from writing now; empty if nothing does."""
        return self._trouble

    @property
    def has_ended(self) -> bool:
        """Whether its end has passed: it stays configured and writes nothing."""
        return self.spec.end is not None and self._unix_ns() > self.spec.end

    def start(self) -> None:
        """Open the sink, so that a bad path is an error at once (OSError), and begin."""
        self._sink = self._open()
        self._thread.start()

    def offer(self, responses: Sequence[bytes]) -> None:
        """Take serialised GetFlowsResponses; never blocks."""
        with self.counts.lock:
            taken = admitted(responses, self._waiting)
            self.counts.offered += len(responses)
            self.counts.dropped += len(responses) - len(taken)
            self._waiting += len(taken)
        if taken:
            self._queue.put(taken)

    def stop(self, timeout: float = 5.0) -> None:
        """Write what waits, and end; what could not be written within `timeout` seconds is left."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            try:
                batch = self._queue.get(timeout=self._wait())
            except queue.Empty:
                batch = ()
            if batch is None:
                break
            began = self._monotonic()
            self._take(batch)
            self._flush_if_due()
            if batch:
                self._stopping.wait(min(REST_MAX, self._rest(self._monotonic() - began)))
        self._flush()
        if self._sink is not None:
            self._sink.close()

    def _wait(self) -> float | None:
        return max(0.0, min(IDLE, self._flush_at - self._monotonic())) if self._aggregator is not None else None

    def _take(self, responses: Sequence[bytes]) -> None:
        with self.counts.lock:
            self._waiting -= len(responses)
        events = (observer_pb2.ExportEvent.FromString(wire) for wire in responses)
        single = [event for event in events if not self._aggregated(event)]
        self._count("aggregated", len(responses) - len(single))
        self._write(single)

    def _aggregated(self, event: observer_pb2.ExportEvent) -> bool:
        """Whether the event is now part of a count; losses are written as they are."""
        return self._aggregator is not None and event.HasField("flow") and self._aggregator.take(event.flow)

    def _flush_if_due(self) -> None:
        if self._aggregator is not None and self._monotonic() >= self._flush_at:
            self._flush_at = self._monotonic() + self.spec.interval
            self._flush()

    def _flush(self) -> None:
        if self._aggregator is not None:
            self._write([_aggregate_event(flow) for flow in self._aggregator.flush()], is_counted=False)

    def _write(self, events: Sequence[observer_pb2.ExportEvent], is_counted: bool = True) -> None:
        if not events:
            return
        outcome = "ended" if self.has_ended else self._write_out(events)
        if is_counted:
            self._count(outcome, len(events))

    def _write_out(self, events: Sequence[observer_pb2.ExportEvent]) -> str:
        if self._sink is None and self._monotonic() < self._retry_at:
            return "failed"
        try:
            if self._sink is None:
                self._sink = self._open()
            self._sink.write([to_json(event).encode(errors="replace") + b"\n" for event in events])
        except OSError as error:
            self._fail(error)
            return "failed"
        self._retry_after, self._trouble = RETRY_FIRST, ""
        return "written"

    def _fail(self, error: OSError) -> None:
        self._trouble = f"exporter {self.spec.name}: {self.spec.file.path}: {error.strerror or error}"
        if self._retry_after == RETRY_FIRST:
            self._complain(f"{self._trouble}; what comes meanwhile is dropped")
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        self._retry_at = self._monotonic() + self._retry_after
        self._retry_after = min(self._retry_after * 2, RETRY_MAX)

    def _count(self, outcome: str, events: int) -> None:
        with self.counts.lock:
            setattr(self.counts, outcome, getattr(self.counts, outcome) + events)


def _open(spec: ExporterSpec) -> Sink:
    return open_sink(spec.file, lambda: datetime.now(UTC))


def _aggregate_event(flow: flow_pb2.Flow) -> observer_pb2.ExportEvent:
    event = observer_pb2.ExportEvent(flow=flow)
    if event.flow.HasField("time"):
        event.time.CopyFrom(event.flow.time)
    event.node_name = event.flow.node_name
    return event
