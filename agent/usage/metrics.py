"""How often each rule was used, as Prometheus metrics. Rules that nothing has used have no series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.from_loop import FromLoop
from agent.usage.book import Usage
from agent.views.slot_reasons import Outcome
from flows.metrics.families import SERIES_MAX
from policies.types import Origin

RULE: Final = ("kind", "namespace", "name", "rule")
HITS: Final = "deflector_policy_rule_hits_total"
LAST: Final = "deflector_policy_rule_last_hit_timestamp_seconds"
UNTRACED: Final = "deflector_policy_rule_hits_untraced_total"
LEFT_OUT: Final = "deflector_policy_rule_series_left_out"


@dataclass(frozen=True, slots=True)
class Hits:
    """What is exposed, at one moment: the numbers of SERIES_MAX series at most, and how many more there would be."""

    series: tuple[tuple[Origin, Outcome, int], ...] = ()
    last: tuple[tuple[Origin, float], ...] = ()
    untraced: Mapping[Outcome, int] = field(default_factory=dict)
    left_out: int = 0


def hits_of(usage: Usage) -> Hits:
    """The first rules by name get the series, so that they stay the same from page to page."""
    used = sorted((origin, use) for origin, use in usage.rules.items() if use.numbers)
    series = [(origin, outcome, number) for origin, use in used for outcome, number in sorted(use.numbers.items())]
    last = [(origin, use.last_ns / 1e9) for origin, use in used if use.is_used]
    left_out = max(0, len(series) - SERIES_MAX) + max(0, len(last) - SERIES_MAX)
    return Hits(tuple(series[:SERIES_MAX]), tuple(last[:SERIES_MAX]), dict(usage.untraced), left_out)


class RuleHits(Collector):
    """Made in the loop, asked in the threads of pages."""

    def __init__(self, hits: FromLoop[Hits]) -> None:
        self._hits = hits

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the loop when this is registered: that happens in the loop."""
        return _families()

    def collect(self) -> Iterator[Metric]:
        """In the thread of a page."""
        hits = self._hits.ask()
        families = counted, last, untraced, left_out = _families()
        for origin, outcome, number in hits.series:
            counted.add_metric([*_labels(origin), outcome.value], number)
        for origin, seconds in hits.last:
            last.add_metric(_labels(origin), seconds)
        for outcome, number in sorted(hits.untraced.items()):
            untraced.add_metric([outcome.value], number)
        left_out.add_metric([], hits.left_out)
        yield from families


def _families() -> tuple[CounterMetricFamily, GaugeMetricFamily, CounterMetricFamily, GaugeMetricFamily]:
    return (
        CounterMetricFamily(
            HITS, "Requests or connections that a rule allowed, denied or nearly allowed", labels=(*RULE, "outcome")
        ),
        GaugeMetricFamily(LAST, "When a rule last allowed or denied something", labels=RULE),
        CounterMetricFamily(UNTRACED, "The same of which it is not known what rule it was", labels=("outcome",)),
        GaugeMetricFamily(LEFT_OUT, f"Series above {SERIES_MAX} of one metric, which are not shown"),
    )


def _labels(origin: Origin) -> tuple[str, str, str, str]:
    return (origin.kind, origin.namespace, origin.name, origin.path)
