"""Below requests: which policies are in force on a direction, and which of their clauses came nearest. Pure.

Whether a clause covers a port or a peer is read from the IR, which knows it for every kind of peer; only what to say of
a peer that is not covered (which labels it misses) is read from the clause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policies.explaining.differences import Difference, Nearest
from policies.ir import DirectionPolicy, Verdict
from policies.judging.evaluate import covering
from policies.labels import ANY, K8S, NAMESPACE_KEY
from policies.objects import ObjectKey
from policies.rules import (
    Action,
    CidrGroupPeer,
    CidrPeer,
    Clause,
    EntityPeer,
    FqdnPeer,
    Peer,
    Policy,
    PortSpec,
    Rule,
    ServicePeer,
)
from policies.selectors import Operator, Requirement, Selector, label_map
from policies.types import ALL_PORTS, Direction, Origin, Protocol

_ICMP = (Protocol.ICMP, Protocol.ICMPV6)


@dataclass(frozen=True, slots=True)
class Tried:
    """A connection as one direction sees it: the peer (its identity, its labels, how to call it) and the port."""

    peer: int
    labels: tuple[str, ...]
    name: str
    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True)
class InForce:
    """One spec that enforces the direction on an endpoint. `path` of its origin: spec, or specs[N]."""

    origin: Origin
    rule: Rule


def in_force(policies: Mapping[ObjectKey, Policy], labels: Iterable[str], direction: Direction) -> tuple[InForce, ...]:
    """Every spec that selects an endpoint of these labels and turns the direction on, in the order of names."""
    own = label_map(labels)
    return tuple(
        InForce(Origin(policy.kind, policy.namespace, policy.name, _spec(rule)), rule)
        for _, policy in sorted(policies.items())
        for rule in policy.rules
        if direction in rule.enforces and rule.subject.matches(own)
    )


def nearest_clause(
    policy: DirectionPolicy, rules: Sequence[InForce], direction: Direction, tried: Tried
) -> Nearest | None:
    """The clause that would have allowed it but for the fewest differences; None if there is no clause that allows."""
    ports, peers = _ports_of(policy, tried), _peers_of(policy, tried.peer)
    known = label_map(tried.labels)
    found = []
    for clause in _allowing(rules, direction):
        differs = []
        if clause.origin not in ports:
            differs.append(Difference("port", _ports_in_words(clause), port_in_words(tried.protocol, tried.port)))
        if clause.origin not in peers:
            differs += _peer_differs(clause.peers or (), known, tried)
        if differs:
            found.append((len(differs), clause.origin not in peers, clause.origin, tuple(differs)))
    if not found:
        return None
    found.sort(key=lambda near: near[:3])
    fewest, _, origin, differs_most_like = found[0]
    return Nearest((origin,), differs_most_like, others=sum(count == fewest for count, *_ in found) - 1)


def port_in_words(protocol: Protocol, port: int) -> str:
    """80/TCP, ICMP type 8, protocol 47."""
    if protocol in _ICMP:
        return f"{protocol.name} type {port}"
    return f"{port}/{protocol.name}"


def _spec(rule: Rule) -> str:
    """The path of the spec that the rule is: the beginning of each of its clauses'."""
    clause = next(iter((*rule.ingress, *rule.egress)), None)
    return clause.origin.path.partition(".")[0] if clause is not None else ""


def _allowing(rules: Sequence[InForce], direction: Direction) -> Iterator[Clause]:
    """Clauses that allow somebody something."""
    for active in rules:
        for clause in active.rule.clauses(direction):
            if clause.action is Action.ALLOW and clause.peers != () and (clause.peers or clause.to_ports):
                yield clause


def _ports_of(policy: DirectionPolicy, tried: Tried) -> set[Origin]:
    """Clauses that allow somebody this port."""
    return {
        origin
        for ports in policy.ports
        if ports.protocol is Protocol.ANY or (ports.protocol is tried.protocol and tried.port in ports.ports)
        for rule in ports.peers
        if rule.verdict is not Verdict.DENY
        for origin in rule.origins
    }


