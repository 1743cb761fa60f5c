"""The tables of docs/metrics.md, made from what is really exposed."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from agent.config import ObservabilityConfig
from agent.from_loop import FromLoop
from agent.observing.observability import Observability
from agent.observing.telemetry import FAMILIES, Health, Telemetry
from agent.operator.figures import FAMILIES as OPERATOR_FAMILIES
from agent.operator.figures import Figures, FiguresCollector
from agent.supervise import Tasks
from agent.usage.metrics import Hits, RuleHits
from agent.views.slot_reasons import Outcome
from flows.export.config import FileSpec, static
from flows.export.otlp import OtlpSpec
from flows.metrics.counting import OVERFLOW
from flows.metrics.plugins import PLUGINS
from flows.observer import Observer
from flows.relay.figures import RelayFigures
from flows.relay.peers import Peer, Peers
from flows.relay.pool import Pool
from policies.ir import SlotState
from policies.types import Origin
from tests.flows.make import Galaxy

Row = tuple[str, str, str, str]


def hubble() -> list[Row]:
    """Metrics of flows; the last column is the metric that has to be configured."""
    rows = []
    for name, plugin in PLUGINS.items():
        for family in plugin.families:
            optional = [f"[{label}]" for _, label in family.optional]
            kind = "histogram" if family.is_histogram else "counter"
            rows.append((family.name, kind, ", ".join((*family.labels, *optional)), f"`{name}`"))
    return rows


async def node(folder: Path) -> list[Row]:
    """Everything that is on the page of a node without a metric of flows."""
    config = ObservabilityConfig(
        metrics_address="127.0.0.1:0",
        exporter=static(FileSpec(str(folder / "events.log"))),
        otlp=OtlpSpec("127.0.0.1:1", insecure=True),
    )
    health = Health(slots=dict.fromkeys(SlotState, 1), kernel_events={"lost": 0}, maps={"policy": (1, 2)})
    one = Origin("CiliumNetworkPolicy", "default", "rule1", "ingress[0]")
    hits = Hits(((one, next(iter(Outcome)), 1),), ((one, 1.0),), {next(iter(Outcome)): 1})
    rules = RuleHits(FromLoop(lambda: hits, hits))
    made = Observability(config, ("n1", "0"), Observer(Galaxy, version="0").flows, (Telemetry(lambda: health), rules))
    tasks = Tasks()
    made.start(tasks)
    try:
        for _ in range(2):  # the first reading is counted on the second
            text = await asyncio.to_thread(_fetch, f"http://127.0.0.1:{made.port}/metrics")
            while 'name="static"' not in text:
                text = await asyncio.to_thread(_fetch, f"http://127.0.0.1:{made.port}/metrics")
        metrics = await asyncio.to_thread(lambda: list(made.registry.collect()))
    finally:
        await tasks.stop()
        await made.stop()
    labels = {family.name: family.labels for family in FAMILIES} | {OVERFLOW: ("metric",)}
    return _rows(metrics, labels)


def relay() -> list[Row]:
    """What `deflector relay` shows."""
    peers = Peers(Peer("p", "unix:///p"), None, print)
    registry = CollectorRegistry()
    registry.register(RelayFigures(peers, Pool(dict, None), lambda: 0))
    return _rows(registry.collect(), {})


def operator() -> list[Row]:
    """What `deflector operator` shows."""
    figures = Figures("0", "hoth", policies=Counter({("k", "v", "e"): 1}), written=Counter({("r", "o"): 1}))
    registry = CollectorRegistry()
    registry.register(FiguresCollector(lambda: figures))
    return _rows(registry.collect(), {family.name: family.labels for family in OPERATOR_FAMILIES})


def _rows(metrics: Iterable[Metric], labels: dict[str, tuple[str, ...]]) -> list[Row]:
    rows = []
    for metric in metrics:
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        seen = {label for sample in metric.samples for label in sample.labels} - {"le"}
        rows.append((name, metric.type, ", ".join(labels.get(name, tuple(sorted(seen)))), metric.documentation))
    return sorted(rows)


def table(rows: Iterable[Row], last: str) -> str:
    """As Markdown."""
    lines = [("metric", "type", "labels", last), ("---", "---", "---", "---")]
    lines += [(f"`{name}`", kind, labels, words) for name, kind, labels, words in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
