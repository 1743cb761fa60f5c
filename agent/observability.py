"""What a node tells machines: metrics on a page, flows in files. Made from the configuration, fed from the ring."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from agent.errors import EnvironmentProblem
from agent.supervise import Tasks
from flows.dynamic import DynamicFile
from flows.export import config as export_config
from flows.export.config import ExportConfigError, ExporterSpec
from flows.export.exporters import Exporters
from flows.metrics import config as metrics_config
from flows.metrics.config import MetricsConfigError
from flows.metrics.endpoint import MetricsServeError, MetricsServer
from flows.metrics.feed import MetricsFeed
from flows.reading import Reading
from policies.objects import PodKey

EXPORTERS_EVERY: Final = 5.0  # seconds between two looks at the exporters' file, as in Hubble
METRICS_EVERY: Final = 10.0  # ... and at that of the metrics
POD_REST: Final = 60.0  # seconds that the series of a pod outlive it
FORGET_EVERY: Final = 5.0  # seconds between two looks at pods that are gone

log = logging.getLogger("deflector.observability")


@dataclass(frozen=True, slots=True)
class ObservabilityConfig:
    """`metrics` is Hubble's one-line form; `exporter` is the static one."""

    metrics_address: str = ""  # "": no page
    metrics: str = ""
    metrics_file: Path | None = None
    openmetrics: bool = False
    exporter: ExporterSpec | None = None
    exporters_file: Path | None = None


class Observability:
    """The parts, checked as they are made: raises EnvironmentProblem for what a person has to correct."""

    def __init__(
        self,
        config: ObservabilityConfig,
        follow: Callable[[Reading], AsyncGenerator[list[bytes], None]],
        collectors: Collection[Collector],
    ) -> None:
        self._config = config
        self._registry = CollectorRegistry()
        self._feed = MetricsFeed(self._registry, follow, log.warning)
        self._exporters = Exporters(follow, log.warning, time.time)
        self._pods: frozenset[PodKey] = frozenset()
        self._resting: dict[PodKey, float] = {}
        for collector in (self._exporters, *collectors):
            self._registry.register(collector)
        try:
            if config.metrics and config.metrics_file is not None:
                raise EnvironmentProblem("--hubble-metrics and its file exclude each other: configure one of them")
            self._feed.configure(metrics_config.parse_line(config.metrics))
            self._server = self._make_server()
        except (MetricsConfigError, MetricsServeError) as error:
            raise EnvironmentProblem(str(error)) from None

    def _make_server(self) -> MetricsServer | None:
        address = self._config.metrics_address
        return MetricsServer(address, self._registry, self._config.openmetrics) if address else None

    def start(self, tasks: Tasks) -> None:
        """Serve and write from now on."""
        config = self._config
        if self._server is not None:
            self._server.start()
        tasks.start("metrics", self._feed.run())
        tasks.start("metrics of pods that are gone", self._forget_pods())
        if config.metrics_file is not None:
            file = DynamicFile(config.metrics_file, self._apply_metrics, log.warning)
            tasks.start("metrics file", file.follow(METRICS_EVERY))
        tasks.start("exporters", self._exporters.run())
        self._configure_exporters(())
        if config.exporters_file is not None:
            file = DynamicFile(config.exporters_file, self._apply_exporters, log.warning)
            tasks.start("exporters file", file.follow(EXPORTERS_EVERY))

    def stop(self) -> None:
        """Serve no more. The tasks are their supervisor's."""
        if self._server is not None:
            self._server.stop()

    def take_pods(self, pods: Collection[PodKey]) -> None:
        """The pods that there are now: series of those that are gone go a minute after them."""
        now, known = time.monotonic(), frozenset(pods)
        self._resting |= dict.fromkeys(sorted(self._pods - known), now)
        self._pods = known
        for key in self._resting.keys() & known:
            del self._resting[key]

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
        try:
            self._configure_exporters(export_config.parse_file(document))
        except ExportConfigError:
            self._exporters.refused()
            raise

    def _configure_exporters(self, dynamic: tuple[ExporterSpec, ...]) -> None:
        static = (self._config.exporter,) if self._config.exporter is not None else ()
        if static and any(spec.name == static[0].name for spec in dynamic):
            raise ExportConfigError(f'flowLogs: the name "{static[0].name}" is that of the command line\'s exporter')
        self._exporters.configure((*static, *dynamic))
