"""All configured metrics together: each flow is shown to every plugin. Pure but for prometheus_client's registry.

Reconfiguration keeps the series of metrics that stay as they were, and starts those anew that change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flow import flow_pb2
from prometheus_client import CollectorRegistry, Counter, disable_created_metrics

from flows.filters import compile_filters
from flows.metrics.config import MetricsConfig, MetricsConfigError, MetricSpec
from flows.metrics.context import Context, ContextError
from flows.metrics.families import SERIES_MAX, Family
from flows.metrics.plugins import PLUGINS
from flows.predicates import FilterError, Predicate

disable_created_metrics()  # type: ignore[no-untyped-call]  # Hubble's counters have no _created beside them

Contexts = dict[tuple[tuple[str, tuple[str, ...]], ...], Context]  # one for all metrics with the same options
Known = dict[tuple[Context, bool], tuple[str, ...]]
OVERFLOW: Final = "deflector_hubble_metrics_overflow_total"


class _Metric:
    """One configured metric at work."""

    def __init__(self, spec: MetricSpec, registry: CollectorRegistry, contexts: Contexts) -> None:
        self.spec = spec
        try:
            if spec.contexts not in contexts:
                contexts[spec.contexts] = Context(dict(spec.contexts))
            self.context = contexts[spec.contexts]
            self.wanted = _filter(spec)
        except (ContextError, FilterError) as error:
            raise MetricsConfigError(f"{spec.name}: {error}") from None
        plugin = PLUGINS[spec.name]
        self.samples = plugin.samples
        self.families = {
            family.name: Family(family, self.context, spec.options, registry) for family in plugin.families
        }

    def take(self, flow: flow_pb2.Flow, known: Known) -> list[Family]:
        """Count a flow; families that were full. `known`: values of contexts for this flow, as far as they are."""
        if self.wanted is not None and not self.wanted(flow):
            return []
        full = []
        for sample in self.samples(flow, self.spec.options):
            key = (self.context, sample.is_swapped)
            context = known.get(key)
            if context is None:
                context = known[key] = self.context.values(flow, sample.is_swapped)
            family = self.families[sample.family]
            if not family.take(sample, context):
                full.append(family)
        return full

    def close(self) -> None:
        for family in self.families.values():
            family.close()


class Counting:
    """The metrics of a node. `complain` gets one line when a family is full for the first time."""

    def __init__(self, registry: CollectorRegistry, complain: Callable[[str], None]) -> None:
        self.registry = registry
        self._complain = complain
        self._metrics: dict[str, _Metric] = {}
        self._contexts: Contexts = {}
        self._overflow = Counter(
            OVERFLOW, "Flows not counted because a metric had too many series", ("metric",), registry=registry
        )

    @property
    def is_idle(self) -> bool:
        """Whether no metric is configured: then flows need not be shown."""
        return not self._metrics

    def configure(self, config: MetricsConfig) -> None:
        """Have these metrics from now on. Raises MetricsConfigError and then changes nothing."""
        wanted = {spec.name: spec for spec in config.metrics}
        probe, contexts = CollectorRegistry(), Contexts()
        for spec in config.metrics:
            _Metric(spec, probe, contexts)
        for name, metric in list(self._metrics.items()):
            if wanted.get(name) != metric.spec:
                metric.close()
                del self._metrics[name]
        for name, spec in wanted.items():
            if name not in self._metrics:
                self._metrics[name] = _Metric(spec, self.registry, self._contexts)

    def take(self, flow: flow_pb2.Flow) -> None:
        """Count one flow."""
        known: Known = {}
        for metric in self._metrics.values():
            for family in metric.take(flow, known):
                self._tell(family)

    def forget_pod(self, namespace: str, name: str) -> int:
        """Drop the series about a pod that is gone; how many."""
        families = (family for metric in self._metrics.values() for family in metric.families.values())
        return sum(family.forget_pod(namespace, name) for family in families)

    def _tell(self, family: Family) -> None:
        self._overflow.labels(family.name).inc()
        if family.overflow == 1:
            label, values = family.widest_label()
            self._complain(
                f"metric {family.name} has {SERIES_MAX} series and takes no more: "
                f"label {label} has {values} values; use a context option with fewer"
            )


def _filter(spec: MetricSpec) -> Predicate | None:
    if not spec.include and not spec.exclude:
        return None
    include, exclude = (
        [flow_pb2.FlowFilter.FromString(wire) for wire in side] for side in (spec.include, spec.exclude)
    )
    return compile_filters(include, exclude)
