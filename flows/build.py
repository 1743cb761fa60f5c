"""Records -> Flow messages, as Hubble fills them (facts section 5). Pure: time and uuid are arguments.

Most of a flow repeats: who, where, what kind. That part is built and serialised once per combination; what is special
about one HTTP flow is put behind it (flows.exchange, flows.wire). Flows are made as bytes because a ring of them is
then a seventh of the size and most are overwritten without being read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

from flow import flow_pb2

from flows import packet
from flows.exchange import request, response, shared
from flows.lookups import NO_REASON, EndpointRef, Lookups, PolicyRef, Reason
from flows.parsed import layers
from flows.record import (
    DnsRecord,
    HttpNews,
    HttpRecord,
    KafkaRecord,
    PacketKind,
    PacketRecord,
    PacketVerdict,
    Parsed,
    ParserVerdict,
    SlotRef,
    TlsRefusal,
)
from flows.redact import Redaction, Redactor
from flows.ring import Event
from flows.summary import packet_summary, refusal_summary
from policies.types import Direction, Protocol

KEPT = 8192  # templates and endpoints kept per view; beyond that all are dropped and built anew as they come
EVENT_DROP = 1
EVENT_TRACE = 4
EVENT_POLICY_VERDICT = 5
EVENT_L7 = 129
POLICY_DENY = 181  # the drop reason of an explicit deny rule: only then are there policies to name
CLUSTER_LABEL = "k8s:io.cilium.k8s.policy.cluster="

DIRECTIONS = {
    None: flow_pb2.TRAFFIC_DIRECTION_UNKNOWN,
    Direction.INGRESS: flow_pb2.INGRESS,
    Direction.EGRESS: flow_pb2.EGRESS,
}
VERDICTS = {
    PacketVerdict.FORWARDED: flow_pb2.FORWARDED,
    PacketVerdict.DROPPED: flow_pb2.DROPPED,
    PacketVerdict.REDIRECTED: flow_pb2.REDIRECTED,
    PacketVerdict.AUDIT: flow_pb2.AUDIT,
}
PARSER_VERDICTS = {
    ParserVerdict.FORWARDED: flow_pb2.FORWARDED,
    ParserVerdict.DROPPED: flow_pb2.DROPPED,
    ParserVerdict.ERROR: flow_pb2.ERROR,
}
# flow.TraceReason -> is_reply; what is not here is not known
REPLIES = {flow_pb2.NEW: False, flow_pb2.ESTABLISHED: False, flow_pb2.REPLY: True, flow_pb2.RELATED: False}
K = TypeVar("K")
V = TypeVar("V")


class _Leg(NamedTuple):
    """What is common to the HTTP flows of one client with one server in one slot, by verdict, and by the rule that
    allowed them. Why one was denied depends on what it asked for, and is its own."""

    slot: SlotRef
    client_ip: str
    server_ip: str
    server_port: int
    allowed: Reason | None  # None: dropped


class Builder:
    """Builds serialised flows from one view of the house; remembers the parts that repeat.

    `version` is ours, without a leading v.
    """

    def __init__(self, view: Lookups, version: str, redaction: Redaction | None = None) -> None:
        self.view = view
        self._redactor = Redactor(redaction or Redaction())
        self._emitter = flow_pb2.Emitter(name="Deflector", version=version)
        # a _Leg, its slot by name -> the common parts of a request's flow and of its response's
        self._legs: dict[tuple[str, str, str, int, Reason | None], tuple[bytes, bytes]] = {}
        self._packets: dict[tuple[object, ...], bytes] = {}  # what packets that are alike have in common
        self._messages: dict[tuple[object, ...], bytes] = {}  # ... and messages of DNS and Kafka
        self._denials: dict[Reason, bytes] = {}
        self._endpoints: dict[tuple[str, int | None], flow_pb2.Endpoint] = {}

    def http(self, news: HttpNews, time_ns: int, new_uuid: Callable[[], bytes]) -> list[Event]:
        """The flows of a request, a response or both. `time_ns` is Unix time, when we learned of it; the response of
        a request that shows now follows it by a nanosecond.
        """
        record, has_request, has_response = news
        why = self.view.why_request(record)  # of the request as it was: a rule may speak of what is redacted
        record = self._redactor.http(record)
        parts = shared(record)
        is_denial = record.denied_by is not None
        said = self._denial(why) if is_denial else b""
        asked, answered = self._common(record, None if is_denial else why)
        made = []
        if has_request:
            own = request(record, parts, time_ns, new_uuid()) + said
            if record.missing_headers or record.rejected_headers:
                own += flow_pb2.Flow(policy_log=_header_faults(record)).SerializeToString()
            made.append(Event(time_ns, own, asked, is_denial=is_denial))
            time_ns += 1
        if has_response:
            made.append(Event(time_ns, response(record, parts, time_ns, new_uuid()) + said, answered))
        return made

    def _denial(self, why: Reason) -> bytes:
        said = self._denials.get(why)
        if said is None:
            said = _keep(self._denials, why, flow_pb2.Flow(policy_log=_policy_log(why)).SerializeToString())
        return said

    def _common(self, record: HttpRecord, allowed: Reason | None) -> tuple[bytes, bytes]:
        slot, exchange = record.slot, record.exchange
        key = (slot.name, exchange.client_ip, exchange.server_ip, exchange.server_port, allowed)
        common = self._legs.get(key)
        if common is None:
            leg = _Leg(slot, *key[1:])
            common = _keep(self._legs, key, (self._http_template(leg, False), self._http_template(leg, True)))
        return common

    def packet(self, record: PacketRecord, time_ns: int, uuid: bytes) -> Event:
        """The flow of a drop, a trace or a policy verdict."""
        view = self.view
        source = view.service_by_address(record.source_ip, record.source_port)
        destination = view.service_by_address(record.destination_ip, record.destination_port)
        why = NO_REASON if record.kind is PacketKind.TRACE else view.why_packet(record)
        key = (*packet.alike(record), source, destination, why)
        common = self._packets.get(key)
        if common is None:
            common = _keep(self._packets, key, self._packet_template(record, why))
        return Event(time_ns, packet.own(record, time_ns, uuid), common, is_denial=record.is_denial)

    def refused(self, record: TlsRefusal, time_ns: int, uuid: bytes) -> Event:
        """The flow of a TLS connection that the proxy closed: a drop, as of a packet that no rule allows, with the name
        of the server among those of the destination. Hubble has no layer 7 of TLS."""
        dropped = packet.of_refusal(record)
        template = self._packet_template(dropped, self.view.why_refused(record))
        flow = flow_pb2.Flow.FromString(template + packet.own(dropped, time_ns, uuid))
        flow.Summary = refusal_summary(record)
        if record.server_name:
            names = {*flow.destination_names, record.server_name.removesuffix(".")}
            flow.destination_names[:] = sorted(names)
        return Event(time_ns, flow.SerializeToString(), is_denial=True)

    def _packet_template(self, record: PacketRecord, why: Reason) -> bytes:
        flow = flow_pb2.Flow(
            emitter=self._emitter,
            verdict=VERDICTS[record.verdict],
            l4=packet.layer4(record),
            Type=flow_pb2.L3_L4,
            node_name=self.view.node_name,
            node_labels=self.view.node_labels,
            traffic_direction=DIRECTIONS[record.direction],
            Summary=packet_summary(record),
        )
        if record.source_mac or record.destination_mac:
            flow.ethernet.source = record.source_mac
            flow.ethernet.destination = record.destination_mac
        self._who(
            flow, (record.source_ip, record.source_identity), (record.destination_ip, record.destination_identity)
        )
        self._services(flow, record.source_port, record.destination_port)
        if record.verdict is PacketVerdict.DROPPED:
            flow.drop_reason = record.drop_reason
            flow.drop_reason_desc = cast("flow_pb2.DropReason", record.drop_reason)
        if record.interface_index or record.interface_name:
            flow.interface.index = record.interface_index
            flow.interface.name = record.interface_name
        flow.policy_log.extend(_policy_log(why))
        _KINDS[record.kind](flow, record, why)
        wire: bytes = flow.SerializeToString()
        return wire

    def parsed(self, record: Parsed, time_ns: int, new_uuid: Callable[[], bytes]) -> list[Event]:
        """The flows of what a parser of ours saw, a nanosecond apart; of Kafka one for each topic."""
        why = self.view.why_parsed(record)  # of the request as it was: a rule may speak of what is redacted
        if isinstance(record, KafkaRecord):
            record = self._redactor.kafka(record)
        common, client_port = self._common_message(record, why), record.leg.client_port
        made = []
        for number, told in enumerate(layers(record)):
            own = flow_pb2.Flow(uuid=new_uuid().decode(), Summary=told.summary, l7=told.l7)
            own.time.seconds, own.time.nanos = divmod(time_ns + number, 1_000_000_000)
            ports = own.l4.UDP if record.leg.transport is Protocol.UDP else own.l4.TCP
            if record.is_request:
                ports.source_port = client_port
            else:
                ports.destination_port = client_port
            made.append(Event(time_ns + number, own.SerializeToString(), common, is_denial=record.is_denial))
        return made

    def _common_message(self, record: Parsed, why: Reason) -> bytes:
        key = (type(record), record.leg._replace(client_port=0), record.is_request, record.verdict, why)
        common = self._messages.get(key)
        if common is None:
            made: bytes = self._parsed_template(record, why).SerializeToString()
            common = _keep(self._messages, key, made)
        return common

    def _parsed_template(self, record: Parsed, why: Reason) -> flow_pb2.Flow:
        leg, is_response = record.leg, not record.is_request
        client, server = (leg.client_ip, 0), (leg.server_ip, leg.server_port)
        source, destination = (server, client) if is_response else (client, server)
        flow = flow_pb2.Flow(
            emitter=self._emitter,
            verdict=PARSER_VERDICTS[record.verdict],
            Type=flow_pb2.L7,
            node_name=self.view.node_name,
            node_labels=self.view.node_labels,
            reply=is_response,
            event_type=flow_pb2.CiliumEventType(type=EVENT_L7),
            # what a pod asks by DNS leaves it, wherever that is observed
            traffic_direction=flow_pb2.EGRESS if isinstance(record, DnsRecord) else DIRECTIONS[leg.slot.direction],
        )
        flow.is_reply.value = is_response
        (flow.l7.dns if isinstance(record, DnsRecord) else flow.l7.kafka).SetInParent()
        ports = flow.l4.UDP if leg.transport is Protocol.UDP else flow.l4.TCP
        ports.source_port, ports.destination_port = source[1], destination[1]
        self._who(flow, (source[0], None), (destination[0], None))
        self._services(flow, source[1], destination[1])
        flow.policy_log.extend(_policy_log(why))
        if record.verdict is ParserVerdict.FORWARDED:
            _name(flow, leg.slot.direction, why.policies, denied=False)
        return flow

    def _http_template(self, leg: _Leg, is_response: bool) -> bytes:
        client, server = (leg.client_ip, None), (leg.server_ip, None)
        source, destination = (server, client) if is_response else (client, server)
        flow = flow_pb2.Flow(
            emitter=self._emitter,
            verdict=flow_pb2.DROPPED if leg.allowed is None and not is_response else flow_pb2.FORWARDED,
            Type=flow_pb2.L7,
            node_name=self.view.node_name,
            node_labels=self.view.node_labels,
            reply=is_response,
            event_type=flow_pb2.CiliumEventType(type=EVENT_L7),
            traffic_direction=DIRECTIONS[leg.slot.direction],
        )
        flow.is_reply.value = is_response
        flow.l7.type = flow_pb2.RESPONSE if is_response else flow_pb2.REQUEST
        flow.l7.http.SetInParent()
        ports = (leg.server_port, 0) if is_response else (0, leg.server_port)
        flow.l4.TCP.source_port, flow.l4.TCP.destination_port = ports
        self._who(flow, source, destination)
        self._services(flow, *ports)
        if leg.allowed is not None:
            flow.policy_log.extend(_policy_log(leg.allowed))
            _name(flow, leg.slot.direction, leg.allowed.policies, denied=False)
        wire: bytes = flow.SerializeToString()
        return wire

    def _who(self, flow: flow_pb2.Flow, source: tuple[str, int | None], destination: tuple[str, int | None]) -> None:
        flow.IP.source = source[0]
        flow.IP.destination = destination[0]
        flow.IP.ipVersion = flow_pb2.IPv6 if ":" in source[0] else flow_pb2.IPv4
        flow.source.CopyFrom(self._endpoint(*source))
        flow.destination.CopyFrom(self._endpoint(*destination))
        flow.source_names.extend(self.view.names_of(source[0], destination[0]))
        flow.destination_names.extend(self.view.names_of(destination[0], source[0]))

    def _services(self, flow: flow_pb2.Flow, source_port: int, destination_port: int) -> None:
        source = self.view.service_by_address(flow.IP.source, source_port) if source_port else None
        if source is not None:
            flow.source_service.name, flow.source_service.namespace = source.name, source.namespace
        destination = self.view.service_by_address(flow.IP.destination, destination_port) if destination_port else None
        if destination is not None:
            flow.destination_service.name = destination.name
            flow.destination_service.namespace = destination.namespace

    def _endpoint(self, ip: str, identity: int | None) -> flow_pb2.Endpoint:
        key = (ip, identity)
        found = self._endpoints.get(key)
        if found is None:
            found = _keep(self._endpoints, key, self._make_endpoint(ip, identity))
        return found

    def _make_endpoint(self, ip: str, identity: int | None) -> flow_pb2.Endpoint:
        """The kernel's identity wins over the one looked up now; a pod is named only if it still is who it was."""
        known = self.view.endpoint_by_ip(ip)
        if known is not None and identity in (None, known.identity):
            return _endpoint(known)
        number = self.view.identity_by_ip(ip) if identity is None else identity
        labels = longest_cidr_only(tuple(sorted(self.view.identity_labels(number))))
        cluster = next((label.removeprefix(CLUSTER_LABEL) for label in labels if label.startswith(CLUSTER_LABEL)), "")
        return _endpoint(EndpointRef(identity=number, labels=labels, cluster=cluster))


