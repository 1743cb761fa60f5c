"""How the node itself fares, as Prometheus metrics: `deflector_*`. A collector fed with values, when a page is read.

Pages are read in threads of their own; the values are taken in the node's event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.from_loop import FromLoop
from flows.account import ReaderAccount, RingAccount
from policies.ir import SlotState

# From a file's change to its enforcement: some milliseconds, unless a proxy is late.
PROPAGATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PROPAGATION: Final = "deflector_policy_propagation_seconds"


@dataclass(frozen=True, slots=True)
class Health:
    """The values, taken at one moment."""

    version: str = ""
    revision: int = 0
    complete: bool = False
    pending: bool = True
    problems: int = 0
    endpoints: int = 0
    slots: Mapping[SlotState, int] = field(default_factory=dict)
    xds_acks: int = 0
    xds_nacks: int = 0
    proxies: Mapping[str, tuple[int, bool]] = field(default_factory=dict)  # restarts; whether it is connected
    proxy_counters: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (proxy, what), of our own
    names: Mapping[str, float] = field(default_factory=dict)  # agent.names.document.summary
    ports_used: int = 0
    ports: int = 0
    ring_held: int = 0
    ring_capacity: int = 0
    flows: RingAccount = field(default_factory=RingAccount)
    flows_read: ReaderAccount = field(default_factory=ReaderAccount)  # by all readers
    log_entries_malformed: int = 0
    kernel_events: Mapping[str, int] = field(default_factory=dict)  # those that were not told, by cause
    readers: int = 0
    connections: int = 0
    calls: int = 0
    maps: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # entries, and how many there may be


Values = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class HealthFamily:
    """One metric; `values` gives label values and number of each series."""

    name: str
    help: str
    values: Callable[[Health], Values]
    labels: tuple[str, ...] = ()
    is_counter: bool = False


def _one(get: Callable[[Health], float]) -> Callable[[Health], Values]:
    return lambda health: [((), get(health))]


def _maps(at: int) -> Callable[[Health], Values]:
    return lambda health: [((name,), both[at]) for name, both in sorted(health.maps.items())]


def _names(*keys: str) -> Callable[[Health], Values]:
    return lambda health: [((key,), health.names.get(key, 0)) for key in keys]


FAMILIES: Final = (
    HealthFamily("deflector_build_info", "Version of the agent; always 1", lambda h: [((h.version,), 1)], ("version",)),
    HealthFamily(
        "cilium_version",
        "Version of the agent, under the name by which Hubble's dashboards find their clusters",
        lambda h: [((h.version,), 1)],
        ("version",),
    ),
    HealthFamily("deflector_policy_revision", "Revision that is enforced", _one(lambda h: h.revision)),
    HealthFamily(
        "deflector_policy_complete",
        "1 if everything of that revision is in force as wanted",
        _one(lambda h: h.complete),
    ),
    HealthFamily("deflector_policy_pending", "1 if a change is not enforced yet", _one(lambda h: h.pending)),
    HealthFamily("deflector_policy_problems", "Problems as `deflector status` lists them", _one(lambda h: h.problems)),
    HealthFamily("deflector_endpoints", "Pods of this node that are policed", _one(lambda h: h.endpoints)),
    HealthFamily(
        "deflector_slots",
        "Listeners of the proxy, by state",
        lambda h: [((state.value,), h.slots.get(state, 0)) for state in SlotState],
        ("state",),
    ),
    HealthFamily(
        "deflector_xds_responses_total",
        "Answers of the proxy to what it was told",
        lambda h: [(("ack",), h.xds_acks), (("nack",), h.xds_nacks)],
        ("answer",),
        is_counter=True,
    ),
    HealthFamily(
        "deflector_envoy_restarts_total",
        "Times that Envoy had ended",
        _one(lambda h: h.proxies.get("envoy", (0, False))[0]),
        is_counter=True,
    ),
    HealthFamily(
        "deflector_envoy_connected",
        "1 if Envoy listens to us",
        _one(lambda h: h.proxies.get("envoy", (0, False))[1]),
    ),
    HealthFamily(
        "deflector_proxy_restarts_total",
        "Times that a proxy had ended",
        lambda h: [((name,), restarts) for name, (restarts, _) in sorted(h.proxies.items())],
        ("proxy",),
        is_counter=True,
    ),
    HealthFamily(
        "deflector_proxy_connected",
        "1 if the proxy listens to us; our own are there while some slot needs them",
        lambda h: [((name,), connected) for name, (_, connected) in sorted(h.proxies.items())],
        ("proxy",),
    ),
    HealthFamily(
        "deflector_proxy_events_total",
        "What our own proxies have dropped, withheld or given up, by what it was",
        lambda h: [(both, count) for both, count in sorted(h.proxy_counters.items())],
        ("proxy", "what"),
        is_counter=True,
    ),
    HealthFamily(
        "deflector_names_addresses",
        "Addresses of names: held for toFQDNs (and how many there may be), on their way into force, overheard",
        _names("held", "bound", "waiting", "overheard"),
        ("state",),
    ),
    HealthFamily(
        "deflector_names_answers_total",
        "DNS answers for names of toFQDNs: learned, refused (withheld), those that waited for a compilation, overdue",
        _names("learned", "refused", "waited", "overdue"),
        ("outcome",),
        is_counter=True,
    ),
    HealthFamily("deflector_proxy_ports_used", "Proxy ports in use", _one(lambda h: h.ports_used)),
    HealthFamily("deflector_proxy_ports_free", "Proxy ports left", _one(lambda h: h.ports - h.ports_used)),
    HealthFamily("deflector_flow_ring_events", "Events in the ring", _one(lambda h: h.ring_held)),
    HealthFamily("deflector_flow_ring_capacity", "Events that the ring holds at most", _one(lambda h: h.ring_capacity)),
    HealthFamily("deflector_flow_denials_held", "Denials that can be read", _one(lambda h: h.flows.denials_held)),
    HealthFamily(
        "deflector_flows_seen_total", "Flows since the start", _one(lambda h: h.flows.produced), is_counter=True
    ),
    HealthFamily(
        "deflector_flows_unread_total",
        "Flows that were overwritten before anybody asked for them",
        _one(lambda h: h.flows.skipped),
        is_counter=True,
    ),
    HealthFamily(
        "deflector_flows_overwritten_total",
        "Flows that were read or kept, and had to give way",
        _one(lambda h: h.flows.overwritten),
        is_counter=True,
    ),
    HealthFamily("deflector_flows_held", "Flows that can be read", _one(lambda h: h.flows.held)),
    HealthFamily(
        "deflector_flow_denials_total", "Denials since the start", _one(lambda h: h.flows.denials), is_counter=True
    ),
    HealthFamily(
        "deflector_flow_denials_overwritten_total",
        "Denials that had to give way to later ones",
        _one(lambda h: h.flows.denials_overwritten),
        is_counter=True,
    ),
    HealthFamily(
        "deflector_flows_read_total",
        "Flows that readers came to: sent, passed over by their filters, lost to those who were too slow",
        lambda h: [((outcome,), count) for outcome, count in sorted(asdict(h.flows_read).items())],
        ("outcome",),
        is_counter=True,
    ),
    HealthFamily(
        "deflector_access_log_malformed_total",
        "Entries of Envoy's access log that made no flow",
        _one(lambda h: h.log_entries_malformed),
        is_counter=True,
    ),
    HealthFamily(
        "deflector_kernel_events_untold_total",
        "Events that the kernel could not tell (lost), or did not tell again and again (bounded)",
        lambda h: [((cause,), count) for cause, count in sorted(h.kernel_events.items())],
        ("cause",),
        is_counter=True,
    ),
    HealthFamily("deflector_flow_readers", "Readers of flows: clients, exporters, metrics", _one(lambda h: h.readers)),
    HealthFamily("deflector_hubble_connections", "Clients of the Hubble API", _one(lambda h: h.connections)),
    HealthFamily("deflector_hubble_calls", "Open calls of clients of the Hubble API", _one(lambda h: h.calls)),
    HealthFamily("deflector_bpf_map_entries", "Entries of a map of the kernel", _maps(0), ("map",)),
    HealthFamily("deflector_bpf_map_capacity", "Entries that a map of the kernel may have", _maps(1), ("map",)),
    HealthFamily(
        "deflector_bpf_map_pressure",
        "Part of a map that is in use, 0 to 1",
        lambda h: [((name,), held / room) for name, (held, room) in sorted(h.maps.items())],
        ("map",),
    ),
)


class Telemetry(Collector):
    """`look` takes the values; it is called in the loop in which this was made."""

    def __init__(self, look: Callable[[], Health]) -> None:
        self._health = FromLoop(look, Health())
        self._propagation = Histogram(
            PROPAGATION, "Seconds from a file's change to its enforcement", buckets=PROPAGATION_BUCKETS, registry=None
        )

    def propagated(self, seconds: float) -> None:
        """A change is enforced so long after it was seen."""
        self._propagation.observe(seconds)

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the loop when this is registered: that happens in the loop."""
        return [_metric(family) for family in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """In the thread of a page."""
        health = self._health.ask()
        for family in FAMILIES:
            metric = _metric(family)
            for labels, value in family.values(health):
                metric.add_metric(labels, value)
            yield metric
        yield from self._propagation.collect()


def _metric(family: HealthFamily) -> GaugeMetricFamily | CounterMetricFamily:
    kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
    return kind(family.name, family.help, labels=family.labels)
