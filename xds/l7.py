"""Slots of our own proxies as Listener resources, and back: what a DNS or Kafka slot is told as. Pure.

A slot is a Listener of its name, at its proxy port, whose only filter is a typed config of ours with the rules in it.
An edit of rules replaces the listener: the proxy swaps the rules and keeps the port. Reading back gives the IR, so that
a proxy knows nothing of xDS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from envoy.config.core.v3 import base_pb2
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf.message import DecodeError

from policies.ir import DnsRule, FqdnSelector, KafkaRule, L7Parser, Listening, RuleSet, Slot, SlotState
from policies.types import PORT_MAX, Direction, Origin, PortRange, Protocol
from xds.options import DnsSettings, KafkaSettings
from xds.protos.deflector.l7.v1 import filters_pb2 as pb
from xds.resources import DNS_OPTIONS, KAFKA_OPTIONS, LISTENER, TYPE_PREFIX, Resource, pack, resource

# Who asks, by the cluster of its node (xds.bootstrap has Envoy's).
DNS_PROXY: Final = "dns-proxy"
KAFKA_PROXY: Final = "kafka-proxy"
PARSERS: Final[Mapping[str, L7Parser]] = {DNS_PROXY: L7Parser.DNS, KAFKA_PROXY: L7Parser.KAFKA}

DNS_OPTIONS_NAME: Final = "dns"
KAFKA_OPTIONS_NAME: Final = "kafka"
DNS_FILTER: Final = TYPE_PREFIX + pb.DnsFilter.DESCRIPTOR.full_name
KAFKA_FILTER: Final = TYPE_PREFIX + pb.KafkaFilter.DESCRIPTOR.full_name

_TRAFFIC = {Direction.INGRESS: base_pb2.TrafficDirection.INBOUND, Direction.EGRESS: base_pb2.TrafficDirection.OUTBOUND}
_DIRECTIONS = {traffic: direction for direction, traffic in _TRAFFIC.items()}
_TRANSPORTS = {Protocol.TCP: SocketAddress.TCP, Protocol.UDP: SocketAddress.UDP}
_PROTOCOLS = {transport: protocol for protocol, transport in _TRANSPORTS.items()}
_STATES = {SlotState.ACTIVE: pb.ACTIVE, SlotState.RETIRED: pb.RETIRED, SlotState.DRAINED: pb.DRAINED}
_SLOT_STATES = {state: slot_state for slot_state, state in _STATES.items()}

_Filter: TypeAlias = pb.DnsFilter | pb.KafkaFilter


@dataclass(frozen=True, slots=True)
class DnsNode:
    """What holds for all DNS slots of a node. `selectors`: the names and patterns of its toFQDNs, sorted."""

    settings: DnsSettings = field(default_factory=DnsSettings)
    selectors: tuple[FqdnSelector, ...] = ()


def l7_listener(slot: Slot, port: int, *, ipv6: bool) -> Resource:
    """The listener of a DNS or Kafka slot; ValueError where there cannot be one."""
    listener = Listener(
        name=slot.name,
        address=_address("0.0.0.0", port, slot.protocol),
        traffic_direction=_TRAFFIC[slot.direction],
        filter_chains=[FilterChain(filters=[_FILTERS[slot.parser](slot)])],
    )
    if ipv6:
        listener.additional_addresses.add(address=_address("::", port, slot.protocol))
    return resource(LISTENER, listener)


def read_listener(body: bytes) -> Listening:
    """The slot of a listener that `l7_listener` made; ValueError for any other."""
    try:
        listener = Listener.FromString(body)
        (chain,) = listener.filter_chains
        (one,) = chain.filters
        parser, kind = _KINDS[one.typed_config.type_url]
        told = kind.FromString(one.typed_config.value)
        port = listener.address.socket_address.port_value
        if not 0 < port <= PORT_MAX:
            raise ValueError(f"{port} is not a port")
        slot = Slot(
            name=listener.name,
            direction=_DIRECTIONS[listener.traffic_direction],
            group=told.slot.group,
            protocol=_PROTOCOLS[listener.address.socket_address.protocol],
            ports=PortRange(told.slot.first_port, told.slot.last_port),
            rule_set=_rule_set(told),
            state=_SLOT_STATES[told.slot.state],
            parser=parser,
        )
    except (DecodeError, KeyError, ValueError) as failed:
        raise ValueError(f"is no listener of a slot of ours: {failed}") from None
    return Listening(slot, port)


def dns_options(node: DnsNode) -> Resource:
    """The one resource of its type."""
    settings = node.settings
    message = pb.DnsOptions(
        name=DNS_OPTIONS_NAME,
        rejection=settings.rejection,
        query_timeout_ms=round(settings.query_timeout * 1000),
        hold_limit_ms=round(settings.hold_limit * 1000),
        release_late=settings.release_late,
        targets=settings.targets,
        by_endpoint=settings.by_endpoint,
        selectors=[pb.FqdnSelector(name=one.name, pattern=one.pattern) for one in node.selectors],
    )
    return resource(DNS_OPTIONS, message)


def read_dns_options(body: bytes) -> DnsNode:
    """The reverse; ValueError for what is none."""
    try:
        message = pb.DnsOptions.FromString(body)
    except DecodeError as failed:
        raise ValueError(f"are no options of DNS: {failed}") from None
    settings = DnsSettings(
        rejection=message.rejection,
        query_timeout=message.query_timeout_ms / 1000,
        hold_limit=message.hold_limit_ms / 1000,
        release_late=message.release_late,
        targets=message.targets,
        by_endpoint=message.by_endpoint,
    )
    return DnsNode(settings, tuple(FqdnSelector(one.name, one.pattern) for one in message.selectors))


def kafka_options(settings: KafkaSettings) -> Resource:
    """The one resource of its type."""
    return resource(KAFKA_OPTIONS, pb.KafkaOptions(name=KAFKA_OPTIONS_NAME, show_topics=not settings.hide_topics))


def read_kafka_options(body: bytes) -> KafkaSettings:
    """The reverse; ValueError for what is none."""
    try:
        message = pb.KafkaOptions.FromString(body)
    except DecodeError as failed:
        raise ValueError(f"are no options of Kafka: {failed}") from None
    return KafkaSettings(hide_topics=not message.show_topics)


def _address(host: str, port: int, protocol: Protocol) -> Address:
    if protocol not in _TRANSPORTS:
        raise ValueError(f"{protocol.name} is not a protocol that our proxies speak")
    return Address(socket_address=SocketAddress(address=host, port_value=port, protocol=_TRANSPORTS[protocol]))


def _dns(slot: Slot) -> Filter:
    rules = [
        pb.DnsRule(name=rule.name, pattern=rule.pattern, origins=origins_of(rule.origins)) for rule in slot.rule_set.dns
    ]
    return Filter(name="deflector.dns", typed_config=pack(pb.DnsFilter(slot=_common(slot), rules=rules)))


def _kafka(slot: Slot) -> Filter:
    rules = [
        pb.KafkaRule(
            api_keys=rule.api_keys,
            api_version=rule.api_version,
            client_id=rule.client_id,
            topic=rule.topic,
            origins=origins_of(rule.origins),
        )
        for rule in slot.rule_set.kafka
    ]
    return Filter(name="deflector.kafka", typed_config=pack(pb.KafkaFilter(slot=_common(slot), rules=rules)))


_FILTERS: Final = {L7Parser.DNS: _dns, L7Parser.KAFKA: _kafka}
_KINDS: Final[Mapping[str, tuple[L7Parser, type[_Filter]]]] = {
    DNS_FILTER: (L7Parser.DNS, pb.DnsFilter),
    KAFKA_FILTER: (L7Parser.KAFKA, pb.KafkaFilter),
}


def _common(slot: Slot) -> pb.Slot:
    return pb.Slot(
        group=slot.group,
        first_port=slot.ports.first,
        last_port=slot.ports.last,
        state=_STATES[slot.state],
        wildcard=origins_of(slot.rule_set.wildcard),
    )


def _rule_set(told: _Filter) -> RuleSet:
    wildcard = read_origins(told.slot.wildcard)
    if isinstance(told, pb.DnsFilter):
        return RuleSet(wildcard=wildcard, dns=tuple(map(_dns_rule, told.rules)))
    return RuleSet(wildcard=wildcard, kafka=tuple(map(_kafka_rule, told.rules)))


def _dns_rule(rule: pb.DnsRule) -> DnsRule:
    return DnsRule(rule.name, rule.pattern, read_origins(rule.origins))


def _kafka_rule(rule: pb.KafkaRule) -> KafkaRule:
    return KafkaRule(
        api_keys=tuple(rule.api_keys),
        api_version=rule.api_version if rule.HasField("api_version") else None,
        client_id=rule.client_id,
        topic=rule.topic,
        origins=read_origins(rule.origins),
    )


def origins_of(origins: Iterable[Origin]) -> list[pb.Origin]:
    return [pb.Origin(kind=o.kind, namespace=o.namespace, name=o.name, path=o.path) for o in origins]


def read_origins(origins: Iterable[pb.Origin]) -> tuple[Origin, ...]:
    return tuple(Origin(o.kind, o.namespace, o.name, o.path) for o in origins)