def _drop(flow: flow_pb2.Flow, record: PacketRecord, why: Reason) -> None:
    flow.event_type.type = EVENT_DROP
    flow.event_type.sub_type = record.drop_reason


def _trace(flow: flow_pb2.Flow, record: PacketRecord, why: Reason) -> None:
    # To-endpoint is 0 in the datapath's numbers and 101 in the enum's, all others are the same.
    point = record.observation_point
    flow.event_type.type = EVENT_TRACE
    flow.event_type.sub_type = point
    flow.trace_observation_point = cast("flow_pb2.TraceObservationPoint", point or flow_pb2.TO_ENDPOINT)
    flow.trace_reason = cast("flow_pb2.TraceReason", record.trace_reason)
    flow.proxy_port = record.proxy_port
    reply = REPLIES.get(flow.trace_reason)
    if reply is not None:
        flow.is_reply.value = flow.reply = reply


def _verdict(flow: flow_pb2.Flow, record: PacketRecord, why: Reason) -> None:
    flow.event_type.type = EVENT_POLICY_VERDICT
    flow.policy_match_type = record.match_type
    flow.proxy_port = record.proxy_port
    denied = record.verdict is PacketVerdict.DROPPED
    if not denied:
        flow.is_reply.value = False
    if not denied or record.drop_reason == POLICY_DENY:
        _name(flow, record.direction, why.policies, denied)


