"""Facts 2.1 - 2.4, row by row: keys, namespaces, absent and empty lists, entities, as the readers give them on."""

from __future__ import annotations

from typing import Any

import pytest

from policies.errors import Reason
from policies.ir import FqdnSelector
from policies.rules import (
    Action,
    CidrGroupPeer,
    CidrPeer,
    Entity,
    EntityPeer,
    FqdnPeer,
    Peer,
    PortSpec,
    Rule,
    ServicePeer,
    ToPorts,
)
from policies.selectors import Operator, Requirement, Selector
from policies.types import ALL_PORTS, Direction, PortRange, Protocol
from tests.policies.judge import ccnp, clause, cnp, judge

NAMESPACE = "k8s:io.kubernetes.pod.namespace"
HERE = Requirement(NAMESPACE, Operator.IN, ("d",))
ANYWHERE = Requirement(NAMESPACE, Operator.EXISTS)


def rule_of(raw: dict[str, Any]) -> Rule:
    judged = judge(raw)
    assert judged.policy is not None, judged.errors
    return judged.policy.rules[0]


def peers_of(raw: dict[str, Any]) -> tuple[Peer, ...] | None:
    rule = rule_of(raw)
    return (*rule.ingress, *rule.egress)[0].peers


def label(key: str, value: str = "") -> Requirement:
    return Requirement(key, Operator.IN, (value,))


def in_cnp(selector: str) -> Selector:
    """What one of fromEndpoints becomes in a policy of namespace d."""
    (peer,) = peers_of(clause(f"fromEndpoints: [{selector}]")) or ()
    assert isinstance(peer, Selector)
    return peer


def in_ccnp(selector: str, subject: str = "{}") -> Selector:
    (peer,) = peers_of(ccnp(f"endpointSelector: {subject}, ingress: [{{fromEndpoints: [{selector}]}}]")) or ()
    assert isinstance(peer, Selector)
    return peer


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("app", "any:app"),
        ("k8s:app", "k8s:app"),
        ("any:app", "any:app"),
        ("reserved:host", "reserved:host"),
        ("io.kubernetes.pod.namespace", "any:io.kubernetes.pod.namespace"),
        (":app", "any:app"),
        ("$host", "reserved:host"),
        ("reserved.host", "reserved:host"),
        ("k8s.app", "any:k8s.app"),
        ("example.org/app", "any:example.org/app"),
    ],
)
def test_2_1_keys_get_their_source(written: str, key: str) -> None:
    assert key in {requirement.key for requirement in in_cnp(f"{{matchLabels: {{'{written}': x}}}}").requirements}


def test_2_1_labels_and_expressions_are_anded() -> None:
    found = in_cnp("{matchLabels: {a: b}, matchExpressions: [{key: c, operator: NotIn, values: [e, d, d]}]}")
    assert found == Selector.of([HERE, label("any:a", "b"), Requirement("any:c", Operator.NOT_IN, ("d", "e"))])


def test_2_2_the_subject_is_of_the_policys_namespace() -> None:
    judged = judge(cnp(f"endpointSelector: {{matchLabels: {{'{NAMESPACE}': other, a: b}}}}, ingress: [{{}}]"))
    assert judged.policy is not None
    assert judged.policy.rules[0].subject == Selector.of([HERE, label("any:a", "b")])
    assert ("spec.endpointSelector.matchLabels", Reason.REWRITTEN) in judged.warnings


def test_2_2_another_namespace_in_an_expression_selects_nothing() -> None:
    expression = f"{{key: '{NAMESPACE}', operator: In, values: [other]}}"
    judged = judge(cnp(f"endpointSelector: {{matchExpressions: [{expression}]}}, ingress: [{{}}]"))
    assert judged.policy is not None
    assert set(judged.policy.rules[0].subject.requirements) == {HERE, label(NAMESPACE, "other")}
    assert ("spec.endpointSelector", Reason.SELECTS_NOTHING) in judged.warnings


def test_2_2_a_reserved_subject_in_a_namespace_selects_nothing() -> None:
    judged = judge(cnp("endpointSelector: {matchLabels: {'reserved:init': ''}}, ingress: [{}]"))
    assert judged.policy is not None
    assert judged.policy.rules[0].subject == Selector.of([HERE, label("reserved:init")])
    assert ("spec.endpointSelector", Reason.SELECTS_NOTHING) in judged.warnings


