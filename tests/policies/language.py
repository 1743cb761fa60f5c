"""Makers for stories in checked rules: a small galaxy of every kind of peer, and rules in few words.

Whatever reads objects is left out here: these rules are what all kinds of policies are read into.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from policies.compiling.compiler import Compiled, Compiler, CompilerOptions
from policies.compiling.identity import IdentityAllocator
from policies.ir import DnsRule, HttpRule, KafkaRule, L7Rule, NodePolicy, Verdict
from policies.objects import (
    Backend,
    CidrGroup,
    EndpointSlice,
    Namespace,
    Node,
    Pod,
    PodKey,
    Service,
    key_of,
)
from policies.rules import Action, CidrPeer, Clause, Entity, EntityPeer, Peer, Policy, PortSpec, Rule, ToPorts
from policies.selectors import Operator, Requirement, Selector
from policies.types import ALL_PORTS, Direction, Origin, PortRange, Protocol
from policies.world import World
from tests.policies.kernel import verdict
from tests.policies.reference import Answer

NAMESPACE = "k8s:io.kubernetes.pod.namespace"
HOST = "192.0.2.1"
GET, POST = HttpRule(method="GET"), HttpRule(method="POST")
GITHUB, ANY_NAME = DnsRule("api.github.com."), DnsRule(pattern="*")
PLANS, ANNOUNCE = KafkaRule(topic="deathstar-plans"), KafkaRule((0, 3, 18), topic="empire-announce")


def ship(
    name: str, ip: str, namespace: str = "default", *, ports: Mapping[str, int] | None = None, **labels: str
) -> Pod:
    """A running pod; `ports` are names of TCP ports."""
    named = {(port, Protocol.TCP): number for port, number in (ports or {}).items()}
    return Pod(namespace, name, labels, (ip,), phase="Running", ports=named)


def having(**labels: str) -> Selector:
    """Whoever has these labels, in whatever namespace."""
    return Selector.of(Requirement(f"any:{key}", Operator.IN, (value,)) for key, value in labels.items())


def in_namespace(namespace: str, **labels: str) -> Selector:
    """Pods of a namespace."""
    return Selector.of([*having(**labels).requirements, Requirement(NAMESPACE, Operator.IN, (namespace,))])


def reserved(name: str, operator: Operator = Operator.EXISTS) -> Selector:
    return Selector.of([Requirement(f"reserved:{name}", operator)])


def entity(name: str) -> EntityPeer:
    return EntityPeer(Entity(name))


def cidr(prefix: str, *excepts: str) -> CidrPeer:
    return CidrPeer(prefix, tuple(sorted(excepts)))


def port(text: str | int, protocol: Protocol = Protocol.TCP) -> PortSpec:
    """80, "80-90" or the name of a port; 0 is all of them."""
    first, _, last = str(text).partition("-")
    if not first.isdigit():
        return PortSpec(protocol, first)
    return PortSpec(protocol, PortRange(int(first), int(last or first)) if int(first) else ALL_PORTS)


def to(
    *ports: str | int,
    protocol: Protocol = Protocol.TCP,
    http: Iterable[HttpRule] = (),
    dns: Iterable[DnsRule] = (),
    kafka: Iterable[KafkaRule] = (),
) -> ToPorts:
    rules: list[L7Rule] = sorted([*http, *dns, *kafka], key=lambda rule: rule.match_key)
    return ToPorts(tuple(port(text, protocol) for text in ports), tuple(rules))


def clause(peers: Sequence[Peer] | None, *to_ports: ToPorts, deny: bool = False) -> Clause:
    """An entry of ingress or egress; `policy` gives it its origin."""
    found = None if peers is None else tuple(peers)
    return Clause(Origin("", "", "", ""), found, to_ports, Action.DENY if deny else Action.ALLOW)


def policy(
    name: str,
    subject: Selector | None = None,
    *,
    ingress: Sequence[Clause] = (),
    egress: Sequence[Clause] = (),
    enforces: Iterable[Direction] | None = None,
    log: str = "",
) -> Policy:
    """A policy of one rule. By default it enforces the directions that it has entries for."""
    kind = "CiliumClusterwideNetworkPolicy"
    entries = {Direction.INGRESS: ingress, Direction.EGRESS: egress}
    placed = {
        direction: tuple(
            _placed(
                item, Origin(kind, "", name, f"spec.{direction}{'Deny' if item.action is Action.DENY else ''}[{i}]")
            )
            for i, item in enumerate(items)
        )
        for direction, items in entries.items()
    }
    wanted = tuple(d for d in Direction if entries[d]) if enforces is None else tuple(enforces)
    rule = Rule(subject or Selector(), placed[Direction.INGRESS], placed[Direction.EGRESS], wanted, log=log)
    return Policy(kind, "", name, (rule,))


def _placed(item: Clause, origin: Origin) -> Clause:
    entries = (
        replace(entry, l7=tuple(replace(rule, origins=(origin,)) for rule in entry.l7)) for entry in item.to_ports
    )
    return replace(item, origin=origin, to_ports=tuple(entries))


DEATHSTAR = ship("deathstar", "10.0.0.1", org="empire", craft="deathstar", ports={"http": 80, "admin": 8000})
TIE = ship("tiefighter", "10.0.0.2", org="empire", craft="tiefighter", ports={"http": 8080})
XWING = ship("xwing", "10.0.0.3", org="alliance", craft="xwing", ports={"http": 80})
ATAT = ship("atat", "10.0.1.1", "hoth", org="empire", craft="walker")
SHIPS = (DEATHSTAR, TIE, XWING, ATAT)


@dataclass
class Galaxy:
    """A node under test: set what there is, compile, ask. All pods are on it."""

    pods: Sequence[Pod] = SHIPS
    namespaces: Sequence[Namespace] = (Namespace("default"), Namespace("hoth", {"side": "cold"}))
    services: Sequence[Service] = ()
    slices: Sequence[EndpointSlice] = ()
    groups: Sequence[CidrGroup] = ()
    nodes: Sequence[Node] = ()
    options: CompilerOptions = field(default_factory=lambda: CompilerOptions(node_name="here"))
    identities: IdentityAllocator = field(default_factory=IdentityAllocator)

    def __post_init__(self) -> None:
        self.compiler = Compiler(self.identities, self.options)

    def world(self, *policies: Policy) -> World:
        return World(
            namespaces={n.name: n for n in self.namespaces},
            pods=_by_key(self.pods),
            services=_by_key(self.services),
            slices=_by_key(self.slices),
            policies={key: p for p in sorted(policies, key=key_of) for key in (key_of(p),)},
            cidr_groups={group.name: group for group in self.groups},
            nodes={node.name: node for node in self.nodes},
        )

    def compile(self, *policies: Policy) -> Compiled:
        """Compile this galaxy under these policies."""
        world = self.world(*policies)
        local = {key: 10 + i for i, (key, pod) in enumerate(world.pods.items()) if not pod.host_network}
        compiled = self.compiler.compile(world, local, (HOST,), 1)
        compiled.node.validate()
        return compiled

    def node(self, *policies: Policy) -> NodePolicy:
        compiled = self.compile(*policies)
        assert not compiled.errors, compiled.errors
        return compiled.node


def _by_key(objects: Sequence[Any]) -> dict[PodKey, Any]:
    return dict(sorted((PodKey(obj.namespace, obj.name), obj) for obj in objects))


def service(
    name: str, *, namespace: str = "default", selector: Mapping[str, str] | None = None, **labels: str
) -> Service:
    return Service(namespace, name, labels=labels, selector=selector or {})


def backends(name: str, *addresses: str, namespace: str = "default") -> EndpointSlice:
    return EndpointSlice(namespace, f"{name}-1", name, (Backend(addresses),))


def identity_of(node: NodePolicy, ip: str) -> int:
    """The identity of the longest prefix around an address."""
    address = ipaddress.ip_address(ip)
    around = [(ipaddress.ip_network(entry.prefix), entry.identity) for entry in node.addresses]
    return max((net.prefixlen, who) for net, who in around if net.version == address.version and address in net)[1]


def answer_of(node: NodePolicy, group: int, direction: Direction, packet: tuple[int, Protocol, int]) -> Answer:
    """What the kernel finds for (identity, protocol, port) at this group."""
    (found,) = (p for p in node.policies if p.group == group)
    outcome, peer = verdict(found.direction(direction), *packet)
    if peer is None:
        return Answer(outcome)
    rules = peer.rule_set
    if rules is None:
        return Answer(outcome, frozenset(peer.origins))
    matches = frozenset(rule.match_key for rule in rules.rules)
    return Answer(outcome, frozenset(peer.origins), matches, frozenset(rules.wildcard))


def may(
    node: NodePolicy, peer: Pod | str, what: str | int = 80, *, at: Pod = DEATHSTAR, direction: str = "ingress"
) -> str:
    """Whether a pod or address may reach the death star (or be reached from it), in a word: allow, deny, or what
    requests are let through (by method, name or topic), with a star for all others. `what`: a TCP port, or
    PROTOCOL/PORT."""
    protocol, number = str(what).split("/") if "/" in str(what) else ("TCP", what)
    group = next(e.group for e in node.endpoints if (e.namespace, e.name) == (at.namespace, at.name))
    ip = peer if isinstance(peer, str) else peer.addresses[0]
    packet = (identity_of(node, ip), Protocol[protocol], int(number))
    found = answer_of(node, group, Direction(direction), packet)
    if found.verdict is not Verdict.REDIRECT:
        return found.verdict.value
    words = sorted(_in_a_word(key) for key in found.l7)
    return " ".join([*words, *(["*"] if found.wildcard else [])])


def _in_a_word(match: Any) -> str:
    """The method, the name, or the topic."""
    return str(next((part for part in match if part and isinstance(part, str)), "any"))
