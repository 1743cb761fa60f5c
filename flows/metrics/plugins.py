"""What each of Hubble's metrics counts in a flow (facts section 7). Pure: functions, flow in, samples out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from flow import flow_pb2

from flows.metrics.context import direction_text
from flows.summary import ICMP4, ICMP6, icmp_name
from flows.words import DNS_RCODES, MATCH_TYPES, OBSERVATION_POINTS

FORWARDED: Final = (flow_pb2.FORWARDED, flow_pb2.REDIRECTED)
REPORTERS: Final = {flow_pb2.EGRESS: "client", flow_pb2.INGRESS: "server"}
EVENT_TYPES: Final = {1: "Drop", 3: "Capture", 4: "Trace", 5: "PolicyVerdict", 129: "L7"}
WORLD: Final = frozenset({"reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"})
HOST: Final = "reserved:host"
L7_NAMES: Final = {"dns": "DNS", "http": "HTTP", "kafka": "Kafka"}
DENIED_RCODE: Final = "Policy denied"


class Sample(NamedTuple):
    """One count of 1, or one observed duration in seconds. `is_swapped`: labels say client and server, though the flow
    goes from server to client."""

    family: str
    labels: tuple[str, ...]
    seconds: float | None = None
    is_swapped: bool = False
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class FamilySpec:
    """A metric family with its own labels; `optional`: option -> the label that it adds."""

    name: str
    help: str
    labels: tuple[str, ...]
    is_histogram: bool = False
    optional: tuple[tuple[str, str], ...] = ()


Options = frozenset[str]
Samples = Callable[[flow_pb2.Flow, Options], Iterator[Sample]]


@dataclass(frozen=True, slots=True)
class Plugin:
    """One metric that can be configured."""

    families: tuple[FamilySpec, ...]
    samples: Samples


def protocol_of(flow: flow_pb2.Flow) -> str:
    """The protocol label: the layer 7 protocol if there is one, else that of layer 4."""
    if flow.HasField("l7"):
        return L7_NAMES.get(flow.l7.WhichOneof("record") or "", "Unknown L7")
    if flow.HasField("l4"):
        return flow.l4.WhichOneof("protocol") or "Unknown L4"
    return "Unknown flow"


def _dns(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    if flow.l7.WhichOneof("record") != "dns":
        return
    dns = flow.l7.dns
    if "ignoreAAAA" in options and list(dns.qtypes) == ["AAAA"]:
        return
    query = (dns.query.removesuffix("."),) if "query" in options else ()
    qtypes, ips = ",".join(dns.qtypes), str(len(dns.ips))
    if flow.verdict == flow_pb2.DROPPED:
        yield Sample("hubble_dns_queries_total", (DENIED_RCODE, qtypes, ips, *query))
    elif flow.l7.type == flow_pb2.REQUEST:
        yield Sample("hubble_dns_queries_total", ("", qtypes, ips, *query))
    elif flow.l7.type == flow_pb2.RESPONSE:
        rcode = DNS_RCODES.get(dns.rcode, str(dns.rcode))
        yield Sample("hubble_dns_responses_total", (rcode, qtypes, ips, *query))
        for kind in dns.rrtypes:
            yield Sample("hubble_dns_response_types_total", (kind, qtypes, *query))


def _drop(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    if flow.verdict == flow_pb2.DROPPED:
        yield Sample("hubble_drop_total", (_drop_reason(flow), protocol_of(flow)))


def _drop_reason(flow: flow_pb2.Flow) -> str:
    value = flow_pb2.DropReason.DESCRIPTOR.values_by_number.get(flow.drop_reason_desc)
    return value.name if value is not None else str(flow.drop_reason_desc)


def _tcp(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    if flow.verdict not in FORWARDED or not flow.l4.TCP.HasField("flags"):
        return
    flags, family = flow.l4.TCP.flags, flow_pb2.IPVersion.Name(flow.IP.ipVersion)
    if flags.FIN:
        yield Sample("hubble_tcp_flags_total", ("FIN", family))
    if flags.SYN:
        yield Sample("hubble_tcp_flags_total", ("SYN-ACK" if flags.ACK else "SYN", family))
    if flags.RST:
        yield Sample("hubble_tcp_flags_total", ("RST", family))


def _flow(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    number, sub_type = flow.event_type.type, flow.event_type.sub_type
    kind, subtype = EVENT_TYPES.get(number, "Unknown"), ""
    if number == 129:
        subtype = L7_NAMES.get(flow.l7.WhichOneof("record") or "", "")
    elif number == 4:
        subtype = OBSERVATION_POINTS[sub_type] if sub_type < len(OBSERVATION_POINTS) else str(sub_type)
    elif kind == "Unknown":
        subtype = str(number)
    verdict = flow_pb2.Verdict.Name(flow.verdict)
    yield Sample("hubble_flows_processed_total", (protocol_of(flow), kind, subtype, verdict))


def _port_distribution(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    is_first = flow.HasField("is_reply") and not flow.is_reply.value
    if flow.verdict in FORWARDED and flow.HasField("l4") and is_first:
        yield Sample("hubble_port_distribution_total", (protocol_of(flow), _port(flow)))


def _port(flow: flow_pb2.Flow) -> str:
    match flow.l4.WhichOneof("protocol"):
        case "TCP":
            return str(flow.l4.TCP.destination_port)
        case "UDP":
            return str(flow.l4.UDP.destination_port)
        case "SCTP":
            return str(flow.l4.SCTP.destination_port)
    return "0"


def _icmp(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    match flow.l4.WhichOneof("protocol"):
        case "ICMPv4":
            four = flow.l4.ICMPv4
            yield Sample("hubble_icmp_total", ("IPv4", icmp_name(ICMP4, four.type, four.code)))
        case "ICMPv6":
            six = flow.l4.ICMPv6
            yield Sample("hubble_icmp_total", ("IPv6", icmp_name(ICMP6, six.type, six.code)))


def _http(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    if flow.l7.WhichOneof("record") != "http":
        return
    http, reporter, trace = flow.l7.http, _reporter(flow), _exemplar(flow, options)
    if flow.l7.type == flow_pb2.REQUEST:
        yield Sample("hubble_http_requests_total", (http.method, http.protocol, reporter), trace_id=trace)
    elif flow.l7.type == flow_pb2.RESPONSE:
        labels = (http.method, http.protocol, str(http.code), reporter)
        yield Sample("hubble_http_responses_total", labels, trace_id=trace)
        yield Sample("hubble_http_request_duration_seconds", (http.method, reporter), _seconds(flow), trace_id=trace)


def _http_v2(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    if flow.l7.WhichOneof("record") != "http" or flow.l7.type != flow_pb2.RESPONSE:
        return
    http, reporter, trace = flow.l7.http, _reporter(flow), _exemplar(flow, options)
    labels = (http.method, http.protocol, str(http.code), reporter)
    yield Sample("hubble_http_requests_total", labels, None, True, trace)
    duration = (http.method, reporter)
    yield Sample("hubble_http_request_duration_seconds", duration, _seconds(flow), True, trace)


def _kafka(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    if flow.l7.WhichOneof("record") != "kafka" or flow.l7.type != flow_pb2.REQUEST:
        return
    kafka, reporter = flow.l7.kafka, _reporter(flow)
    yield Sample("hubble_kafka_requests_total", (kafka.topic, kafka.api_key, str(kafka.error_code), reporter))
    yield Sample("hubble_kafka_request_duration_seconds", (kafka.topic, kafka.api_key, reporter), _seconds(flow))


def _flows_to_world(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    if WORLD.isdisjoint(flow.destination.labels):
        return
    is_dropped, is_reply = flow.verdict == flow_pb2.DROPPED, flow.is_reply.value
    if is_dropped:
        if "any-drop" not in options and flow.drop_reason_desc != flow_pb2.POLICY_DENIED:
            return
    elif is_reply:
        return
    if "syn-only" in options and (not flow.l4.TCP.flags.SYN or is_reply):
        return
    port = (_port(flow),) if "port" in options else ()
    yield Sample("hubble_flows_to_world_total", (protocol_of(flow), flow_pb2.Verdict.Name(flow.verdict), *port))


def _policy(flow: flow_pb2.Flow, options: Options) -> Iterator[Sample]:
    if flow.event_type.type == 129:
        match = f"l7/{flow.l7.WhichOneof('record') or 'unknown'}"
    elif flow.event_type.type == 5 and HOST not in flow.source.labels:
        known = flow.policy_match_type < len(MATCH_TYPES)
        match = MATCH_TYPES[flow.policy_match_type].lower() if known else str(flow.policy_match_type)
    else:
        return
    action = flow_pb2.Verdict.Name(flow.verdict).lower()
    yield Sample("hubble_policy_verdicts_total", (direction_text(flow), match, action))


def _reporter(flow: flow_pb2.Flow) -> str:
    return REPORTERS.get(flow.traffic_direction, "unknown")


def _seconds(flow: flow_pb2.Flow) -> float:
    return flow.l7.latency_ns / 1e9


def _exemplar(flow: flow_pb2.Flow, options: Options) -> str:
    return flow.trace_context.parent.trace_id if "exemplars" in options else ""


_DURATION: Final = "hubble_http_request_duration_seconds"
_DURATION_HELP: Final = "Quantiles of HTTP request duration in seconds"
_QUERY: Final = (("query", "query"),)
PLUGINS: Final[dict[str, Plugin]] = {
    "dns": Plugin(
        (
            FamilySpec(
                "hubble_dns_queries_total",
                "Number of DNS queries observed",
                ("rcode", "qtypes", "ips_returned"),
                optional=_QUERY,
            ),
            FamilySpec(
                "hubble_dns_responses_total",
                "Number of DNS queries observed",
                ("rcode", "qtypes", "ips_returned"),
                optional=_QUERY,
            ),
            FamilySpec(
                "hubble_dns_response_types_total", "Number of DNS queries observed", ("type", "qtypes"), optional=_QUERY
            ),
        ),
        _dns,
    ),
    "drop": Plugin((FamilySpec("hubble_drop_total", "Number of drops", ("reason", "protocol")),), _drop),
    "tcp": Plugin((FamilySpec("hubble_tcp_flags_total", "TCP flag occurrences", ("flag", "family")),), _tcp),
    "flow": Plugin(
        (
            FamilySpec(
                "hubble_flows_processed_total",
                "Total number of flows processed",
                ("protocol", "type", "subtype", "verdict"),
            ),
        ),
        _flow,
    ),
    "port-distribution": Plugin(
        (
            FamilySpec(
                "hubble_port_distribution_total",
                "Numbers of packets distributed by destination port",
                ("protocol", "port"),
            ),
        ),
        _port_distribution,
    ),
    "icmp": Plugin((FamilySpec("hubble_icmp_total", "Number of ICMP messages", ("family", "type")),), _icmp),
    "http": Plugin(
        (
            FamilySpec("hubble_http_requests_total", "Count of HTTP requests", ("method", "protocol", "reporter")),
            FamilySpec(
                "hubble_http_responses_total", "Count of HTTP responses", ("method", "protocol", "status", "reporter")
            ),
            FamilySpec(_DURATION, _DURATION_HELP, ("method", "reporter"), is_histogram=True),
        ),
        _http,
    ),
    "httpV2": Plugin(
        (
            FamilySpec(
                "hubble_http_requests_total", "Count of HTTP requests", ("method", "protocol", "status", "reporter")
            ),
            FamilySpec(_DURATION, _DURATION_HELP, ("method", "reporter"), is_histogram=True),
        ),
        _http_v2,
    ),
    "kafka": Plugin(
        (
            FamilySpec(
                "hubble_kafka_requests_total", "Count of Kafka requests", ("topic", "api_key", "error_code", "reporter")
            ),
            FamilySpec(
                "hubble_kafka_request_duration_seconds",
                "Quantiles of Kafka request duration in seconds",
                ("topic", "api_key", "reporter"),
                is_histogram=True,
            ),
        ),
        _kafka,
    ),
    "flows-to-world": Plugin(
        (
            FamilySpec(
                "hubble_flows_to_world_total",
                "Total number of flows to the world",
                ("protocol", "verdict"),
                optional=(("port", "port"),),
            ),
        ),
        _flows_to_world,
    ),
    "policy": Plugin(
        (
            FamilySpec(
                "hubble_policy_verdicts_total", "Total number of policy verdicts", ("direction", "match", "action")
            ),
        ),
        _policy,
    ),
}
