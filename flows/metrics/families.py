"""Metric families that stay within bounds: a limit on series, and series that go with their pod.

prometheus_client keeps the numbers and writes them out; this file decides which series there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from flows.metrics.context import Context
from flows.metrics.plugins import FamilySpec, Sample

SERIES_MAX: Final = 10_000  # per family: what a Prometheus takes from each of a thousand nodes
# Go's default buckets; prometheus_client's own differ.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
EXEMPLAR_LABEL: Final = "traceID"
TRACE_ID_MAX: Final = 64


class Family:
    """One family: its own labels first, then those of the context."""

    def __init__(
        self, spec: FamilySpec, context: Context, options: frozenset[str], registry: CollectorRegistry
    ) -> None:
        extra = tuple(label for option, label in spec.optional if option in options)
        self.name = spec.name
        self.labels = (*spec.labels, *extra, *context.names)
        self.overflow = 0  # samples that were not counted for want of a series
        self._own = len(spec.labels) + len(extra)
        self._context = context
        if spec.is_histogram:
            self._metric: Any = Histogram(spec.name, spec.help, self.labels, buckets=BUCKETS, registry=registry)
        else:
            self._metric = Counter(spec.name, spec.help, self.labels, registry=registry)
        self._series: dict[tuple[str, ...], Any] = {}
        self._registry = registry

    def __len__(self) -> int:
        return len(self._series)

    def take(self, sample: Sample, context: tuple[str, ...]) -> bool:
        """Count the sample; False if the family is full and the sample would need a new series."""
        values = sample.labels + context
        series = self._series.get(values)
        if series is None:
            if len(self._series) >= SERIES_MAX:
                self.overflow += 1
                return False
            series = self._series[values] = self._metric.labels(*values)
        # OpenMetrics allows 128 characters of labels; whoever sends a longer one made it up
        exemplar = {EXEMPLAR_LABEL: sample.trace_id} if 0 < len(sample.trace_id) <= TRACE_ID_MAX else None
        if sample.seconds is None:
            series.inc(1, exemplar)
        else:
            series.observe(sample.seconds, exemplar)
        return True

    def forget_pod(self, namespace: str, name: str) -> int:
        """Drop the series that are about this pod; how many there were."""
        is_about = self._context.about_pod(namespace, name)
        if is_about is None:
            return 0
        gone = [values for values in self._series if is_about(values[self._own :])]
        for values in gone:
            del self._series[values]
            self._metric.remove(*values)
        return len(gone)

    def widest_label(self) -> tuple[str, int]:
        """The label with the most different values, which is the one to blame for too many series."""
        counts = {label: len({values[i] for values in self._series}) for i, label in enumerate(self.labels)}
        label = max(counts, key=lambda label: counts[label], default="")
        return label, counts.get(label, 0)

    def close(self) -> None:
        """Leave the registry."""
        self._registry.unregister(self._metric)


Complaint = Callable[[str], None]
