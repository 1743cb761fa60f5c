"""The parts of an agent that see flows, in a process of their own, with everything on that reads them.

    python -m benchmarks.flood_node FOLDER

Serves FOLDER/xds.sock (access log) and FOLDER/hubble.sock; keeps metrics, and writes all flows and the denials into
two files. Each line on stdin is answered with a JSON object on stdout; the end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc.aio
from flow import flow_pb2
from prometheus_client import CollectorRegistry

from agent.cli.run import SWITCH_SECONDS
from agent.supervise import Tasks
from benchmarks.intake import Town
from flows.accesslog.server import AccessLogService
from flows.export.config import ExporterSpec, FileSpec
from flows.export.exporters import Exporters
from flows.metrics.config import parse_line
from flows.metrics.feed import MetricsFeed
from flows.observer import Observer
from flows.server import start

LABELS = "labelsContext=source_namespace,source_workload,destination_namespace,destination_workload,traffic_direction"
METRICS = (
    f"dns drop:{LABELS} tcp flow:sourceContext=workload-name|reserved-identity port-distribution icmp "
    f"httpV2:exemplars=true;{LABELS} policy:sourceContext=app;destinationContext=app"
)
DENIED = flow_pb2.FlowFilter(verdict=[flow_pb2.DROPPED]).SerializeToString()


class Readings:
    """What is asked for on stdin."""

    def __init__(self, observer: Observer, registry: CollectorRegistry, service: AccessLogService) -> None:
        self._observer, self._registry, self._service = observer, registry, service

    def document(self) -> dict[str, Any]:
        families = {family.name: family for family in self._registry.collect()}
        return {
            "ring": asdict(self._observer.account()),
            "readers": [asdict(account) for account in self._observer.reader_accounts()],
            "malformed": self._observer.malformed,
            "messages": self._service.messages,
            "drops_counted": _total(families["hubble_drop"]),
            "flows_counted": _total(families["hubble_flows_processed"]),
            "exporters": {
                f"{sample.labels['name']} {sample.labels['outcome']}": sample.value
                for sample in families["deflector_exporter_events"].samples
            },
        }


def _total(family: Any) -> float:
    return float(sum(sample.value for sample in family.samples if sample.name.endswith("_total")))


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


async def serve(folder: Path) -> None:
    town, registry = Town(), CollectorRegistry()
    observer = Observer(lambda: town, version="0.0.0")
    service = AccessLogService(observer.access_log)
    proxies = grpc.aio.server()
    service.register(proxies)
    proxies.add_insecure_port(f"unix://{folder}/xds.sock")
    await proxies.start()
    feed = MetricsFeed(registry, observer.flows, _complain)
    feed.configure(parse_line(METRICS))
    exporters = Exporters(observer.flows, _complain, time.time, observer.rest)
    registry.register(exporters)
    files = {name: FileSpec(str(folder / f"{name}.log")) for name in ("all", "denials")}
    include = {"all": frozenset[bytes](), "denials": frozenset((DENIED,))}
    exporters.configure(ExporterSpec(name, file, include[name]) for name, file in files.items())
    hubble = await start(observer, [f"unix://{folder}/hubble.sock"])
    tasks = Tasks()
    tasks.start("metrics", feed.run())
    tasks.start("exporters", exporters.run())
    readings = Readings(observer, registry, service)
    try:
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(readings.document()), flush=True)
    finally:
        await tasks.stop()
        await hubble.stop(None)
        await proxies.stop(None)


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(serve(Path(sys.argv[1])))
