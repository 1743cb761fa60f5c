"""Metrics of an operator, as one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Values = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one moment. Of who does not lead, most are 0."""

    version: str = ""
    cluster: str = ""
    leading: bool = False
    policies: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # kind, Valid, Enforced
    nodes: Counter[str] = field(default_factory=Counter)  # reporting, silent, incomplete
    conditions_waiting: int = 0
    written: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)  # objects that are known, by kind
    reviews: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: where its values are in Figures."""

    name: str
    help: str
    values: Callable[[Figures], Values]
    labels: tuple[str, ...] = ()
    is_counter: bool = False


def _by_one(counts: Counter[str]) -> Values:
    return [((label,), count) for label, count in sorted(counts.items())]


FAMILIES: Final = (
    Family(
        "deflector_operator_info",
        "The version that runs, and for which cluster",
        lambda f: [((f.version, f.cluster), 1)],
        ("version", "cluster"),
    ),
    Family("deflector_operator_leading", "1 if this operator leads", lambda f: [((), f.leading)]),
    Family(
        "deflector_operator_policies",
        "Policies by what their conditions say",
        lambda f: [(labels, count) for labels, count in sorted(f.policies.items())],
        ("kind", "valid", "enforced"),
    ),
    Family("deflector_operator_nodes", "Nodes by how they report", lambda f: _by_one(f.nodes), ("state",)),
    Family(
        "deflector_operator_conditions_waiting",
        "Policies whose conditions are to be written or looked at",
        lambda f: [((), f.conditions_waiting)],
    ),
    Family("deflector_operator_objects", "Objects that are known", lambda f: _by_one(f.held), ("kind",)),
    Family(
        "deflector_operator_writes_total",
        "Writes to the API server by what came of them",
        lambda f: [(labels, count) for labels, count in sorted(f.written.items())],
        ("resource", "outcome"),
        is_counter=True,
    ),
    Family(
        "deflector_operator_events_total", "Events told, and dropped", lambda f: _by_one(f.events), ("outcome",), True
    ),
    Family(
        "deflector_operator_removed_total", "Objects removed as garbage", lambda f: _by_one(f.removed), ("kind",), True
    ),
    Family(
        "deflector_operator_reviews_total", "Answers of the webhook", lambda f: _by_one(f.reviews), ("outcome",), True
    ),
)


class FiguresCollector(Collector):
    """`look` takes the figures of the moment."""

    def __init__(self, look: Callable[[], Figures]) -> None:
        self._look = look

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Nothing is looked at when this is registered."""
        return [_metric(family) for family in FAMILIES]

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        figures = self._look()
        for family in FAMILIES:
            metric = _metric(family)
            for labels, value in family.values(figures):
                metric.add_metric(labels, value)
            yield metric


def _metric(family: Family) -> GaugeMetricFamily | CounterMetricFamily:
    kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
    return kind(family.name, family.help, labels=family.labels)
