"""A real Prometheus reads the pages of two nodes, and what Hubble's four Grafana dashboards ask of it has answers.

`cluster` and `pod` are labels that the scrape adds. The metrics http and httpV2 exclude each other, and the dashboards
want both: so there are two nodes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from flow import flow_pb2
from google.protobuf import json_format
from observer import observer_pb2

from agent.config import ObservabilityConfig
from agent.observing.observability import Observability
from agent.observing.telemetry import Health, Telemetry
from agent.supervise import Tasks
from flows.reading import Reading

PROMETHEUS = Path(__file__).parents[2] / "build/prometheus/usr/bin/prometheus"
BOUND = 40.0  # seconds
WHO = "labelsContext=source_namespace,destination_namespace;sourceContext=workload-name|reserved-identity;" + (
    "destinationContext=workload-name|reserved-identity"
)
WORKLOADS = (
    "labelsContext=source_ip,source_namespace,source_workload,destination_ip,destination_namespace,"
    "destination_workload,traffic_direction"
)
NAMED = ("drop", "flow", "tcp", "icmp", "http", "policy")
METRICS = {
    "node-a": " ".join([f"dns:query;{WHO}", *(f"{name}:{WHO}" for name in NAMED), "port-distribution flows-to-world"]),
    "node-b": f"httpV2:exemplars=true;{WORKLOADS}",
}

CLIENT = {"namespace": "rebels", "pod_name": "xwing", "workloads": [{"name": "xwing", "kind": "Deployment"}]}
SERVER = {"namespace": "empire", "pod_name": "deathstar-1", "workloads": [{"name": "deathstar", "kind": "Deployment"}]}
THERE = {"source": CLIENT, "destination": SERVER, "traffic_direction": "INGRESS", "verdict": "FORWARDED"}
BACK = {**THERE, "source": SERVER, "destination": CLIENT}
TCP = {"source_port": 40000, "destination_port": 80}
IP = {"source": "10.0.0.2", "destination": "10.0.0.7", "ipVersion": "IPv4"}
HTTP = {"method": "GET", "protocol": "HTTP/1.1", "url": "http://deathstar/"}
DNS = {"query": "endor.example.", "qtypes": ["A"]}
L7, TRACE = {"type": 129}, {"type": 4}
FLOWS: tuple[dict[str, Any], ...] = (
    {**THERE, "event_type": TRACE, "is_reply": False, "l4": {"TCP": {**TCP, "flags": {"SYN": True}}}},
    {**THERE, "event_type": TRACE, "is_reply": False, "l4": {"TCP": {**TCP, "flags": {"SYN": True}}}},
    {**BACK, "event_type": TRACE, "is_reply": True, "l4": {"TCP": {**TCP, "flags": {"SYN": True, "ACK": True}}}},
    {**THERE, "event_type": TRACE, "is_reply": False, "l4": {"ICMPv4": {"type": 8}}},
    {**THERE, "event_type": TRACE, "is_reply": False, "l4": {"ICMPv4": {"type": 8}}},
    {**BACK, "event_type": TRACE, "is_reply": True, "l4": {"ICMPv4": {"type": 0}}},
    {**THERE, "event_type": {"type": 1}, "verdict": "DROPPED", "drop_reason_desc": "POLICY_DENIED", "l4": {"TCP": TCP}},
    {**THERE, "event_type": {"type": 5}, "verdict": "DROPPED", "drop_reason_desc": "POLICY_DENIED", "l4": {"TCP": TCP}},
    {**THERE, "event_type": L7, "l7": {"type": "REQUEST", "http": HTTP}},
    {
        **BACK,
        "event_type": L7,
        "is_reply": True,
        "l7": {"type": "RESPONSE", "latency_ns": 3_000_000, "http": {**HTTP, "code": 200}},
    },
    {
        **BACK,
        "event_type": L7,
        "is_reply": True,
        "l7": {"type": "RESPONSE", "latency_ns": 3_000_000, "http": {**HTTP, "code": 500}},
    },
    {**THERE, "event_type": L7, "l7": {"type": "REQUEST", "dns": DNS}},
    {**THERE, "event_type": L7, "l7": {"type": "REQUEST", "dns": DNS}},
    {**THERE, "event_type": L7, "l7": {"type": "REQUEST", "dns": DNS}},
    {**BACK, "event_type": L7, "l7": {"type": "RESPONSE", "dns": {**DNS, "ips": ["1.2.3.4"], "rrtypes": ["A"]}}},
    {**BACK, "event_type": L7, "l7": {"type": "RESPONSE", "dns": {**DNS, "rcode": 3}}},
)

# What a dashboard's variables stand for once somebody has chosen a value.
CLUSTER = 'cluster=~"galaxy"'
OUT = f'{CLUSTER}, source_namespace=~"rebels", destination_namespace=~"empire"'
IN = f'{CLUSTER}, source_namespace=~"empire", destination_namespace=~"rebels"'
BY_WORKLOAD = f'{OUT}, source_workload=~".*", destination_workload=~".*", reporter="server"'
R = "[10s]"


def _unanswered(asked: str, answered: str) -> str:
    """Who asked and was not answered."""
    turned = f'label_replace(sum by (destination) (rate({answered}{R})), "source", "$1", "destination", "(.*)")'
    return f"sum by (source) (rate({asked}{R})) - sum without (destination) ({turned}) > 0"


MONITORING = [  # "Hubble Metrics and Monitoring"
    f"sum by (pod, type) (rate(hubble_flows_processed_total{R}))",
    f'sum by (pod, subtype) (rate(hubble_flows_processed_total{{type="L7"}}{R}))',
    f'sum by (pod, subtype) (rate(hubble_flows_processed_total{{type="Trace"}}{R}))',
    f"sum by (pod, verdict) (rate(hubble_flows_processed_total{R}))",
    f"sum by (pod, reason) (rate(hubble_drop_total{R}))",
    f"sum by (pod, protocol) (rate(hubble_drop_total{R}))",
    f'topk(10, sum by (source) (rate(hubble_drop_total{{reason="POLICY_DENIED"}}{R})))',
    f'topk(10, sum by (destination) (rate(hubble_drop_total{{reason="POLICY_DENIED"}}{R})))',
    f'sum by (port) (rate(hubble_port_distribution_total{{protocol="TCP"}}{R}))',
    f'sum by (pod) (rate(hubble_tcp_flags_total{{family="IPv4", flag="SYN"}}{R}))',
    f'sum by (pod) (rate(hubble_tcp_flags_total{{family="IPv4", flag="SYN-ACK"}}{R}))',
    f'sum by (pod, type) (rate(hubble_icmp_total{{family="IPv4"}}{R}))',
    f"sum by (pod, method) (rate(hubble_http_requests_total{R}))",
    f"sum by (pod, status) (rate(hubble_http_responses_total{R}))",
    f"histogram_quantile(0.95, sum by (le, pod) (rate(hubble_http_request_duration_seconds_bucket{R})))",
    f"sum by (pod, qtypes) (rate(hubble_dns_queries_total{R}))",
    f'sum by (pod, rcode) (rate(hubble_dns_responses_total{{rcode!="No Error"}}{R}))',
    f'sum by (ips_returned) (rate(hubble_dns_responses_total{{rcode="No Error"}}{R}))',
    f"sum by (type, query) (rate(hubble_dns_response_types_total{R}))",
]
REQUESTS = f"rate(hubble_http_requests_total{{{BY_WORKLOAD}}}{R})"
GOOD_REQUESTS = f'rate(hubble_http_requests_total{{{BY_WORKLOAD}, status!~"5.*"}}{R})'
DURATIONS = f"rate(hubble_http_request_duration_seconds_bucket{{{BY_WORKLOAD}}}{R})"
SOURCE = "cluster, source_namespace, source_workload"
HTTP_BY_WORKLOAD = [  # "Hubble L7 HTTP Metrics by Workload"
    f"round(sum by ({SOURCE}, status) ({REQUESTS}), 0.001)",
    f"sum({GOOD_REQUESTS}) / sum({REQUESTS})",
    *(f"histogram_quantile({q}, sum by ({SOURCE}, le) ({DURATIONS}))" for q in ("0.50", "0.95", "0.99")),
    f"sum by (destination_workload, method) ({REQUESTS})",
]
DNS_BY_NAMESPACE = [  # "Hubble / DNS Overview (Namespace)"
    f"sum by (source) (rate(hubble_dns_queries_total{{{OUT}}}{R})) > 0",
    f"topk(10, sum by (query) (rate(hubble_dns_queries_total{{{OUT}}}{R}) * 60))",
    _unanswered(f"hubble_dns_queries_total{{{OUT}}}", f"hubble_dns_responses_total{{{IN}}}"),
    f'sum by (destination, rcode) (rate(hubble_dns_responses_total{{{IN}, rcode!="No Error"}}{R})) > 0',
]
NETWORK_BY_NAMESPACE = [  # "Hubble / Network Overview (Namespace)"
    f"sum by (type, subtype) (rate(hubble_flows_processed_total{{{OUT}}}{R}))",
    f"sum by (verdict) (rate(hubble_flows_processed_total{{{OUT}}}{R}))",
    f"topk(10, sum by (source) (rate(hubble_flows_processed_total{{{OUT}}}{R})))",
    f"topk(10, sum by (destination) (rate(hubble_flows_processed_total{{{OUT}}}{R})))",
    _unanswered(f'hubble_tcp_flags_total{{{OUT}, flag="SYN"}}', f'hubble_tcp_flags_total{{{IN}, flag="SYN-ACK"}}'),
    _unanswered(f'hubble_icmp_total{{{OUT}, type="EchoRequest"}}', f'hubble_icmp_total{{{IN}, type="EchoReply"}}'),
    f"sum by (source, reason) (rate(hubble_drop_total{{{OUT}}}{R})) > 0",
    f"sum by (destination, reason) (rate(hubble_drop_total{{{OUT}}}{R})) > 0",
]
OWN = [
    "deflector_policy_revision",
    "sum by (answer) (deflector_xds_responses_total)",
    "histogram_quantile(0.99, sum by (le) (deflector_policy_propagation_seconds_bucket))",
    "max by (map) (deflector_bpf_map_pressure)",
]
# label_values(metric, label) of Grafana: the values that a person may choose from.
CHOICES = {
    ("cilium_version", "cluster"): ["galaxy"],
    ("hubble_http_requests_total", "cluster"): ["galaxy"],
    ("hubble_http_requests_total", "reporter"): ["server"],
    ("hubble_http_requests_total", "destination_workload"): ["deathstar"],
    ("hubble_flows_processed_total", "source_namespace"): ["empire", "rebels"],
    ("hubble_flows_processed_total", "destination_namespace"): ["empire", "rebels"],
}


def responses() -> list[bytes]:
    trace = {"trace_context": {"parent": {"trace_id": "0af7651916cd43dd8448eb211c80319c"}}}
    made = [json_format.ParseDict({"IP": IP, **trace, **one}, flow_pb2.Flow()) for one in FLOWS]
    return [observer_pb2.GetFlowsResponse(flow=flow).SerializeToString() for flow in made]


async def traffic(reading: Reading) -> AsyncGenerator[list[bytes], None]:
    """The same flows again and again: rates want to see counters grow."""
    batch = responses()
    while True:
        yield batch
        await asyncio.sleep(0.1)


@asynccontextmanager
async def nodes() -> AsyncIterator[dict[str, str]]:
    """Addresses of the pages, by pod."""
    tasks, made = Tasks(), dict[str, Observability]()
    for pod, metrics in METRICS.items():
        telemetry = Telemetry(lambda: Health(version="0.1.0", revision=3, xds_acks=5, maps={"policy": (5, 10)}))
        telemetry.propagated(0.012)
        config = ObservabilityConfig(metrics_address="127.0.0.1:0", metrics=metrics, openmetrics=True)
        made[pod] = Observability(config, (pod, "0.1.0"), traffic, (telemetry,))
        made[pod].start(tasks)
    try:
        yield {pod: f"127.0.0.1:{one.port}" for pod, one in made.items()}
    finally:
        await tasks.stop()
        for one in made.values():
            await one.stop()


@asynccontextmanager
async def prometheus(folder: Path, targets: dict[str, str]) -> AsyncIterator[str]:
    """Its address, once it is ready."""
    assert PROMETHEUS.exists(), f"{PROMETHEUS} is missing: run 'make setup'"
    scrape = {
        "job_name": "hubble",
        "scrape_interval": "250ms",
        "scrape_timeout": "250ms",
        "honor_labels": True,
        "static_configs": [
            {"targets": [at], "labels": {"cluster": "galaxy", "pod": pod}} for pod, at in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    with socket.create_server(("127.0.0.1", 0)) as found:
        address = f"127.0.0.1:{found.getsockname()[1]}"
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(PROMETHEUS),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}",
            "--enable-feature=exemplar-storage",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
    try:
        async with asyncio.timeout(BOUND):
            while not await asyncio.to_thread(_is_ready, address):
                assert process.returncode is None, (folder / "prometheus.log").read_text()
                await asyncio.sleep(0.1)
        yield address
    finally:
        process.terminate()
        async with asyncio.timeout(10):
            await process.wait()


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
            return True
    except OSError:
        return False


def _says_something(answer: list[Any]) -> bool:
    """Whether there is a value that is a number."""
    return any(series["value"][1] != "NaN" for series in answer)


async def asked(address: str, path: str, **parameters: str) -> Any:
    """The answer of Prometheus' API."""

    def fetch() -> Any:
        url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters}: {error.read().decode()}")

    return await asyncio.to_thread(fetch)


async def test_every_panel_and_every_choice_has_an_answer(tmp_path: Path) -> None:
    async with nodes() as targets, prometheus(tmp_path, targets) as address, asyncio.timeout(BOUND):
        left = [*MONITORING, *HTTP_BY_WORKLOAD, *DNS_BY_NAMESPACE, *NETWORK_BY_NAMESPACE, *OWN]
        try:
            while left:
                await asyncio.sleep(0.5)
                answers = [(await asked(address, "query", query=query))["result"] for query in left]
                left = [query for query, answer in zip(left, answers, strict=True) if not _says_something(answer)]
        except TimeoutError:
            pytest.fail(f"no data for: {left}")
        for (metric, label), values in CHOICES.items():
            assert await asked(address, f"label/{label}/values", **{"match[]": metric}) == values, (metric, label)
        exemplars = await asked(
            address, "query_exemplars", query="hubble_http_requests_total", start="0", end="9999999999"
        )
        assert exemplars[0]["exemplars"][0]["labels"] == {"traceID": "0af7651916cd43dd8448eb211c80319c"}
        up = (await asked(address, "query", query="up"))["result"]
        assert [series["value"][1] for series in up] == ["1", "1"]
