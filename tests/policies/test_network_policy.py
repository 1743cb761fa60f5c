"""NetworkPolicy: Kubernetes' own meaning of absent and empty, and what its API server and Cilium refuse."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from policies.errors import PolicyErrors, Reason
from policies.reading.readers import parse_object
from policies.rules import CidrPeer, Clause, Entity, EntityPeer, Policy, PortSpec, Rule, ToPorts
from policies.selectors import Operator, Requirement, Selector
from policies.types import ALL_PORTS, Direction, PortRange, Protocol
from tests.policies.judge import judge

NAMESPACE = "k8s:io.kubernetes.pod.namespace"
HERE = Requirement(NAMESPACE, Operator.IN, ("d",))
BOTH = [Direction.INGRESS, Direction.EGRESS]
IN = "spec.ingress[0]"


def netpol(spec: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "d"},
        "spec": yaml.safe_load("{" + spec + "}"),
    }


def rule_of(spec: str) -> Rule:
    judged = judge(netpol(spec))
    assert judged.policy is not None, judged.errors
    (rule,) = judged.policy.rules
    return rule


def clause_of(body: str) -> Clause:
    (clause,) = rule_of(f"podSelector: {{}}, ingress: [{{{body}}}]").ingress
    return clause


def label(key: str, value: str) -> Requirement:
    return Requirement(key, Operator.IN, (value,))


def test_the_subject_is_pods_of_its_namespace() -> None:
    rule = rule_of("podSelector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: Exists}]}, ingress: []")
    assert rule.subject == Selector.of([HERE, label("k8s:a", "b"), Requirement("k8s:c", Operator.EXISTS)])


@pytest.mark.parametrize(
    ("spec", "enforces"),
    [
        ("podSelector: {}", [Direction.INGRESS]),
        ("podSelector: {}, ingress: []", [Direction.INGRESS]),
        ("podSelector: {}, egress: [{}]", BOTH),
        ("podSelector: {}, egress: []", [Direction.INGRESS]),
        ("podSelector: {}, policyTypes: [Egress]", [Direction.EGRESS]),
        ("podSelector: {}, policyTypes: [Egress, Ingress]", BOTH),
        ("podSelector: {}, policyTypes: [Ingress], ingress: [{}]", [Direction.INGRESS]),
        ("podSelector: {}, policyTypes: []", [Direction.INGRESS]),
    ],
)
def test_policy_types_say_what_is_enforced(spec: str, enforces: list[Direction]) -> None:
    assert list(rule_of(spec).enforces) == enforces


@pytest.mark.parametrize("body", ["", "from: []", "from: null"])
def test_no_peers_are_everybody(body: str) -> None:
    assert clause_of(body).peers == (EntityPeer(Entity.ALL),)
    assert clause_of(body).to_ports == ()


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("podSelector: {matchLabels: {a: b}}", [HERE, label("k8s:a", "b")]),
        ("podSelector: {}", [HERE]),
        ("namespaceSelector: {}", [Requirement(NAMESPACE, Operator.EXISTS)]),
        (
            "namespaceSelector: {matchLabels: {team: x}}",
            [label("k8s:io.cilium.k8s.namespace.labels.team", "x")],
        ),
        (
            "namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}, podSelector: {}",
            [Requirement("k8s:io.cilium.k8s.namespace.labels.team", Operator.DOES_NOT_EXIST)],
        ),
        (
            "namespaceSelector: {}, podSelector: {matchLabels: {a: b}}",
            [Requirement(NAMESPACE, Operator.EXISTS), label("k8s:a", "b")],
        ),
    ],
)
def test_pods_are_chosen_here_or_by_their_namespace(peer: str, expected: list[Requirement]) -> None:
    assert clause_of(f"from: [{{{peer}}}]").peers == (Selector.of(expected),)


def test_peers_are_alternatives_and_blocks_have_exceptions() -> None:
    found = clause_of("from: [{ipBlock: {cidr: 10.1.0.0/8, except: [10.2.0.0/16]}}, {podSelector: {}}]")
    assert found.peers == (CidrPeer("10.0.0.0/8", ("10.2.0.0/16",)), Selector.of([HERE]))


def test_ports_are_tcp_unless_they_say_otherwise() -> None:
    found = clause_of("ports: [{port: 80}, {port: web, protocol: UDP}, {protocol: SCTP}, {port: 80, endPort: 90}, {}]")
    assert found.to_ports == (
        ToPorts(
            (
                PortSpec(Protocol.TCP, PortRange(80, 80)),
                PortSpec(Protocol.UDP, "web"),
                PortSpec(Protocol.SCTP, ALL_PORTS),
                PortSpec(Protocol.TCP, PortRange(80, 90)),
                PortSpec(Protocol.TCP, ALL_PORTS),
            )
        ),
    )


@pytest.mark.parametrize("body", ["ports: []", "ports: null", ""])
def test_no_ports_are_all(body: str) -> None:
    assert clause_of(body).to_ports == ()


@pytest.mark.parametrize(
    ("body", "path", "reason"),
    [
        ("from: [{}]", f"{IN}.from[0]", Reason.MISSING),
        ("from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]", f"{IN}.from[0].ipBlock", Reason.CONFLICT),
        ("from: [{ipBlock: {}}]", f"{IN}.from[0].ipBlock.cidr", Reason.BAD_CIDR),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]",
            f"{IN}.from[0].ipBlock.except[0]",
            Reason.BAD_CIDR,
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]",
            f"{IN}.from[0].ipBlock.except[0]",
            Reason.BAD_CIDR,
        ),
        ("from: [{podSelector: {matchLabels: {'k8s:a': b}}}]", f"{IN}.from[0].podSelector.matchLabels[k8s:a]", None),
        ("ports: [{port: 0}]", f"{IN}.ports[0].port", Reason.BAD_PORT),
        ("ports: [{port: '80'}]", f"{IN}.ports[0].port", Reason.BAD_PORT),
        ("ports: [{port: 90, endPort: 80}]", f"{IN}.ports[0].endPort", Reason.BAD_PORT),
        ("ports: [{port: web, endPort: 80}]", f"{IN}.ports[0].endPort", Reason.BAD_PORT),
        ("ports: [{endPort: 80}]", f"{IN}.ports[0].endPort", Reason.BAD_PORT),
        ("ports: [{port: 80, protocol: ANY}]", f"{IN}.ports[0].protocol", Reason.INVALID),
    ],
)
def test_what_the_api_server_refuses(body: str, path: str, reason: Reason | None) -> None:
    judged = judge(netpol(f"podSelector: {{}}, ingress: [{{{body}}}]"))
    assert (path, reason or Reason.BAD_SELECTOR) in judged.errors & judged.by_cilium


@pytest.mark.parametrize(
    ("spec", "path", "reason"),
    [
        ("ingress: [{}]", "spec.podSelector", Reason.MISSING),
        ("podSelector: {}, policyTypes: [Egress], ingress: [{}]", "spec.policyTypes", Reason.CONFLICT),
        ("podSelector: {}, ingress: [{form: []}]", f"{IN}.form", Reason.UNKNOWN_FIELD),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_here(spec: str, path: str, reason: Reason) -> None:
    judged = judge(netpol(spec))
    assert judged.errors == {(path, reason)}
    assert judged.valid_in_cilium


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ("podSelector: {}, ingress: [{oops: 1}]", [Direction.INGRESS]),
        ("podSelector: {}, policyTypes: [Egress], egress: [{oops: 1}]", [Direction.EGRESS]),
        ("podSelector: {}, policyTypes: [Egres]", BOTH),
        ("podSelector: {}, egress: [{oops: 1}]", BOTH),
    ],
)
def test_a_refused_one_denies_whom_it_selects(spec: str, directions: list[Direction]) -> None:
    with pytest.raises(PolicyErrors) as refused:
        parse_object(netpol(spec))
    stand_in = refused.value.fallback
    assert isinstance(stand_in, Policy)
    (rule,) = stand_in.rules
    assert (rule.subject, list(rule.enforces), rule.invalid) == (Selector.of([HERE]), directions, True)
