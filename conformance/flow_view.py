"""Flows as scenarios see them: each observed flow flattened to a few named strings, and patterns over them. Pure.

A pattern maps field names to values; `~` before a value makes it a regular expression that must match whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flow import flow_pb2

# CiliumEventType.type -> the word used here
EVENTS = {1: "drop", 4: "trace", 5: "policy-verdict", 129: "l7"}
L4_WITH_PORTS = ("TCP", "UDP", "SCTP")

Pattern = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SeenFlow:
    """One flow. Absent parts are "". `source` and `destination` are `namespace/pod`, or the IP address if no pod;
    labels, policies (`Kind namespace/name`), names and a DNS answer's addresses (sorted) are joined by commas."""

    verdict: str = ""
    event: str = ""
    l7: str = ""
    direction: str = ""
    reply: str = ""
    source: str = ""
    destination: str = ""
    source_ip: str = ""
    destination_ip: str = ""
    source_workload: str = ""
    destination_workload: str = ""
    source_labels: str = ""
    destination_labels: str = ""
    destination_service: str = ""
    allowed_by: str = ""
    denied_by: str = ""
    policy_log: str = ""
    l4: str = ""
    source_port: str = ""
    destination_port: str = ""
    method: str = ""
    url: str = ""
    code: str = ""
    protocol: str = ""
    query: str = ""
    qtypes: str = ""
    ips: str = ""
    rcode: str = ""
    api_key: str = ""
    topic: str = ""
    destination_names: str = ""
    drop_reason: str = ""
    summary: str = ""

    def __str__(self) -> str:
        arrow = {"true": "<-", "false": "->"}.get(self.reply, "<>")
        ends = [(self.source, self.source_port), (self.destination, self.destination_port)]
        left, right = reversed(ends) if self.reply == "true" else ends
        parser = "dns" if self.query else "kafka" if self.api_key else "http"
        kind = f"{parser}-{self.l7.lower()}" if self.l7 else self.event
        kind = f"{kind} {self.drop_reason}".rstrip()
        return f"{':'.join(left)} {arrow} {':'.join(right)} {kind} {self.direction} {self.verdict} ({self.summary})"


FLOW_FIELDS = frozenset(SeenFlow.__slots__)


def view(flow: flow_pb2.Flow) -> SeenFlow:
    """Flatten a Flow of the Hubble API."""
    l4 = flow.l4.WhichOneof("protocol") or ""
    ports = getattr(flow.l4, l4) if l4 in L4_WITH_PORTS else None
    http = flow.l7.http if flow.l7.WhichOneof("record") == "http" else None
    dns = flow.l7.dns if flow.l7.WhichOneof("record") == "dns" else None
    kafka = flow.l7.kafka if flow.l7.WhichOneof("record") == "kafka" else None
    return SeenFlow(
        verdict=flow_pb2.Verdict.Name(flow.verdict),
        event=EVENTS.get(flow.event_type.type, str(flow.event_type.type)),
        l7=flow_pb2.L7FlowType.Name(flow.l7.type) if flow.HasField("l7") else "",
        direction=flow_pb2.TrafficDirection.Name(flow.traffic_direction),
        reply=str(flow.is_reply.value).lower() if flow.HasField("is_reply") else "",
        source=_who(flow.source, flow.IP.source),
        destination=_who(flow.destination, flow.IP.destination),
        source_ip=flow.IP.source,
        destination_ip=flow.IP.destination,
        source_workload=_workload(flow.source),
        destination_workload=_workload(flow.destination),
        source_labels=",".join(flow.source.labels),
        destination_labels=",".join(flow.destination.labels),
        destination_service=_named(flow.destination_service.namespace, flow.destination_service.name),
        allowed_by=_policies([*flow.ingress_allowed_by, *flow.egress_allowed_by]),
        denied_by=_policies([*flow.ingress_denied_by, *flow.egress_denied_by]),
        policy_log=",".join(flow.policy_log),
        l4=l4,
        source_port=str(ports.source_port) if ports else "",
        destination_port=str(ports.destination_port) if ports else "",
        method=http.method if http else "",
        url=http.url if http else "",
        code=str(http.code or "") if http else "",
        protocol=http.protocol if http else "",
        query=dns.query if dns else "",
        qtypes=",".join(dns.qtypes) if dns else "",
        ips=",".join(sorted(dns.ips)) if dns else "",
        rcode=str(dns.rcode) if dns else "",
        api_key=kafka.api_key if kafka else "",
        topic=kafka.topic if kafka else "",
        destination_names=",".join(flow.destination_names),
        drop_reason=flow_pb2.DropReason.Name(flow.drop_reason_desc) if flow.drop_reason_desc else "",
        summary=flow.Summary,
    )


def _who(endpoint: flow_pb2.Endpoint, address: str) -> str:
    return f"{endpoint.namespace}/{endpoint.pod_name}" if endpoint.pod_name else address


def _named(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _policies(policies: Iterable[flow_pb2.Policy]) -> str:
    return ",".join(f"{policy.kind} {_named(policy.namespace, policy.name)}" for policy in policies)


def _workload(endpoint: flow_pb2.Endpoint) -> str:
    return ",".join(f"{workload.kind}/{workload.name}" for workload in endpoint.workloads)


def matches(pattern: Pattern, flow: SeenFlow) -> bool:
    """Whether each field of the pattern holds for the flow."""
    return all(_value_matches(wanted, getattr(flow, name)) for name, wanted in pattern.items())


def missing(patterns: Iterable[Pattern], flows: Sequence[SeenFlow]) -> list[Pattern]:
    """The patterns for which no flow is left; each flow serves one pattern, in the order of the patterns."""
    left = list(flows)
    unmet = []
    for pattern in patterns:
        found = next((flow for flow in left if matches(pattern, flow)), None)
        if found is None:
            unmet.append(pattern)
        else:
            left.remove(found)
    return unmet


def spell(pattern: Pattern) -> str:
    """A pattern in one line, for people."""
    return " ".join(f"{name}={value}" for name, value in pattern.items())


def _value_matches(wanted: str, seen: str) -> bool:
    return bool(re.fullmatch(wanted[1:], seen)) if wanted.startswith("~") else wanted == seen
