"""The exporters of a node: which run, what changes when the configuration does, and how they fare."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.export.config import ExporterSpec
from flows.export.writer import Writer
from flows.reading import Reading, compile_request

Follow = Callable[[Reading], AsyncGenerator[list[bytes], None]]
OPERATIONS: Final = ("add", "update", "remove", "failure")


class Exporters(Collector):
    """Follows the flows for each exporter. `configure` may be called at any time; `run` does the work.

    A change of one exporter leaves the others alone; one that cannot be started leaves its predecessor in place.
    """

    def __init__(
        self,
        follow: Follow,
        complain: Callable[[str], None],
        now: Callable[[], float],
        rest: Callable[[float], float] = lambda worked: 0.0,
    ) -> None:
        """`follow` reads from the ring, `now` gives Unix time in seconds; `rest` as in Writer."""
        self._follow, self._complain, self._now, self._rest = follow, complain, now, rest
        self._wanted: dict[str, ExporterSpec] = {}
        self._running: dict[str, tuple[Writer, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()
        self._operations = dict.fromkeys(OPERATIONS, 0)
        self._applied_at = 0.0

    def configure(self, specs: Iterable[ExporterSpec]) -> None:
        """Have these exporters from now on."""
        self._wanted = {spec.name: spec for spec in specs}
        self._changed.set()

    def refused(self) -> None:
        """A configuration could not be used: everything stays."""
        self._operations["failure"] += 1

    async def run(self) -> None:
        """Until cancelled; then everything that waits is written."""
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    await self._apply(group)
            finally:
                await asyncio.gather(*(self._stop(name) for name in list(self._running)))

    async def _apply(self, group: asyncio.TaskGroup) -> None:
        for name in sorted(self._running.keys() - self._wanted.keys()):
            await self._stop(name)
            self._operations["remove"] += 1
        for name, spec in sorted(self._wanted.items()):
            known = self._running.get(name)
            if known is None or known[0].spec != spec:
                await self._start(spec, group)
        self._applied_at = self._now()

    async def _start(self, spec: ExporterSpec, group: asyncio.TaskGroup) -> None:
        writer = Writer(spec, self._complain, rest=self._rest)
        try:
            await asyncio.to_thread(writer.start)
        except OSError as error:
            self._operations["failure"] += 1
            self._complain(f"exporter {spec.name}: {spec.file.path}: {error.strerror or error}; not started")
            return
        self._operations["update" if spec.name in self._running else "add"] += 1
        if spec.name in self._running:
            await self._stop(spec.name)
        task = group.create_task(self._feed(writer), name=f"export {spec.name}")
        self._running[spec.name] = (writer, task)

    async def _feed(self, writer: Writer) -> None:
        async with aclosing(self._follow(compile_request(writer.spec.request()))) as batches:
            async for batch in batches:
                writer.offer(batch)

    async def _stop(self, name: str) -> None:
        writer, task = self._running.pop(name)
        task.cancel()
        await asyncio.to_thread(writer.stop)

    @property
    def troubles(self) -> list[str]:
        """A line for each that cannot write now."""
        return [writer.trouble for _, (writer, _) in sorted(self._running.items()) if writer.trouble]

    def collect(self) -> Iterator[Metric]:
        """Hubble's metrics of dynamic exporters, and what became of the events of each."""
        running = {name: writer for name, (writer, _) in sorted(dict(self._running).items())}
        total = GaugeMetricFamily("hubble_dynamic_exporter_exporters_total", "Configured exporters", labels=["status"])
        up = GaugeMetricFamily("hubble_dynamic_exporter_up", "Whether an exporter writes", labels=["name"])
        ended = [writer.has_ended for writer in running.values()]
        total.add_metric(["active"], ended.count(False))
        total.add_metric(["inactive"], ended.count(True))
        for name, writer in running.items():
            up.add_metric([name], 0 if writer.has_ended or writer.trouble else 1)
        yield total
        yield up
        changes = CounterMetricFamily("hubble_dynamic_exporter_reconfigurations", "Changes of exporters", labels=["op"])
        for operation, count in self._operations.items():
            changes.add_metric([operation], count)
        yield changes
        digest = hashlib.sha256(repr(sorted(self._wanted.items())).encode()).digest()
        yield GaugeMetricFamily(
            "hubble_dynamic_exporter_config_hash",
            "Hash of the exporters' configuration",
            value=int.from_bytes(digest[:6]),
        )
        yield GaugeMetricFamily(
            "hubble_dynamic_exporter_config_last_applied",
            "Unix time of the last change of exporters",
            value=self._applied_at,
        )
        events = CounterMetricFamily(
            "deflector_exporter_events", "Events by what became of them", labels=["name", "outcome"]
        )
        for name, writer in running.items():
            for outcome in ("offered", "written", "aggregated", "dropped", "failed", "ended"):
                events.add_metric([name, outcome], getattr(writer.counts, outcome))
        yield events
