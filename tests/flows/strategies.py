"""Random responses of GetFlows, also improbable ones: for property tests, and for comparing printers."""

from __future__ import annotations

from typing import Any

from flow import flow_pb2
from hypothesis import strategies as st
from observer import observer_pb2
from relay import relay_pb2

# Text that lands in terminals and JSON: escapes, markup, separators, wide characters.
AWKWARD = st.sampled_from(("<a>&b", 'q"\\', "\x1b[31mred", "\x1b[0m", "a\rb", "\u2028", "ü 漢", "\x7f", "\b\f", "é"))
WORDS = st.one_of(st.from_regex(r"[a-z]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True), AWKWARD)
NAMES = st.one_of(st.just(""), WORDS)
IPS = st.sampled_from(("10.0.0.1", "10.0.0.2", "192.168.7.9", "fd00::1", "fd00::2", "8.8.8.8", ""))
UINT32 = st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1))
UINT64 = st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1))
PORTS = st.sampled_from((0, 53, 80, 443, 40000, 65535))


def times() -> st.SearchStrategy[dict[str, int]]:
    nanos = st.sampled_from((0, 5, 1_000_000, 120_000_000, 345_678_901, 999_999_999, 345_000, 100))
    return st.builds(lambda s, n: {"seconds": s, "nanos": n}, st.integers(-5_000_000_000, 9_000_000_000), nanos)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy)


def numbers(enum: Any) -> st.SearchStrategy[int]:
    """A value of an enum, or one that it does not have."""
    return st.one_of(st.sampled_from(enum.values()), st.just(99))


