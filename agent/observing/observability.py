"""What a node tells machines: metrics on a page, flows in files and to a collector. Made from the configuration, fed
from the ring. None of it holds up traffic, and none of it ends the node when it fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from agent.config import ObservabilityConfig
from agent.errors import EnvironmentProblem
from agent.supervise import Tasks
from flows.dynamic import DynamicFile
from flows.export import config as export_config
from flows.export.config import ExportConfigError, ExporterSpec
from flows.export.exporters import Exporters
from flows.export.otlp import OtlpExporter
from flows.metrics import config as metrics_config
from flows.metrics.config import MetricsConfigError
from flows.metrics.endpoint import MetricsServeError, MetricsServer
from flows.metrics.feed import MetricsFeed
from flows.reading import Reading, compile_request
from policies.compiling.changes import changed_keys
from policies.objects import Pod, PodKey

EXPORTERS_EVERY: Final = 5.0  # seconds between two looks at the exporters' file, as in Hubble
METRICS_EVERY: Final = 10.0  # ... and at that of the metrics
POD_REST: Final = 60.0  # seconds that the series of a pod outlive it
FORGET_EVERY: Final = 5.0  # seconds between two looks at pods that are gone

Follow = Callable[[Reading], AsyncGenerator[list[bytes], None]]
log = logging.getLogger("deflector.observability")


class Observability:
    """The parts, checked as they are made: raises EnvironmentProblem for what a person has to correct.

    `about` is the name and the version of the node; `collectors` are shown on the page too; `rest` says how long who
    worked on flows leaves the CPU to what comes in (flows.pace).
    """

    def __init__(
        self,
        config: ObservabilityConfig,
        about: tuple[str, str],
        follow: Follow,
        collectors: Collection[Collector] = (),
        *,
        rest: Callable[[float], float] = lambda worked: 0.0,
    ) -> None:
        self._config, self._follow = config, follow
        self.registry = CollectorRegistry()
        self._feed = MetricsFeed(self.registry, follow, log.warning)
        self._exporters = Exporters(follow, log.warning, time.time, rest)
        self._otlp = self._make_otlp(*about)
        self._pods: Mapping[PodKey, Pod] = {}
        self._resting: dict[PodKey, float] = {}
        for collector in (self._exporters, *([self._otlp] if self._otlp else []), *collectors):
            self.registry.register(collector)
        try:
            if config.metrics and config.metrics_file is not None:
                raise EnvironmentProblem(
                    "--hubble-metrics and --hubble-dynamic-metrics-config-path exclude each other: give one"
                )
            self._feed.configure(metrics_config.parse_line(config.metrics))
            self._server = self._make_server()
        except MetricsConfigError as error:
            raise EnvironmentProblem(f"--hubble-metrics: {error}") from None
        except MetricsServeError as error:
            raise EnvironmentProblem(f"{error} (--hubble-metrics-server)") from None

    @property
    def port(self) -> int | None:
        """The port of the page, if there is one."""
        return self._server.port if self._server is not None else None

    @property
    def troubles(self) -> list[str]:
        """A line for each exporter or collector that takes nothing now."""
        return [*self._exporters.troubles, *([self._otlp.trouble] if self._otlp and self._otlp.trouble else [])]

    def _make_server(self) -> MetricsServer | None:
        address = self._config.metrics_address
        return MetricsServer(address, self.registry, self._config.openmetrics) if address else None

    def _make_otlp(self, node_name: str, version: str) -> OtlpExporter | None:
        if self._config.otlp is None:
            return None
        try:
            return OtlpExporter(self._config.otlp, node_name, version, log.warning)
        except OSError as error:
            raise EnvironmentProblem(f"--hubble-export-otlp-endpoint: {error.filename}: {error.strerror}") from None

    def start(self, tasks: Tasks) -> None:
        """Serve and write from now on."""
        config = self._config
        if self._server is not None:
            self._server.start()
            tasks.start("metrics", _survived("metrics", self._feed.run()))
            tasks.start("metrics of pods that are gone", self._forget_pods())
            if config.metrics_file is not None:
                file = DynamicFile(config.metrics_file, self._apply_metrics, log.warning)
                tasks.start("metrics file", file.follow(METRICS_EVERY))
        tasks.start("exporters", _survived("exporters", self._exporters.run()))
        self._configure_exporters(())
        if config.exporters_file is not None:
            file = DynamicFile(config.exporters_file, self._apply_exporters, self._refuse_exporters)
            tasks.start("exporters file", file.follow(EXPORTERS_EVERY))
        if self._otlp is not None:
            self._otlp.start()
            tasks.start("collector", _survived("collector", self._feed_collector(self._otlp)))

    async def stop(self) -> None:
        """Serve no more, and send what is left. The tasks are their supervisor's."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
        if self._otlp is not None:
            await asyncio.to_thread(self._otlp.stop)

    def lost(self, count: int) -> None:
        """The kernel has lost events."""
        self._feed.lost(count)

    def take_pods(self, pods: Mapping[PodKey, Pod]) -> None:
        """The pods that there are now: series of those that are gone, or over, go a minute after them."""
        now, before = time.monotonic(), self._pods
        self._pods = pods
        for key in sorted(changed_keys(before, pods)):
            if (pod := pods.get(key)) is None or pod.is_over:
                self._resting.setdefault(key, now)
            else:
                self._resting.pop(key, None)

    async def _feed_collector(self, otlp: OtlpExporter) -> None:
        async with aclosing(self._follow(compile_request(otlp.spec.wanted()))) as batches:
            async for batch in batches:
                otlp.offer(batch)

    async def _forget_pods(self) -> None:
        """Look now and then for pods that have rested long enough. Never ends."""
        while True:
            await asyncio.sleep(FORGET_EVERY)
            oldest = time.monotonic() - POD_REST
            for key, since in list(self._resting.items()):
                if since <= oldest:
                    del self._resting[key]
                    self._feed.counting.forget_pod(key.namespace, key.name)

    def _apply_metrics(self, document: Any) -> None:
        self._feed.configure(metrics_config.parse_file(document))

    def _apply_exporters(self, document: Any) -> None:
        self._configure_exporters(export_config.parse_file(document))

    def _refuse_exporters(self, line: str) -> None:
        self._exporters.refused()
        log.warning("%s", line)

    def _configure_exporters(self, dynamic: tuple[ExporterSpec, ...]) -> None:
        static = (self._config.exporter,) if self._config.exporter is not None else ()
        for spec in dynamic:
            for own in static:
                if spec.name == own.name:
                    raise ExportConfigError(f'flowLogs: the name "{own.name}" is that of the command line\'s exporter')
                if spec.file.path == own.file.path:
                    raise ExportConfigError(f"flowLogs: {own.file.path} is written by the command line's exporter")
        self._exporters.configure((*static, *dynamic))


async def _survived(what: str, work: Coroutine[Any, Any, None]) -> None:
    """A fault of ours in what only watches must not end what enforces."""
    try:
        await work
    except Exception:
        log.exception("internal error: %s have ended, everything else goes on", what)
