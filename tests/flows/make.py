"""Makers in the words of the domain: a galaxy of known addresses, access-log entries, packets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from flow import flow_pb2
from google.protobuf.wrappers_pb2 import StringValue
from seen import seen_pb2

from flows.build import POLICY_DENY
from flows.intake import Intake
from flows.lookups import NO_REASON, EndpointRef, PolicyRef, Reason, ServiceRef, WorkloadRef
from flows.record import HttpRecord, PacketKind, PacketRecord, PacketVerdict, Parsed, TlsRefusal
from flows.ring import CAPACITY, Ring
from policies.types import Direction

SLOT, TLS_SLOT = "ingress:4711:tcp:80", "egress:4711:tcp:443:tls"
TIEFIGHTER, XWING, DEATHSTAR, SERVICE = "10.0.0.2", "10.0.0.3", "10.0.0.7", "172.20.0.1"
START_NS = 1_768_385_472_000_000_000
METHODS = ("", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")


def labels(**pairs: str) -> tuple[str, ...]:
    return tuple(sorted([*(f"k8s:{key}={value}" for key, value in pairs.items()), NAMESPACE_LABEL]))


NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace=default"
PODS = {
    TIEFIGHTER: EndpointRef(2222, 12, "default", "tiefighter", labels(org="empire", **{"class": "tiefighter"})),
    XWING: EndpointRef(3333, 13, "default", "xwing", labels(org="alliance", **{"class": "xwing"})),
    DEATHSTAR: EndpointRef(
        4711,
        17,
        "default",
        "deathstar-1",
        labels(org="empire", **{"class": "deathstar"}),
        (WorkloadRef("deathstar", "Deployment"),),
    ),
}


@dataclass(frozen=True)
class Galaxy:
    """A view: three pods, one service, and the world."""

    pods: dict[str, EndpointRef] = field(default_factory=lambda: dict(PODS))
    node_name: str = "n1"
    node_labels: tuple[str, ...] = ()
    names: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    policies: tuple[PolicyRef, ...] = ()
    why: Reason = NO_REASON  # of every request

    def endpoint_by_ip(self, ip: str) -> EndpointRef | None:
        return self.pods.get(ip)

    def identity_by_ip(self, ip: str) -> int:
        return self.pods[ip].identity if ip in self.pods else 2

    def identity_labels(self, identity: int) -> tuple[str, ...]:
        known = {pod.identity: pod.labels for pod in self.pods.values()}
        return known.get(identity, ("reserved:world",) if identity == 2 else ())

    def service_by_address(self, ip: str, port: int) -> ServiceRef | None:
        return ServiceRef("deathstar", "default") if (ip, port) == (SERVICE, 80) else None

    def names_of(self, ip: str, by: str) -> tuple[str, ...]:
        return self.names.get((ip, by), ())

    def why_request(self, record: HttpRecord) -> Reason:
        return self.why

    def why_parsed(self, record: Parsed) -> Reason:
        return self.why

    def why_refused(self, record: TlsRefusal) -> Reason:
        return self.why

    def why_packet(self, record: PacketRecord) -> Reason:
        is_default_deny = record.verdict is PacketVerdict.DROPPED and record.drop_reason != POLICY_DENY
        return NO_REASON if is_default_deny else Reason(self.policies)


def refused(server_name: str = "", by: str = "deny") -> bytes:
    """A message with one TLS connection that the proxy has closed."""
    made = StreamAccessLogsMessage()
    common = made.tcp_logs.log_entry.add().common_properties
    _put(common.downstream_remote_address, TIEFIGHTER, 40000)
    _put(common.downstream_local_address, "192.0.2.7", 443)
    states = {"deflector.slot": TLS_SLOT, "deflector.refused": by, "deflector.server-name": server_name}
    for key, value in states.items():
        if value:
            common.filter_state_objects[key].Pack(StringValue(value=value))
    wire: bytes = made.SerializeToString()
    return wire


def entry(
    *,
    ended: bool = True,
    code: int = 200,
    details: str = "via_upstream",
    request: str = "PUT /v1/exhaust-port",
    port: int = 40000,
    latency_ns: int = 1_234_567,
    slot: str | None = SLOT,
    routed: bool = True,
    headers: dict[str, str] | None = None,
    answered: dict[str, str] | None = None,
    **more: Any,
) -> HTTPAccessLogEntry:
    """An entry as Envoy writes it; `more` sets request properties by name."""
    method, path = request.split(" ", 1)
    made = HTTPAccessLogEntry(protocol_version=2)
    common = made.common_properties
    common.access_log_type = 6 if ended else 5
    common.start_time.FromNanoseconds(more.pop("start_ns", START_NS))
    verdict = common.metadata.filter_metadata["envoy.filters.http.rbac"]
    verdict["enforced_engine_result"] = "denied" if details.startswith("rbac_access_denied") else "allowed"
    _put(common.downstream_remote_address, more.pop("client", TIEFIGHTER), port)
    _put(common.downstream_local_address, more.pop("server", DEATHSTAR), 80)
    if slot is not None:
        common.route_name = slot if routed else ""
        common.filter_state_objects["deflector.slot"].Pack(StringValue(value=slot))
    if method in METHODS:
        made.request.request_method = METHODS.index(method)
    else:
        made.request.request_headers[":method"] = method
    made.request.scheme, made.request.authority, made.request.path = "http", "deathstar", path
    made.request.request_headers.update(headers or {})
    for name, value in more.items():
        setattr(made.request, name, value)
    if ended:
        made.response.response_code.value = code
        made.response.response_code_details = details
        made.response.response_headers.update(answered or {})
        seconds, nanos = divmod(latency_ns, 10**9)
        common.time_to_first_downstream_tx_byte.seconds = seconds
        common.time_to_first_downstream_tx_byte.nanos = nanos
    return made


def denied(rule: str = "default-deny", **more: Any) -> HTTPAccessLogEntry:
    """The only entry of a request that RBAC denied."""
    return entry(code=403, details=f"rbac_access_denied_matched_policy[{rule}]", **more)


def exchange(**more: Any) -> list[HTTPAccessLogEntry]:
    """Both entries of an allowed request that takes a while."""
    return [entry(ended=False, **more), entry(**more)]


def message(*entries: HTTPAccessLogEntry) -> bytes:
    made = StreamAccessLogsMessage()
    made.http_logs.log_entry.extend(entries)
    return made.SerializeToString()


def seen(made: HTTPAccessLogEntry) -> seen_pb2.Entry:
    """The same entry as we read it."""
    return seen_pb2.Entry.FromString(made.SerializeToString())


def _put(address: Any, ip: str, port: int) -> None:
    address.socket_address.address = ip
    address.socket_address.port_value = port


def drop(**more: Any) -> PacketRecord:
    """xwing's SYN to the deathstar, which no rule allows."""
    given: dict[str, Any] = {
        "kind": PacketKind.DROP,
        "source_ip": XWING,
        "destination_ip": DEATHSTAR,
        "source_port": 50000,
        "destination_port": 80,
        "verdict": PacketVerdict.DROPPED,
        "direction": Direction.INGRESS,
        "tcp_flags": 0x02,
        "drop_reason": 133,
    }
    return PacketRecord(**(given | more))


def uuids() -> Iterator[bytes]:
    return (b"00000000-0000-4000-8000-%012d" % number for number in itertools.count(1))


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    ns: int = 1_768_385_472_345_678_901

    def __call__(self) -> int:
        return self.ns


def intake(view: Any = None, *, capacity: int = CAPACITY, clock: Clock | None = None, reading: bool = True) -> Intake:
    """An intake that builds at once, as if somebody read."""
    numbers, current = uuids(), view or Galaxy()
    made = Intake(
        Ring(capacity),
        current if callable(current) else lambda: current,
        version="0.1.0",
        now_ns=clock or Clock(),
        new_uuid=lambda: next(numbers),
    )
    made.reading = reading
    return made


def flows_in(ring: Ring) -> list[flow_pb2.Flow]:
    """All flows that the ring holds, oldest first."""
    return [ring[at].flow() for at in range(ring.start, ring.end) if not ring[at].is_loss]
