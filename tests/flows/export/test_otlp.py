"""Flows to a real gRPC server that plays a collector: good, slow, dead, and refusing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from flow import flow_pb2
from observer import observer_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from prometheus_client import CollectorRegistry

from flows.export import admission, otlp
from flows.export.otlp import METHOD, OtlpExporter, OtlpSpec
from flows.export.otlp_records import record, rejected
from tests.flows.certificates import Authority

TRACE = "0af7651916cd43dd8448eb211c80319c"


def event(verdict: str = "DROPPED", **more: Any) -> observer_pb2.GetFlowsResponse:
    flow = flow_pb2.Flow(
        verdict=verdict,  # type: ignore[arg-type]
        uuid="u1",
        Type=flow_pb2.L7,
        traffic_direction=flow_pb2.INGRESS,
        IP=flow_pb2.IP(source="10.0.0.2", destination="10.0.0.7", ipVersion=flow_pb2.IPv4),
        l4=flow_pb2.Layer4(TCP=flow_pb2.TCP(source_port=40000, destination_port=80)),
        source=flow_pb2.Endpoint(namespace="default", pod_name="xwing", identity=3333),
        destination=flow_pb2.Endpoint(workloads=[flow_pb2.Workload(name="deathstar")]),
        **more,
    )
    sent = observer_pb2.GetFlowsResponse(flow=flow, node_name="n1")
    sent.time.seconds = sent.flow.time.seconds = 1_768_385_472
    return sent


RESPONSE = event().SerializeToString()


class Collector:
    """`refuse` is a status to answer with; `partly`: how many records it does not take."""

    def __init__(self) -> None:
        self.requests: list[logs_service_pb2.ExportLogsServiceRequest] = []
        self.refuse: grpc.StatusCode | None = None
        self.partly = 0

    @property
    def records(self) -> list[logs_pb2.LogRecord]:
        found = []
        for request in self.requests:
            for resource in request.resource_logs:
                for library in resource.instrumentation_library_logs:
                    found += library.logs
        return found

    def export(self, wire: bytes, context: grpc.ServicerContext) -> bytes:
        if self.refuse is not None:
            context.abort(self.refuse, "not now")
        self.requests.append(logs_service_pb2.ExportLogsServiceRequest.FromString(wire))
        return b"\x0a\x02\x08" + bytes([self.partly]) if self.partly else b""


@contextmanager
def serving(collector: Collector, port: int = 0, tls: grpc.ServerCredentials | None = None) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    _, package_service, method = METHOD.split("/")
    handler = grpc.unary_unary_rpc_method_handler(collector.export)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(package_service, {method: handler}),))
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(None).wait()


@contextmanager
def exporting(spec: OtlpSpec, complaints: list[str] | None = None) -> Iterator[OtlpExporter]:
    exporter = OtlpExporter(spec, "n1", "0.1.0", (complaints if complaints is not None else []).append)
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.stop()
    c = exporter.counts
    assert c.offered == c.sent + c.rejected + c.failed + c.dropped


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "GATHER", 0.02)
    monkeypatch.setattr(otlp, "RETRY_FIRST", 0.05)
    monkeypatch.setattr(otlp, "RECONNECT_MS", 100)


def attributes(made: logs_pb2.LogRecord) -> dict[str, str | int]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in made.attributes}


def test_a_flow_is_a_record_with_the_conventions_names() -> None:
    http = flow_pb2.HTTP(code=403, method="PUT", url="http://deathstar/v1/exhaust-port", protocol="HTTP/1.1")
    trace = flow_pb2.TraceContext(parent=flow_pb2.TraceParent(trace_id=TRACE))
    sent = event(l7=flow_pb2.Layer7(type=flow_pb2.RESPONSE, http=http), trace_context=trace)
    made = record(observer_pb2.ExportEvent.FromString(sent.SerializeToString()), 7)
    assert (made.severity_number, made.severity_text) == (13, "WARN")
    assert made.time_unix_nano == 1_768_385_472_000_000_000
    assert made.trace_id == bytes.fromhex(TRACE)
    assert made.body.string_value.startswith('{"flow":{"time":"2026-01-14T10:11:12Z","uuid":"u1","verdict":"DROPPED"')
    assert attributes(made) == {
        "destination.address": "10.0.0.7",
        "destination.port": 80,
        "http.request.method": "PUT",
        "http.response.status_code": 403,
        "hubble.destination.workload": "deathstar",
        "hubble.source.identity": 3333,
        "hubble.source.namespace": "default",
        "hubble.source.pod": "xwing",
        "hubble.traffic_direction": "INGRESS",
        "hubble.type": "L7",
        "hubble.uuid": "u1",
        "hubble.verdict": "DROPPED",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "network.transport": "tcp",
        "network.type": "ipv4",
        "source.address": "10.0.0.2",
        "source.port": 40000,
        "url.full": "http://deathstar/v1/exhaust-port",
    }


@pytest.mark.parametrize(("verdict", "severity"), [("FORWARDED", 9), ("ERROR", 17), ("AUDIT", 13), ("TRACED", 5)])
def test_severity_is_by_verdict(verdict: str, severity: int) -> None:
    assert (
        record(observer_pb2.ExportEvent.FromString(event(verdict).SerializeToString()), 7).severity_number == severity
    )


def test_when_it_was_observed_is_where_newer_readers_look() -> None:
    wire = record(observer_pb2.ExportEvent(), 0x0102030405060708).SerializeToString()
    assert b"\x59\x08\x07\x06\x05\x04\x03\x02\x01" in wire


def test_a_trace_id_that_somebody_made_up_is_left_out() -> None:
    trace = flow_pb2.TraceContext(parent=flow_pb2.TraceParent(trace_id="z" * 32))
    sent = event(trace_context=trace).SerializeToString()
    assert record(observer_pb2.ExportEvent.FromString(sent), 7).trace_id == b""


def test_flows_come_in_batches_with_the_node_they_are_of() -> None:
    collector = Collector()
    with serving(collector) as endpoint, exporting(OtlpSpec(endpoint, insecure=True)) as exporter:
        exporter.offer([RESPONSE] * 1000)
        until(lambda: len(collector.records) == 1000)
        assert len(collector.requests) == 2
        about = {one.key: one.value.string_value for one in collector.requests[0].resource_logs[0].resource.attributes}
        assert about == {"service.name": "deflector", "service.version": "0.1.0", "k8s.node.name": "n1"}


def test_a_collector_that_was_dead_gets_what_waited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    collector, complaints = Collector(), list[str]()
    with exporting(OtlpSpec(f"127.0.0.1:{port}", insecure=True), complaints) as exporter:
        exporter.offer([RESPONSE] * 3)
        until(lambda: bool(complaints))
        assert complaints == [f"{exporter.trouble}; trying again"]
        exporter.offer([RESPONSE])
        registry = CollectorRegistry()
        registry.register(exporter)
        until(lambda: registry.get_sample_value("deflector_otlp_queue_events") == 4)
        with serving(collector, port):
            until(lambda: len(collector.records) == 4)
            until(lambda: exporter.trouble == "")
            until(lambda: registry.get_sample_value("deflector_otlp_queue_events") == 0)
        assert complaints[0].startswith(f"collector 127.0.0.1:{port}: UNAVAILABLE: ")
        assert len(complaints) == 1


def test_a_collector_that_stays_dead_costs_what_does_not_fit_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "QUEUE_EVENTS", 1000)
    monkeypatch.setattr(admission, "DENIALS_MORE", 100)
    registry = CollectorRegistry()
    with exporting(OtlpSpec("127.0.0.1:1", insecure=True)) as exporter:
        registry.register(exporter)
        begun = time.monotonic()
        for _ in range(100):
            exporter.offer([RESPONSE] * 100)
        assert time.monotonic() - begun < 1.0
        assert exporter.counts.dropped >= 10_000 - 1100 - 512
        until(lambda: registry.get_sample_value("deflector_otlp_up") == 0)
    assert exporter.counts.sent == 0
    assert registry.get_sample_value("deflector_otlp_events_total", {"outcome": "offered"}) == 10_000


def test_what_a_collector_refuses_for_good_is_not_tried_again() -> None:
    collector = Collector()
    collector.refuse = grpc.StatusCode.INVALID_ARGUMENT
    with serving(collector) as endpoint, exporting(OtlpSpec(endpoint, insecure=True)) as exporter:
        exporter.offer([RESPONSE] * 2)
        until(lambda: exporter.counts.failed == 2)
        collector.refuse, collector.partly = None, 1
        exporter.offer([RESPONSE] * 3)
        until(lambda: exporter.counts.sent == 2)
        assert exporter.counts.rejected == 1


def test_what_a_full_collector_refuses_is_tried_again() -> None:
    collector = Collector()
    collector.refuse = grpc.StatusCode.RESOURCE_EXHAUSTED
    with serving(collector) as endpoint, exporting(OtlpSpec(endpoint, insecure=True)) as exporter:
        exporter.offer([RESPONSE] * 2)
        until(lambda: bool(exporter.trouble))
        collector.refuse = None
        until(lambda: exporter.counts.sent == 2)


def test_a_collector_with_tls(tmp_path: Path) -> None:
    authority, collector = Authority(tmp_path), Collector()
    certificate, key = (path.read_bytes() for path in authority.sign("localhost", "localhost"))
    trusted = authority.certificate.read_bytes()
    tls = grpc.ssl_server_credentials([(key, certificate)], trusted, require_client_auth=True)
    with serving(collector, tls=tls) as endpoint:
        port = endpoint.rpartition(":")[2]
        spec = OtlpSpec(f"localhost:{port}", False, authority.certificate, *authority.sign("node"))
        with exporting(spec) as exporter:
            exporter.offer([RESPONSE])
            until(lambda: len(collector.records) == 1)
    with pytest.raises(FileNotFoundError):
        OtlpExporter(OtlpSpec("x:1", ca=tmp_path / "none"), "n1", "0", print)


def test_an_end_does_not_wait_for_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "RETRY_FIRST", 60.0)
    with exporting(OtlpSpec("127.0.0.1:1", insecure=True)) as exporter:
        exporter.offer([RESPONSE])
        until(lambda: bool(exporter.trouble))
        begun = time.monotonic()
        exporter.stop()
        assert time.monotonic() - begun < otlp.FAREWELL
        assert not any(thread.name == "export otlp" and thread.is_alive() for thread in threading.enumerate())
    assert exporter.counts.failed == 1


def test_an_answer_without_a_complaint_rejects_nothing() -> None:
    assert rejected(logs_service_pb2.ExportLogsServiceResponse()) == 0
