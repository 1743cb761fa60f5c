"""The policy language read aloud: whether a peer may reach a port, straight from the rules (facts, sections 2 and 3).

No bitmaps, no identities, no partitions: for each packet every clause of every rule is asked. Slow, and meant to be
obvious. What the compiler makes must say the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from policies.compiling.enforcement import AllowLocalhost, Enforcement
from policies.ir import L7Parser, L7Rule, Verdict
from policies.objects import CidrGroup, EndpointSlice, Service
from policies.rules import Action, CidrGroupPeer, CidrPeer, Clause, EntityPeer, Peer, Policy, Rule, ServicePeer
from policies.selectors import Operator, Requirement, Selector
from policies.types import ALL_PORTS, Direction, Origin, PortRange, Protocol

WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
LOCALHOST = Origin("deflector", "", "allow-localhost", "")
DEFAULT_ALLOW = Origin("deflector", "", "default-allow", "")
CONFLICT = Origin("deflector", "", "parser-conflict", "")
SPOKEN_OVER = {None: WITH_PORTS, L7Parser.DNS: (Protocol.TCP, Protocol.UDP), L7Parser.KAFKA: (Protocol.TCP,)}


@dataclass(frozen=True)
class Who:
    """Somebody at an address. `labels` as `source:key` -> value; `is_outside`: neither a pod nor a node."""

    ip: str
    labels: Mapping[str, str]
    is_outside: bool = False
    ports: frozenset[tuple[str, Protocol, int]] = frozenset()

    def value(self, key: str) -> str | None:
        source, _, name = key.partition(":")
        if source != "any":
            return self.labels.get(key)
        return next((value for label, value in self.labels.items() if label.partition(":")[2] == name), None)


@dataclass(frozen=True)
class Answer:
    """`l7`: what is let through, by match; `wildcard`: whose allow voids it; `origins`: who decided."""

    verdict: Verdict
    origins: frozenset[Origin] = frozenset()
    l7: frozenset[object] = frozenset()
    wildcard: frozenset[Origin] = frozenset()


@dataclass(frozen=True)
class Reading:
    """The rules, and what they look things up in."""

    policies: Iterable[Policy]
    groups: Iterable[CidrGroup] = ()
    services: Iterable[Service] = ()
    slices: Iterable[EndpointSlice] = ()
    cluster: str = "default"
    mode: Enforcement = Enforcement.DEFAULT
    localhost: AllowLocalhost = AllowLocalhost.AUTO

    def answer(self, subject: Who, direction: Direction, peer: Who, protocol: Protocol, port: int) -> Answer:
        """What becomes of a packet from or to this peer."""
        if self.mode is Enforcement.NEVER:
            return Answer(Verdict.ALLOW)
        rules = [rule for policy in self.policies for rule in policy.rules if chooses(rule.subject, subject)]
        enforcing = any(direction in rule.enforces for rule in rules) or self.mode is Enforcement.ALWAYS
        speaking = any(says_anything(clause) for rule in rules for clause in rule.clauses(direction))
        if not enforcing and not speaking:
            return Answer(Verdict.ALLOW)
        owner = subject if direction is Direction.INGRESS else peer
        found = [
            (rule, clause, http)
            for rule in rules
            for clause in rule.clauses(direction)
            if self.is_about(clause, peer)
            for http in covering(clause, owner, protocol, port)
        ]
        denying = {clause.origin for _, clause, _ in found if clause.action is Action.DENY}
        if denying:
            return Answer(Verdict.DENY, frozenset(denying))
        is_host = direction is Direction.INGRESS and "reserved:host" in peer.labels
        if is_host and self.localhost is not AllowLocalhost.POLICY:
            return Answer(Verdict.ALLOW, frozenset({LOCALHOST}))
        if not found:
            return Answer(Verdict.DENY) if enforcing else Answer(Verdict.ALLOW, frozenset({DEFAULT_ALLOW}))
        return _allowed(found, direction)

    def is_about(self, clause: Clause, who: Who) -> bool:
        return clause.peers is None or any(self.means(peer, who) for peer in clause.peers)

    def means(self, peer: Peer, who: Who) -> bool:
        """Whether a peer of a rule is this one."""
        match peer:
            case Selector():
                return chooses(peer, who)
            case EntityPeer(entity):
                return self._is_entity(entity.value, who)
            case CidrPeer(prefix, excepts):
                return within(who, [prefix], excepts)
            case CidrGroupPeer(groups, excepts):
                return any(within(who, g.prefixes, excepts) for g in self.groups if chooses(groups, _of_group(g)))
            case ServicePeer():
                return any(self._serves(service, who) for service in self.services if _is_meant(service, peer))

    def _is_entity(self, name: str, who: Who) -> bool:
        if name == "all":
            return True
        if name == "world":
            return bool({"reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"} & who.labels.keys())
        if name == "cluster":
            inside = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")
            is_pod = who.labels.get("k8s:io.cilium.k8s.policy.cluster") == self.cluster
            return is_pod or any(f"reserved:{word}" in who.labels for word in inside)
        return f"reserved:{name}" in who.labels

    def _serves(self, service: Service, who: Who) -> bool:
        if service.selector:
            wanted = {"io.kubernetes.pod.namespace": service.namespace, **service.selector}
            return all(who.labels.get(f"k8s:{key}") == value for key, value in wanted.items())
        slices = (s for s in self.slices if (s.namespace, s.service) == (service.namespace, service.name))
        return who.is_outside and any(who.ip in backend.addresses for s in slices for backend in s.backends)


def _allowed(found: list[tuple[Rule, Clause, tuple[L7Rule, ...]]], direction: Direction) -> Answer:
    origins = frozenset(clause.origin for _, clause, _ in found)
    judged = [(rule, clause, l7) for rule, clause, l7 in found if l7]
    if not judged:
        return Answer(Verdict.ALLOW, origins)
    if len({l7[0].parser for _, _, l7 in judged}) > 1:
        return Answer(Verdict.DENY, frozenset({CONFLICT, *(clause.origin for _, clause, _ in judged)}))
    plain = {clause.origin for _, clause, l7 in found if not l7}
    pardons = {
        Origin("deflector", "", "default-allow", str(clause.origin))
        for rule, clause, _ in judged
        if direction not in rule.enforces
    }
    matches = frozenset(rule.match_key for _, _, l7 in judged for rule in l7)
    return Answer(Verdict.REDIRECT, origins, matches, frozenset(plain | pardons))


def says_anything(clause: Clause) -> bool:
    if clause.peers == () or (clause.peers is None and not clause.to_ports):
        return False
    return not clause.to_ports or any(entry.ports for entry in clause.to_ports)


def covering(clause: Clause, owner: Who, protocol: Protocol, port: int) -> Iterator[tuple[L7Rule, ...]]:
    """The L7 rules (none: everything) of each part of the clause that covers this port of `owner`."""
    if not says_anything(clause):
        return
    if not clause.to_ports:
        yield ()
    for entry in clause.to_ports:
        for spec in entry.ports:
            is_l3 = (spec.protocol, spec.ports) == (Protocol.ANY, ALL_PORTS)
            protocols = SPOKEN_OVER[entry.parser] if spec.protocol is Protocol.ANY else (spec.protocol,)
            if is_l3 or (protocol in protocols and _has(spec.ports, owner, protocol, port)):
                yield entry.l7


def _has(wanted: PortRange | str, owner: Who, protocol: Protocol, port: int) -> bool:
    if isinstance(wanted, PortRange):
        return port in wanted
    return (wanted, protocol, port) in owner.ports


def chooses(selector: Selector, who: Who) -> bool:
    return all(_holds(requirement, who) for requirement in selector.requirements)


def _holds(requirement: Requirement, who: Who) -> bool:
    value = who.value(requirement.key)
    match requirement.operator:
        case Operator.IN:
            return value is not None and value in requirement.values
        case Operator.NOT_IN:
            return value not in requirement.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None


def within(who: Who, prefixes: Iterable[str], excepts: Iterable[str]) -> bool:
    """Prefixes never mean pods or nodes (facts 2.6)."""
    return who.is_outside and _covers(prefixes, who.ip) and not _covers(excepts, who.ip)


def _covers(prefixes: Iterable[str], ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    networks = map(ipaddress.ip_network, prefixes)
    return any(network.version == address.version and address in network for network in networks)


def _of_group(group: CidrGroup) -> Who:
    labels = {f"cidrgroup:{key}": value for key, value in group.labels.items()}
    return Who("", {**labels, f"cidrgroup:io.cilium.policy.cidrgroupname/{group.name}": ""})


def _is_meant(service: Service, peer: ServicePeer) -> bool:
    if peer.namespace not in ("", service.namespace):
        return False
    if peer.selector is not None:
        return chooses(peer.selector, Who("", {f"k8s:{key}": value for key, value in service.labels.items()}))
    return peer.name == service.name


def outside(ip: str, *, is_api_server: bool = False) -> Who:
    """Somebody in the world."""
    labels = {"reserved:world": "", f"reserved:world-ipv{6 if ':' in ip else 4}": ""}
    if is_api_server:
        labels["reserved:kube-apiserver"] = ""
    return Who(ip, labels, is_outside=True)