def test_2_2_a_clusterwide_subject_is_left_as_it_is() -> None:
    assert rule_of(ccnp("endpointSelector: {}, ingress: [{}]")).subject == Selector()
    reserved = rule_of(ccnp("endpointSelector: {matchLabels: {'reserved:init': ''}}, ingress: [{}]"))
    assert reserved.subject == Selector.of([label("reserved:init")])


def test_2_2_a_peer_without_namespace() -> None:
    assert in_cnp("{}") == Selector.of([HERE])
    assert in_ccnp("{}") == Selector.of([ANYWHERE])
    assert in_ccnp("{}", "{matchLabels: {'reserved:init': ''}}") == Selector()


@pytest.mark.parametrize("key", [NAMESPACE, "io.kubernetes.pod.namespace", "any:io.kubernetes.pod.namespace"])
def test_2_2_a_peer_that_names_a_namespace_is_left_as_it_is(key: str) -> None:
    for read in (in_cnp, in_ccnp):
        assert len(read(f"{{matchLabels: {{'{key}': x}}}}").requirements) == 1
        assert len(read(f"{{matchExpressions: [{{key: '{key}', operator: Exists}}]}}").requirements) == 1


def test_2_2_a_namespace_key_of_another_source_is_no_namespace() -> None:
    assert HERE in in_cnp("{matchLabels: {'container:io.kubernetes.pod.namespace': x}}").requirements


@pytest.mark.parametrize("source", ["", "k8s:", "any:"])
def test_2_2_labels_of_namespaces_look_across_namespaces(source: str) -> None:
    selector = f"{{matchLabels: {{'{source}io.cilium.k8s.namespace.labels.team': a}}}}"
    assert len(in_cnp(selector).requirements) == 1
    assert ANYWHERE in in_ccnp(selector).requirements


def test_2_2_any_reserved_key_means_anywhere() -> None:
    selector = "{matchExpressions: [{key: 'reserved:host', operator: DoesNotExist}]}"
    expected = Selector.of([Requirement("reserved:host", Operator.DOES_NOT_EXIST)])
    assert in_cnp(selector) == in_ccnp(selector) == expected
    judged = judge(clause(f"fromEndpoints: [{selector}]"))
    assert ("spec.ingress[0]", Reason.SELECTS_EVERYTHING) in judged.warnings


def test_2_2_nodes_have_no_namespace() -> None:
    remote = Requirement("reserved:remote-node", Operator.EXISTS)
    expected = (Selector.of([remote, label("any:zone", "a")]),)
    assert peers_of(clause("fromNodes: [{matchLabels: {zone: a}}]")) == expected
    assert peers_of(ccnp("endpointSelector: {}, egress: [{toNodes: [{matchLabels: {zone: a}}]}]")) == expected


EMPTY_LISTS = ("fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet", "fromNodes")


@pytest.mark.parametrize(
    ("body", "peers", "to_ports"),
    [
        ("toPorts: [{ports: [{port: '80'}]}]", None, 1),
        ("icmps: [{fields: [{type: 8}]}]", None, 1),
        ("", None, 0),
        ("fromEndpoints: null", None, 0),
        *((f"{name}: []", (), 0) for name in EMPTY_LISTS),
        *((f"{name}: [], toPorts: [{{ports: [{{port: '80'}}]}}]", (), 1) for name in EMPTY_LISTS),
        ("fromEndpoints: [], fromEntities: [host]", (), 0),
        ("fromEndpoints: [{}]", (Selector.of([HERE]),), 0),
    ],
)
def test_2_3_absent_empty_and_all_stay_apart(body: str, peers: Any, to_ports: int) -> None:
    (found,) = rule_of(clause(body)).ingress
    assert (found.peers, len(found.to_ports)) == (peers, to_ports)


@pytest.mark.parametrize("body", ["toPorts: [{}]", "toPorts: [{ports: []}]", "icmps: [{}]", "icmps: [{fields: []}]"])
def test_2_3_an_entry_without_ports_is_not_every_port(body: str) -> None:
    judged = judge(clause(f"fromEndpoints: [{{}}], {body}"))
    assert judged.policy is not None
    assert judged.policy.rules[0].ingress[0].to_ports == (ToPorts(),)
    assert Reason.SELECTS_NOTHING in {reason for _, reason in judged.warnings}


def test_2_3_services_by_name_and_by_selector() -> None:
    found = peers_of(
        clause(
            "toServices: [{k8sService: {serviceName: s}}, {k8sService: {serviceName: s, namespace: n}},"
            " {k8sServiceSelector: {namespace: n, selector: {matchLabels: {a: b}}}}]",
            "egress",
        )
    )
    chosen = Selector.of([label("any:a", "b")])
    assert found == (ServicePeer("", "s"), ServicePeer("n", "s"), ServicePeer("n", "", chosen))


