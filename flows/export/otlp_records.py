"""Flows as OpenTelemetry log records: severity by verdict, attributes by the semantic conventions. Pure.

The classes are those of OTLP 0.7 that come with Envoy's; what is newer goes in and out by its number (the wire form is
stable: opentelemetry-proto, logs.proto and logs_service.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from flow import flow_pb2
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from google.protobuf.wrappers_pb2 import Int64Value
from observer import observer_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2

from flows.jsonpb import to_json

SCOPE: Final = "deflector.flows"
SERVICE: Final = "deflector"
_OBSERVED: Final = struct.pack("<B", 11 << 3 | 1)  # observed_time_unix_nano, fixed64
_PARTIAL_SUCCESS: Final = 1  # in ExportLogsServiceResponse

INFO, WARN, ERROR, DEBUG = 9, 13, 17, 5  # SeverityNumber
_TEXTS: Final = {INFO: "INFO", WARN: "WARN", ERROR: "ERROR", DEBUG: "DEBUG"}
SEVERITIES: Final = {
    flow_pb2.FORWARDED: INFO,
    flow_pb2.REDIRECTED: INFO,
    flow_pb2.TRANSLATED: INFO,
    flow_pb2.TRACED: DEBUG,
    flow_pb2.DROPPED: WARN,
    flow_pb2.AUDIT: WARN,
    flow_pb2.ERROR: ERROR,
}
_NETWORKS: Final = {flow_pb2.IPv4: "ipv4", flow_pb2.IPv6: "ipv6"}

Value = str | int
Attributes = Iterator[tuple[str, Value]]


def request(
    events: Iterable[observer_pb2.ExportEvent], node_name: str, version: str, now_ns: int
) -> logs_service_pb2.ExportLogsServiceRequest:
    """What a collector is sent."""
    made = logs_service_pb2.ExportLogsServiceRequest()
    resource = made.resource_logs.add()
    about = {"service.name": SERVICE, "service.version": version, "k8s.node.name": node_name}
    _put(resource.resource.attributes, about)
    logs = resource.instrumentation_library_logs.add()
    logs.instrumentation_library.name, logs.instrumentation_library.version = SCOPE, version
    logs.logs.extend(record(event, now_ns) for event in events)
    return made


def rejected(response: logs_service_pb2.ExportLogsServiceResponse) -> int:
    """How many records the collector did not take."""
    for answer in UnknownFieldSet(response):  # type: ignore[attr-defined]
        if answer.field_number == _PARTIAL_SUCCESS and isinstance(answer.data, bytes):
            try:
                return int(Int64Value.FromString(answer.data).value)  # rejected_log_records has the number of its value
            except DecodeError:
                return 0  # what it says is nothing that it could mean
    return 0


def record(event: observer_pb2.ExportEvent, now_ns: int) -> logs_pb2.LogRecord:
    """One flow, or notice of a loss; its json is the body."""
    made = logs_pb2.LogRecord(time_unix_nano=event.time.ToNanoseconds() if event.HasField("time") else now_ns)
    made.MergeFromString(_OBSERVED + struct.pack("<Q", now_ns))
    severity = WARN
    if event.HasField("flow"):
        severity = SEVERITIES.get(event.flow.verdict, INFO)
        _put(made.attributes, dict(_attributes(event.flow)))
        trace = event.flow.trace_context.parent.trace_id
        if len(trace) == 32:
            try:
                made.trace_id = bytes.fromhex(trace)
            except ValueError:
                pass  # whoever sent it made it up
    made.severity_number, made.severity_text = severity, _TEXTS[severity]
    made.body.string_value = to_json(event)
    return made


def _attributes(flow: flow_pb2.Flow) -> Attributes:
    yield "hubble.verdict", flow_pb2.Verdict.Name(flow.verdict)
    yield "hubble.type", flow_pb2.FlowType.Name(flow.Type)
    yield "hubble.traffic_direction", flow_pb2.TrafficDirection.Name(flow.traffic_direction)
    yield "hubble.uuid", flow.uuid
    if flow.verdict == flow_pb2.DROPPED and flow.drop_reason_desc:
        reason = flow_pb2.DropReason.DESCRIPTOR.values_by_number.get(flow.drop_reason_desc)
        yield "hubble.drop_reason", reason.name if reason is not None else str(flow.drop_reason_desc)
    yield "source.address", flow.IP.source
    yield "destination.address", flow.IP.destination
    yield "network.type", _NETWORKS.get(flow.IP.ipVersion, "")
    yield from _transport(flow.l4)
    for name, end in (("source", flow.source), ("destination", flow.destination)):
        yield f"hubble.{name}.namespace", end.namespace
        yield f"hubble.{name}.pod", end.pod_name
        yield f"hubble.{name}.workload", end.workloads[0].name if end.workloads else ""
        yield f"hubble.{name}.identity", end.identity
    yield from _layer7(flow.l7)


def _transport(l4: flow_pb2.Layer4) -> Attributes:
    protocol = l4.WhichOneof("protocol")
    if protocol is None:
        return
    yield "network.transport", protocol.lower()
    if protocol in ("TCP", "UDP", "SCTP"):
        ports = getattr(l4, protocol)
        yield "source.port", ports.source_port
        yield "destination.port", ports.destination_port


def _layer7(l7: flow_pb2.Layer7) -> Attributes:
    kind = l7.WhichOneof("record")
    if kind is None:
        return
    yield "network.protocol.name", kind
    if kind == "http":
        yield "http.request.method", l7.http.method
        yield "http.response.status_code", l7.http.code
        yield "url.full", l7.http.url
        yield "network.protocol.version", l7.http.protocol.partition("/")[2]
    elif kind == "dns":
        yield "dns.question.name", l7.dns.query.removesuffix(".")
    else:
        yield "messaging.system", "kafka"
        yield "messaging.destination.name", l7.kafka.topic


def _put(into: object, attributes: Mapping[str, Value]) -> None:
    """Those that say something."""
    assert hasattr(into, "add")
    for key, value in attributes.items():
        if value:
            kind = "string_value" if isinstance(value, str) else "int_value"
            into.add(key=key, value=common_pb2.AnyValue(**{kind: value}))
