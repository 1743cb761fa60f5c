"""The compiler against a naive reading of the semantics (facts, sections 2 and 3), on random worlds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings

from policies.ir import EndpointPolicy, Verdict
from policies.types import Direction, Protocol
from tests.policies.kernel import verdict
from tests.policies.make import Node
from tests.policies.worlds import PODS, policies

PORTS = (0, 79, 80, 84, 85, 86, 90, 91, 100, 101, 443, 65535)
PROTOCOLS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.ICMP)
RESERVED = {1: {"reserved:host"}, 6: {"reserved:remote-node"}, 9: {"reserved:world-ipv4", "reserved:world"}}
NAMESPACE = "io.kubernetes.pod.namespace"

Key = tuple[Any, ...]


def labels_of(pod: Mapping[str, Any]) -> dict[str, str]:
    metadata = pod["metadata"]
    return {**{f"k8s:{k}": v for k, v in metadata["labels"].items()}, f"k8s:{NAMESPACE}": metadata["namespace"]}


def value_of(key: str, labels: Mapping[str, str]) -> str | None:
    if ":" in key:
        return labels.get(key)
    return next((value for name, value in labels.items() if name.partition(":")[2] == key), None)


def chooses(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    holds = [value_of(key, labels) == value for key, value in selector.get("matchLabels", {}).items()]
    for expression in selector.get("matchExpressions", ()):
        value = value_of(expression["key"], labels)
        match expression["operator"]:
            case "In":
                holds.append(value in expression["values"])
            case "NotIn":
                holds.append(value not in expression["values"])
            case "Exists":
                holds.append(value is not None)
            case "DoesNotExist":
                holds.append(value is None)
    return all(holds)


def peer_chosen(selector: Mapping[str, Any], labels: Mapping[str, str], namespace: str) -> bool:
    keys = [*selector.get("matchLabels", {}), *(e["key"] for e in selector.get("matchExpressions", ()))]
    is_free = any(key.startswith("reserved:") or key.endswith(NAMESPACE) for key in keys)
    return chooses(selector, labels) and (is_free or labels.get(f"k8s:{NAMESPACE}") == namespace)


def covering(clause: Mapping[str, Any], protocol: Protocol, port: int) -> Iterator[list[Any]]:
    """The HTTP rules ([]: none) of each part of the clause that covers this port."""
    if not clause.get("toPorts"):
        yield []
    for entry in clause.get("toPorts") or ():
        for written in entry["ports"]:
            first = int(written["port"])
            last = written.get("endPort", first)
            name = written.get("protocol", "ANY")
            has_ports = protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
            right_protocol = name == protocol.name or (name == "ANY" and (has_ports or first == 0))
            if right_protocol and (first == 0 or first <= port <= last):
                yield entry.get("rules", {}).get("http", [])


def expected(
    world: Iterable[Mapping[str, Any]], subject: Mapping[str, str], direction: Direction, packet: Key
) -> tuple[Verdict, set[Key], bool]:
    """Verdict, what requests are allowed, and whether L7 is void: straight from the policies."""
    identity, labels, protocol, port = packet
    field = "fromEndpoints" if direction is Direction.INGRESS else "toEndpoints"
    is_enforced, is_allowed, http = False, False, []
    for policy in world:
        namespace, spec = policy["metadata"]["namespace"], policy["spec"]
        is_subject = subject[f"k8s:{NAMESPACE}"] == namespace and chooses(spec["endpointSelector"], subject)
        if not is_subject or not spec[direction.value]:
            continue
        is_enforced = True
        for clause in spec[direction.value]:
            peers = clause.get(field)
            if peers is None and not clause.get("toPorts"):
                continue
            if peers is None or any(peer_chosen(selector, labels, namespace) for selector in peers):
                for rules in covering(clause, protocol, port):
                    is_allowed |= not rules
                    http += rules
    if not is_enforced or (identity == 1 and direction is Direction.INGRESS):
        return Verdict.ALLOW, set(), True
    if http:
        return Verdict.REDIRECT, {http_key(rule) for rule in http}, is_allowed
    return (Verdict.ALLOW if is_allowed else Verdict.DENY), set(), is_allowed


def http_key(rule: Mapping[str, Any]) -> Key:
    headers = tuple(("x-key", "=1") for _ in rule.get("headers", ()))
    return (rule.get("method", ""), rule.get("path", ""), rule.get("host", ""), headers, (), "")


def compiled(policy: EndpointPolicy, direction: Direction, packet: Key) -> tuple[Verdict, set[Key], bool]:
    identity, _, protocol, port = packet
    found, peer = verdict(policy.direction(direction), identity, protocol, port)
    rules = peer.rule_set if peer is not None else None
    if rules is None:
        return found, set(), found is Verdict.ALLOW
    return found, {rule.match_key for rule in rules.http}, bool(rules.wildcard)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies())
def test_the_compiled_policy_says_what_the_policies_say(world: list[dict[str, Any]]) -> None:
    node = Node()
    assert not node.apply(*PODS, *world)
    result = node.compile()
    assert not result.errors
    by_name = {endpoint.name: endpoint.group for endpoint in result.node.endpoints}
    policies_ = {policy.group: policy for policy in result.node.policies}
    known = {pod["metadata"]["name"]: labels_of(pod) for pod in PODS}
    everybody = {by_name[name]: labels for name, labels in known.items()}
    everybody |= {identity: dict.fromkeys(labels, "") for identity, labels in RESERVED.items()}
    for name, subject in known.items():
        for direction, (identity, labels), protocol, port in itertools.product(
            Direction, everybody.items(), PROTOCOLS, PORTS
        ):
            packet = (identity, labels, protocol, port)
            wanted = expected(world, subject, direction, packet)
            found = compiled(policies_[by_name[name]], direction, packet)
            assert found == wanted, (name, direction, packet, found, wanted)