_KINDS = {PacketKind.DROP: _drop, PacketKind.TRACE: _trace, PacketKind.POLICY_VERDICT: _verdict}


def _keep(kept: dict[K, V], key: K, value: V) -> V:
    """Remember a value, within bounds."""
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = value
    return value


def _endpoint(known: EndpointRef) -> flow_pb2.Endpoint:
    return flow_pb2.Endpoint(
        ID=known.id,
        identity=known.identity,
        cluster_name=known.cluster,
        namespace=known.namespace,
        labels=sorted(known.labels),
        pod_name=known.pod_name,
        workloads=[flow_pb2.Workload(name=w.name, kind=w.kind) for w in known.workloads],
    )


def _policy_log(why: Reason) -> list[str]:
    """What the policies' authors want said, and then the reason."""
    return list(dict.fromkeys((*(text for policy in why.policies for text in policy.logs), *why.log)))


def _header_faults(record: HttpRecord) -> list[str]:
    """What policies' actions on headers have found."""
    missing = [f"missing header {name}: {value}" for name, value in record.missing_headers]
    return [*missing, *(f"rejected header {name}: {value}" for name, value in record.rejected_headers)]


def _name(flow: flow_pb2.Flow, direction: Direction | None, policies: tuple[PolicyRef, ...], denied: bool) -> None:
    """Name the policies that decided in the field for them."""
    if direction is Direction.INGRESS:
        (flow.ingress_denied_by if denied else flow.ingress_allowed_by).extend(map(_policy, policies))
    elif direction is Direction.EGRESS:
        (flow.egress_denied_by if denied else flow.egress_allowed_by).extend(map(_policy, policies))


def _policy(policy: PolicyRef) -> flow_pb2.Policy:
    return flow_pb2.Policy(
        name=policy.name,
        namespace=policy.namespace,
        kind=policy.kind,
        labels=policy.labels,
        revision=policy.revision,
    )


def longest_cidr_only(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Of several `cidr:` labels (one per enclosing prefix) keep the longest prefix, as Hubble does."""
    prefixes = {label: _prefix_length(label) for label in labels if label.startswith("cidr:")}
    if len(prefixes) < 2:
        return labels
    longest = max(prefixes, key=lambda label: (prefixes[label], label))
    return tuple(label for label in labels if label not in prefixes or label == longest)


def _prefix_length(label: str) -> int:
    # IPv6 in labels: colons are written as dashes
    text = label.removeprefix("cidr:").partition("=")[0]
    try:
        return ipaddress.ip_network(text.replace("-", ":") if "-" in text else text, strict=False).prefixlen
    except ValueError:
        return -1
