"""Every figure of the scorecard, as a table: unit, which way is better, the target, and who measures it. Pure.

Targets are those of the issue that built the thing; None where it names none. The order is the order of the printed
table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HIGHER, LOWER = "higher", "lower"
RULE_FORMS = ("exact", "prefix", "regex")
RULE_COUNTS = (1, 100, 1_000, 10_000)
OBSERVE_FILTERS = (
    "verdict",
    "pod",
    "label",
    "path",
    "port",
    "code",
    "url",
    "method",
    "protocol",
    "flags",
    "header",
    "cel",
)
POLICY_COUNTS = (10, 100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the scorecard. `benchmark` is the module that yields it."""

    name: str
    unit: str
    better: str
    benchmark: str
    target: float | None = None

    def is_met(self, value: float) -> bool | None:
        """Whether the value reaches the target; None without one. The target itself is good enough."""
        if self.target is None:
            return None
        return value <= self.target if self.better == LOWER else value >= self.target


FIGURES: tuple[Figure, ...] = (
    Figure("proxy_throughput_ratio", "x", HIGHER, "throughput", 0.85),
    Figure("proxy_throughput_file_log_ratio", "x", HIGHER, "throughput"),
    Figure("deflector_rps", "requests/s", HIGHER, "throughput"),
    Figure("bare_rps", "requests/s", HIGHER, "throughput"),
    Figure("bare_file_log_rps", "requests/s", HIGHER, "throughput"),
    Figure("followed_rps", "requests/s", HIGHER, "throughput"),
    Figure("l4_rps", "requests/s", HIGHER, "throughput"),
    Figure("direct_rps", "requests/s", HIGHER, "throughput"),
    *(
        Figure(f"{leg}_{rank}_ms", "ms", LOWER, "throughput")
        for leg in ("deflector", "bare", "bare_file_log", "followed", "l4", "direct")
        for rank in ("p50", "p99")
    ),
    Figure("deflector_envoy_us_per_request", "us CPU", LOWER, "throughput"),
    Figure("bare_envoy_us_per_request", "us CPU", LOWER, "throughput"),
    Figure("bare_file_log_envoy_us_per_request", "us CPU", LOWER, "throughput"),
    Figure("agent_us_per_request", "us CPU", LOWER, "throughput"),
    Figure("agent_followed_us_per_request", "us CPU", LOWER, "throughput"),
    Figure("rules_cost_ratio", "x", LOWER, "rules", 1.3),
    *(
        Figure(f"cpu_us_per_request_{form}_{count}", "us CPU", LOWER, "rules")
        for form in RULE_FORMS
        for count in RULE_COUNTS
    ),
    Figure("rules_10000_to_enforced_ms", "ms", LOWER, "rules"),
    Figure("agent_rss_10000_rules_mb", "MB", LOWER, "rules"),
    Figure("policy_to_enforced_p50_ms", "ms", LOWER, "enforcement"),
    Figure("policy_to_enforced_p99_ms", "ms", LOWER, "enforcement", 250),
    Figure("request_to_flow_p50_ms", "ms", LOWER, "visibility"),
    Figure("request_to_flow_p99_ms", "ms", LOWER, "visibility", 250),
    Figure("open_request_to_flow_p50_ms", "ms", LOWER, "visibility"),
    Figure("open_request_to_flow_p99_ms", "ms", LOWER, "visibility", 250),
    Figure("flows_per_second", "entries/s CPU", HIGHER, "intake", 50_000),
    Figure("built_flows_per_second", "flows/s CPU", HIGHER, "intake"),
    Figure("entries_per_second_unread", "entries/s CPU", HIGHER, "intake"),
    Figure("flow_flood_lost_denials", "denials", LOWER, "flow_flood", 0),
    Figure("flow_flood_rss_growth_mb", "MB", LOWER, "flow_flood", 10),
    Figure("flow_flood_rss_mb", "MB", LOWER, "flow_flood"),
    Figure("flow_flood_flows_per_second", "flows/s", HIGHER, "flow_flood", 49_000),
    Figure("flow_flood_node_cpu_cores", "cores", LOWER, "flow_flood"),
    Figure("flow_flood_lost_written_percent", "%", LOWER, "flow_flood"),
    *(
        Figure(f"flow_flood_looked_at_percent_{reader}", "%", HIGHER, "flow_flood")
        for reader in ("metrics", "export_all", "export_denials", "follower_all", "follower_denials")
    ),
    Figure("observe_last20_ms", "ms CPU", LOWER, "observe_last", 100),
    *(Figure(f"observe_last20_{kind}_ms", "ms CPU", LOWER, "observe_last") for kind in OBSERVE_FILTERS),
    Figure("compile_cold_s", "s CPU", LOWER, "compile", 3),
    Figure("policy_edit_ms", "ms CPU", LOWER, "compile", 50),
    Figure("identity_add_ms", "ms CPU", LOWER, "compile", 10),
    Figure("compile_rss_mb", "MB", LOWER, "compile", 250),
    Figure("compile_rss_before_mb", "MB", LOWER, "compile"),
    Figure("clusterwide_edit_ms", "ms CPU", LOWER, "compile"),
    *(Figure(f"slots_{change}_ms", "ms CPU", LOWER, "compile") for change in ("cold", "edit", "identity_add")),
    *(
        Figure(f"{name}_{count}", unit, LOWER, "compile")
        for name, unit in (
            ("compile_cold_s", "s CPU"),
            ("policy_edit_ms", "ms CPU"),
            ("identity_add_ms", "ms CPU"),
            ("compile_rss_mb", "MB"),
        )
        for count in POLICY_COUNTS
    ),
    Figure("agent_rss_mb", "MB", LOWER, "memory", 150),
    Figure("cluster_start_s", "s", LOWER, "cluster", 10),
    Figure("cluster_rss_mb", "MB", LOWER, "cluster", 300),
    Figure("cluster_peak_rss_mb", "MB", LOWER, "cluster", 300),
    Figure("cluster_pod_cpu_ms", "ms", LOWER, "cluster", 20),
    Figure("cluster_own_pod_cpu_ms", "ms", LOWER, "cluster"),
    Figure("cluster_first_pod_cpu_ms", "ms", LOWER, "cluster"),
    Figure("agent_rss_start_mb", "MB", LOWER, "memory"),
    Figure("agent_rss_loaded_mb", "MB", LOWER, "memory"),
    Figure("agent_pss_mb", "MB", LOWER, "memory"),
    *(
        Figure(f"tc_ns_per_packet_{program}", "ns", LOWER, "packets")
        for program in ("from_pod", "to_pod", "to_proxy", "l4_from_pod", "l4_to_pod")
    ),
    Figure("kafka_throughput_ratio", "x", HIGHER, "kafka", 0.6),
    Figure("kafka_direct_mb_per_second", "MB/s", HIGHER, "kafka"),
    Figure("kafka_through_mb_per_second", "MB/s", HIGHER, "kafka"),
    Figure("kafka_added_p50_us", "us", LOWER, "kafka", 300),
    Figure("kafka_added_p99_us", "us", LOWER, "kafka"),
    Figure("kafka_direct_p50_us", "us", LOWER, "kafka"),
    Figure("kafka_proxy_cpu_s_per_gb", "s CPU/GB", LOWER, "kafka"),
    Figure("dns_qps", "queries/s CPU", HIGHER, "dns", 15_000),
    Figure("dns_through_qps", "queries/s", HIGHER, "dns"),
    Figure("dns_direct_qps", "queries/s", HIGHER, "dns"),
    Figure("dns_proxy_us_per_query", "us CPU", LOWER, "dns"),
    Figure("dns_agent_us_per_query", "us CPU", LOWER, "dns"),
    Figure("dns_added_p50_us", "us", LOWER, "dns", 150),
    Figure("dns_added_p99_us", "us", LOWER, "dns", 1500),
    Figure("agent_start_s", "s", LOWER, "restart"),
    Figure("agent_restart_s", "s", LOWER, "restart"),
    Figure("agent_restart_failed_requests", "requests", LOWER, "restart"),
)

BY_NAME = {figure.name: figure for figure in FIGURES}


class UnknownFigure(Exception):
    """Neither a figure nor a benchmark has this name; the text says which benchmarks there are."""


def benchmarks_for(only: str | None) -> list[str]:
    """The benchmarks to run, in the table's order: all, or the one that yields (or is called) `only`."""
    names = _once(figure.benchmark for figure in FIGURES)
    if only is None:
        return names
    if only in names:
        return [only]
    if only in BY_NAME:
        return [BY_NAME[only].benchmark]
    raise UnknownFigure(f"no figure is called {only!r}: a whole run prints them all, or name one of {', '.join(names)}")


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