def message(kind: Any, /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A message with these fields; None leaves a field out."""
    return st.fixed_dictionaries(fields).map(lambda given: kind(**{k: v for k, v in given.items() if v is not None}))


def endpoints() -> st.SearchStrategy[flow_pb2.Endpoint]:
    return message(
        flow_pb2.Endpoint,
        ID=st.integers(0, 70000),
        identity=st.one_of(st.integers(0, 12), UINT32),
        namespace=NAMES,
        labels=st.lists(st.sampled_from(("k8s:app=x", "k8s:org=empire", "reserved:world", "k8s:a/b=c")), max_size=3),
        pod_name=NAMES,
        workloads=st.lists(message(flow_pb2.Workload, name=NAMES, kind=NAMES), max_size=1),
        cluster_name=NAMES,
    )


def layer4() -> st.SearchStrategy[flow_pb2.Layer4]:
    ports = {"source_port": PORTS, "destination_port": PORTS}
    flags = message(flow_pb2.TCPFlags, **dict.fromkeys(("SYN", "ACK", "RST", "FIN"), st.booleans()))
    icmp = {"type": st.integers(0, 255), "code": st.integers(0, 255)}
    return st.one_of(
        message(flow_pb2.Layer4, TCP=message(flow_pb2.TCP, **ports, flags=maybe(flags))),
        message(flow_pb2.Layer4, UDP=message(flow_pb2.UDP, **ports)),
        message(flow_pb2.Layer4, SCTP=message(flow_pb2.SCTP, **ports)),
        message(flow_pb2.Layer4, ICMPv4=message(flow_pb2.ICMPv4, **icmp)),
        message(flow_pb2.Layer4, ICMPv6=message(flow_pb2.ICMPv6, **icmp)),
    )


def layer7() -> st.SearchStrategy[flow_pb2.Layer7]:
    headers = message(flow_pb2.HTTPHeader, key=NAMES, value=NAMES)
    http = message(
        flow_pb2.HTTP,
        code=st.sampled_from((0, 200, 403, 503)),
        method=st.sampled_from(("GET", "POST", "PUT", "")),
        url=st.sampled_from(("http://deathstar/v1/request-landing", "http://h/a%20b?c=<d>", "", "/x%zz", "http://h")),
        protocol=st.sampled_from(("HTTP/1.1", "HTTP/2", "")),
        headers=st.lists(headers, max_size=2),
    )
    dns = message(flow_pb2.DNS, query=NAMES, observation_source=NAMES, ttl=UINT32, qtypes=st.lists(WORDS, max_size=2))
    kafka = message(flow_pb2.Kafka, topic=NAMES, error_code=st.integers(-(2**31), 2**31 - 1))
    common = {"type": numbers(flow_pb2.L7FlowType), "latency_ns": UINT64}
    return st.one_of(
        message(flow_pb2.Layer7, **common, http=http),
        message(flow_pb2.Layer7, **common, dns=dns),
        message(flow_pb2.Layer7, **common, kafka=kafka),
        message(flow_pb2.Layer7, **common),
    )


def flows() -> st.SearchStrategy[flow_pb2.Flow]:
    policy = message(
        flow_pb2.Policy, name=NAMES, namespace=NAMES, kind=NAMES, labels=st.lists(WORDS, max_size=2), revision=UINT64
    )
    service = message(flow_pb2.Service, name=NAMES, namespace=NAMES)
    event = message(
        flow_pb2.CiliumEventType,
        type=st.sampled_from((0, 1, 2, 3, 4, 5, 7, 129, 130)),
        sub_type=st.one_of(st.integers(0, 20), st.integers(128, 260), st.just(-1)),
    )
    return message(
        flow_pb2.Flow,
        time=maybe(times()),
        uuid=NAMES,
        emitter=maybe(message(flow_pb2.Emitter, name=NAMES, version=NAMES)),
        verdict=numbers(flow_pb2.Verdict),
        drop_reason=UINT32,
        auth_type=numbers(flow_pb2.AuthType),
        ethernet=maybe(message(flow_pb2.Ethernet, source=NAMES, destination=NAMES)),
        IP=maybe(
            message(
                flow_pb2.IP,
                source=IPS,
                destination=IPS,
                ipVersion=numbers(flow_pb2.IPVersion),
                encrypted=st.booleans(),
                source_xlated=IPS,
            )
        ),
        l4=maybe(layer4()),
        source=maybe(endpoints()),
        destination=maybe(endpoints()),
        Type=numbers(flow_pb2.FlowType),
        node_name=st.sampled_from(("", "n1", "default/n1", "other/k8s-2.example.org")),
        node_labels=st.lists(st.sampled_from(("zone=a", "zone=b", "kubernetes.io/os=linux")), max_size=2),
        source_names=st.lists(st.sampled_from(("dns.google", "a.example.org", "b_c.d")), max_size=2),
        destination_names=st.lists(st.sampled_from(("dns.google", "a.example.org")), max_size=2),
        l7=maybe(layer7()),
        reply=st.booleans(),
        event_type=maybe(event),
        source_service=maybe(service),
        destination_service=maybe(service),
        traffic_direction=numbers(flow_pb2.TrafficDirection),
        policy_match_type=st.integers(0, 8),
        trace_observation_point=numbers(flow_pb2.TraceObservationPoint),
        trace_reason=numbers(flow_pb2.TraceReason),
        ip_trace_id=maybe(message(flow_pb2.IPTraceID, trace_id=UINT64, ip_option_type=UINT32)),
        drop_reason_desc=numbers(flow_pb2.DropReason),
        is_reply=maybe(st.booleans().map(lambda value: {"value": value})),
        debug_capture_point=numbers(flow_pb2.DebugCapturePoint),
        interface=maybe(message(flow_pb2.NetworkInterface, index=st.integers(0, 3), name=NAMES)),
        proxy_port=PORTS,
        trace_context=maybe(
            message(flow_pb2.TraceContext, parent=message(flow_pb2.TraceParent, trace_id=st.sampled_from(("", "ab"))))
        ),
        sock_xlate_point=numbers(flow_pb2.SocketTranslationPoint),
        Summary=NAMES,
        egress_allowed_by=st.lists(policy, max_size=2),
        ingress_denied_by=st.lists(policy, max_size=2),
        policy_log=st.lists(WORDS, max_size=1),
        aggregate=maybe(message(flow_pb2.Aggregate, ingress_flow_count=UINT32)),
    )


def responses() -> st.SearchStrategy[observer_pb2.GetFlowsResponse]:
    """Flows mostly, and losses."""
    loss = message(
        flow_pb2.LostEvent,
        source=numbers(flow_pb2.LostEventSource),
        num_events_lost=UINT64,
        cpu=maybe(st.integers(-1, 9).map(lambda value: {"value": value})),
        first=maybe(times()),
        last=maybe(times()),
    )
    outer = {"node_name": NAMES, "time": maybe(times())}
    flow = message(observer_pb2.GetFlowsResponse, flow=flows(), **outer)
    return st.one_of(flow, flow, flow, message(observer_pb2.GetFlowsResponse, lost_events=loss, **outer))


def notices() -> st.SearchStrategy[observer_pb2.GetFlowsResponse]:
    """News about nodes."""
    status = message(
        relay_pb2.NodeStatusEvent,
        state_change=st.sampled_from(relay_pb2.NodeState.values()[1:]),
        node_names=st.lists(WORDS, max_size=8),
        message=NAMES,
    )
    return message(observer_pb2.GetFlowsResponse, node_status=status, node_name=NAMES, time=maybe(times()))


FILTER_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "uuid": st.sampled_from(("", "a", "b")),
    "verdict": st.integers(0, 7),
    "source_identity": st.integers(0, 12),
    "source_ip": st.sampled_from(("10.0.0.1", "10.0.0.0/24", "fd00::1", "fd00::/64", "0.0.0.0/0")),
    "source_port": st.sampled_from(("0", "80", "443")),
    "destination_port": st.sampled_from(("0", "80", "443")),
    "protocol": st.sampled_from(("tcp", "icmp", "http", "dns")),
    "http_status_code": st.sampled_from(("200", "4+", "50+")),
    "http_method": st.sampled_from(("get", "put")),
    "reply": st.booleans(),
    "ip_version": st.integers(0, 2),
    "traffic_direction": st.integers(0, 2),
    "source_label": st.sampled_from(("app=x", "org=empire")),
    "source_pod": st.sampled_from(("a/", "a/b", "default/")),
}


def filters() -> st.SearchStrategy[flow_pb2.FlowFilter]:
    """A filter of up to two values in each of some fields."""
    fields = {name: st.lists(values, max_size=2) for name, values in FILTER_VALUES.items()}
    return message(flow_pb2.FlowFilter, **fields)