@pytest.mark.parametrize(
    ("entry", "selector"),
    [
        ("matchName: API.GitHub.com", FqdnSelector(name="api.github.com.")),
        ("matchName: api.github.com.", FqdnSelector(name="api.github.com.")),
        ("matchPattern: api.github.com", FqdnSelector(name="api.github.com.")),
        ("matchPattern: '*.GitHub.com'", FqdnSelector(pattern="*.github.com.")),
        ("matchPattern: '**'", FqdnSelector(pattern="*")),
        ("", FqdnSelector()),
    ],
)
def test_6_1_names_and_patterns_of_to_fqdns(entry: str, selector: FqdnSelector) -> None:
    """In one form, whatever the case, and with a dot at the end or without."""
    assert peers_of(clause(f"toFQDNs: [{{{entry}}}]", "egress")) == (FqdnPeer(selector),)


def test_an_empty_list_of_names_is_nobody() -> None:
    judged = judge(clause("toFQDNs: []", "egress"))
    assert judged.policy is not None
    assert judged.policy.rules[0].egress[0].peers == ()
    assert Reason.SELECTS_NOTHING in {reason for _, reason in judged.warnings}


@pytest.mark.parametrize("entity", Entity)
def test_2_4_every_entity_has_its_name(entity: Entity) -> None:
    assert peers_of(clause(f"fromEntities: [{entity}]")) == (EntityPeer(entity),)


def test_cidr_groups_by_name_and_by_label() -> None:
    found = peers_of(
        clause(
            "fromCIDRSet: [{cidr: 10.1.0.0/8, except: [10.3.0.0/16, 10.2.0.0/16]}, {cidrGroupRef: g},"
            " {cidrGroupSelector: {matchLabels: {a: b}}, except: [10.0.0.0/8]}]"
        )
    )
    by_name = Requirement("cidrgroup:io.cilium.policy.cidrgroupname/g", Operator.EXISTS)
    assert found == (
        CidrPeer("10.0.0.0/8", ("10.2.0.0/16", "10.3.0.0/16")),
        CidrGroupPeer(Selector.of([by_name])),
        CidrGroupPeer(Selector.of([label("cidrgroup:a", "b")]), ("10.0.0.0/8",)),
    )


def test_ports_of_every_protocol() -> None:
    raw = clause(
        "toPorts: [{ports: [{port: '0'}, {port: '53', protocol: UDP}, {port: '1', endPort: 9, protocol: SCTP},"
        " {port: Web, protocol: TCP}, {port: '7', protocol: ANY}]}]"
    )
    (entry,) = rule_of(raw).ingress[0].to_ports
    assert entry.ports == (
        PortSpec(Protocol.ANY, ALL_PORTS),
        PortSpec(Protocol.UDP, PortRange(53, 53)),
        PortSpec(Protocol.SCTP, PortRange(1, 9)),
        PortSpec(Protocol.TCP, "web"),
        PortSpec(Protocol.ANY, PortRange(7, 7)),
    )


@pytest.mark.parametrize(
    ("spec", "enforces"),
    [
        ("ingress: [{}]", [Direction.INGRESS]),
        ("egressDeny: [{toEntities: [world]}]", [Direction.EGRESS]),
        ("ingress: [{}], enableDefaultDeny: {ingress: false}", []),
        ("ingress: [{}], enableDefaultDeny: {egress: true}", [Direction.INGRESS, Direction.EGRESS]),
        ("ingress: [{}], egress: [{}], enableDefaultDeny: {egress: false}", [Direction.INGRESS]),
    ],
)
def test_3_2_default_deny_is_of_directions_with_entries_unless_it_is_said(spec: str, enforces: Any) -> None:
    assert list(rule_of(cnp(f"endpointSelector: {{}}, {spec}")).enforces) == enforces


def test_denials_stand_beside_allows() -> None:
    rule = rule_of(cnp("endpointSelector: {}, ingress: [{}], ingressDeny: [{fromEntities: [world]}], log: {value: x}"))
    assert [(str(c.origin.path), c.action) for c in rule.ingress] == [
        ("spec.ingress[0]", Action.ALLOW),
        ("spec.ingressDeny[0]", Action.DENY),
    ]
    assert rule.log == "x"
