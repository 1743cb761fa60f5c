"""The IR from the plain data of `NodePolicy.to_dict`: what golden files hold, read back. Pure.

`node_from_dict(node.to_dict()) == node` for every node that the compiler makes, but for secrets, which are not written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyroaring import FrozenBitMap

from policies.ir import (
    REDACTED,
    Address,
    DirectionPolicy,
    DnsRule,
    Endpoint,
    EndpointPolicy,
    HeaderAction,
    HeaderMatch,
    HttpRule,
    KafkaRule,
    L7Parser,
    Mismatch,
    NodePolicy,
    PeerRule,
    PolicyLog,
    PortPolicy,
    RuleSet,
    Secret,
    ServiceAddress,
    Slot,
    SlotState,
    TlsRule,
    Verdict,
)
from policies.types import Direction, Origin, PortRange, Protocol

Plain = Mapping[str, Any]


def node_from_dict(plain: Plain) -> NodePolicy:
    """The node. Raises KeyError, TypeError or ValueError for what to_dict cannot have made."""
    return NodePolicy(
        revision=plain["revision"],
        policies=tuple(_endpoint_policy(item) for item in plain.get("policies", ())),
        endpoints=tuple(
            Endpoint(e["id"], e["group"], e["namespace"], e["name"], tuple(e.get("addresses", ())))
            for e in plain.get("endpoints", ())
        ),
        addresses=tuple(Address(**item) for item in plain.get("addresses", ())),
        services=tuple(
            ServiceAddress(s["address"], s["port"], Protocol[s["protocol"]], s["identity"], s["target_port"])
            for s in plain.get("services", ())
        ),
        slots=tuple(_slot(item) for item in plain.get("slots", ())),
        logs=tuple(PolicyLog(_origin(item["origin"]), item["value"]) for item in plain.get("logs", ())),
    )


def _endpoint_policy(plain: Plain) -> EndpointPolicy:
    ingress, egress = (_direction_policy(plain[name]) for name in ("ingress", "egress"))
    return EndpointPolicy(plain["group"], tuple(plain.get("labels", ())), ingress, egress)


def _direction_policy(plain: Plain) -> DirectionPolicy:
    return DirectionPolicy(plain["enforced"], tuple(_port_policy(item) for item in plain.get("ports", ())))


def _port_policy(plain: Plain) -> PortPolicy:
    peers = tuple(_peer_rule(item) for item in plain.get("peers", ()))
    return PortPolicy(Protocol[plain["protocol"]], _ports(plain["ports"]), peers)


def _peer_rule(plain: Plain) -> PeerRule:
    rules = plain.get("rule_set")
    return PeerRule(
        identities=FrozenBitMap(plain["identities"]),
        verdict=Verdict(plain["verdict"]),
        origins=_origins(plain.get("origins", ())),
        rule_set=_rule_set(rules) if rules is not None else None,
        slot=plain.get("slot", ""),
    )


def _rule_set(plain: Plain) -> RuleSet:
    return RuleSet(
        http=tuple(_http(item) for item in plain.get("http", ())),
        wildcard=_origins(plain.get("wildcard", ())),
        dns=tuple(_dns(item) for item in plain.get("dns", ())),
        kafka=tuple(_kafka(item) for item in plain.get("kafka", ())),
        tls=tuple(_tls(item) for item in plain.get("tls", ())),
    )


def _dns(plain: Plain) -> DnsRule:
    return DnsRule(plain.get("name", ""), plain.get("pattern", ""), _origins(plain.get("origins", ())))


def _tls(plain: Plain) -> TlsRule:
    return TlsRule(plain.get("name", ""), plain.get("pattern", ""), _origins(plain.get("origins", ())))


def _kafka(plain: Plain) -> KafkaRule:
    return KafkaRule(
        api_keys=tuple(plain.get("api_keys", ())),
        api_version=plain.get("api_version"),
        client_id=plain.get("client_id", ""),
        topic=plain.get("topic", ""),
        origins=_origins(plain.get("origins", ())),
    )


def _http(plain: Plain) -> HttpRule:
    headers = tuple(HeaderMatch(item["name"], _header_value(item)) for item in plain.get("headers", ()))
    actions = tuple(
        HeaderAction(item["name"], Mismatch(item["mismatch"]), _header_value(item))
        for item in plain.get("header_actions", ())
    )
    method, path, host, unavailable = (plain.get(name, "") for name in ("method", "path", "host", "unavailable"))
    return HttpRule(method, path, host, headers, _origins(plain.get("origins", ())), actions, unavailable)


def _header_value(plain: Plain) -> str | None:
    """A secret was written as REDACTED, and is read as a secret of that text."""
    value: str | None = plain.get("value")
    return Secret(value) if value == REDACTED else value


def _slot(plain: Plain) -> Slot:
    return Slot(
        name=plain["name"],
        direction=Direction(plain["direction"]),
        group=plain["group"],
        protocol=Protocol[plain["protocol"]],
        ports=_ports(plain["ports"]),
        rule_set=_rule_set(plain["rule_set"]),
        state=SlotState(plain["state"]),
        parser=L7Parser(plain.get("parser", L7Parser.HTTP)),
    )


def _ports(written: str) -> PortRange:
    first, dash, last = written.partition("-")
    return PortRange(int(first), int(last if dash else first))


def _origins(written: Sequence[str]) -> tuple[Origin, ...]:
    return tuple(_origin(text) for text in written)


def _origin(written: str) -> Origin:
    """`KIND NAMESPACE/NAME PATH`; cluster-scoped and implicit origins have no namespace, some have no path."""
    kind, where, *path = written.split(" ", 2)
    namespace, slash, name = where.partition("/")
    return Origin(kind, namespace if slash else "", name if slash else where, path[0] if path else "")