def _peers_of(policy: DirectionPolicy, peer: int) -> set[Origin]:
    """Clauses that allow this peer something."""
    return {origin for _, rule in covering(policy, peer) if rule.verdict is not Verdict.DENY for origin in rule.origins}


def _ports_in_words(clause: Clause) -> str:
    specs = sorted({_spec_in_words(spec) for entry in clause.to_ports for spec in entry.ports})
    return ", ".join(specs) or "any port"


def _spec_in_words(spec: PortSpec) -> str:
    if spec.protocol in _ICMP:
        return f"{spec.protocol.name} type {spec.ports}"
    if spec.ports == ALL_PORTS:
        return "any port" if spec.protocol is Protocol.ANY else f"any/{spec.protocol.name}"
    return f"{spec.ports}/{spec.protocol.name}"


def _peer_differs(peers: Sequence[Peer], labels: Mapping[str, str], tried: Tried) -> tuple[Difference, ...]:
    """What the peer lacks to be the one of them that it is most like."""
    ways = [_lacks(peer, labels, tried) for peer in peers]
    return min(ways, key=lambda way: (len(way), way[0].field, way[0].wanted or "")) if ways else ()


def _lacks(peer: Peer, labels: Mapping[str, str], tried: Tried) -> tuple[Difference, ...]:
    if isinstance(peer, Selector) and f"{K8S}:{NAMESPACE_KEY}" in labels:  # a pod
        lacking = tuple(_lacks_label(r, labels) for r in peer.requirements if not r.holds(labels))
        if lacking:
            return lacking
    return (Difference("peer", peer_in_words(peer), tried.name),)


def _lacks_label(requirement: Requirement, labels: Mapping[str, str]) -> Difference:
    key = requirement.key.removeprefix(f"{ANY}:")
    values = ", ".join(requirement.values)
    wanted: str | None = None
    match requirement.operator:
        case Operator.IN:
            wanted = values if len(requirement.values) == 1 else f"one of {values}"
        case Operator.NOT_IN:
            wanted = f"anything but {values}"
        case Operator.DOES_NOT_EXIST:
            wanted = "absent"
    return Difference(f"label {key}", wanted, labels.get(requirement.key))


def clause_in_words(clause: Clause) -> str:
    """80/TCP with app=web or entity world."""
    peers = " or ".join(map(peer_in_words, clause.peers)) if clause.peers is not None else "anybody"
    return f"{_ports_in_words(clause)} with {peers}"


def peer_in_words(peer: Peer) -> str:
    """A peer as its author would call it."""
    match peer:
        case Selector():
            return selector_in_words(peer)
        case EntityPeer():
            return f"entity {peer.entity}"
        case CidrPeer():
            return peer.prefix + (f" except {', '.join(peer.excepts)}" if peer.excepts else "")
        case CidrGroupPeer():
            return f"CIDR group {selector_in_words(peer.groups)}"
        case FqdnPeer():
            return f"name {peer.selector.pattern or peer.selector.name or '.'}"
        case ServicePeer():
            which = selector_in_words(peer.selector) if peer.selector is not None else peer.name
            return f"service {peer.namespace or '*'}/{which}"


def selector_in_words(selector: Selector) -> str:
    """app=web, tier in (a, b), !debug; `any` for the selector that chooses everything."""
    return ", ".join(map(_requirement_in_words, selector.requirements)) or "any"


def _requirement_in_words(requirement: Requirement) -> str:
    key = requirement.key.removeprefix(f"{ANY}:")
    values = ", ".join(requirement.values)
    match requirement.operator:
        case Operator.IN:
            return f"{key}={values}" if len(requirement.values) == 1 else f"{key} in ({values})"
        case Operator.NOT_IN:
            return f"{key} not in ({values})"
        case Operator.EXISTS:
            return key
    return f"!{key}"
