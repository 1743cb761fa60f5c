"""Facts 1.3, row by row: what Cilium's schema or its check refuses is refused here too, at its field."""

from __future__ import annotations

from typing import Any

import pytest

from policies.errors import Reason
from tests.policies.judge import ccnp, clause, cnp, judge, ports

TCP80 = '{port: "80", protocol: TCP}'
IN = "spec.ingress[0]"
OUT = "spec.egress[0]"
IN_PORTS = f"{IN}.toPorts[0]"
OUT_PORTS = f"{OUT}.toPorts[0]"
PORT = f"{IN_PORTS}.ports[0]"


def l7(rules: str, where: str = "egress", port: str = TCP80, more: str = "") -> dict[str, Any]:
    return ports(f"ports: [{port}], rules: {{{rules}}}{more}", where)


def dns(name: str) -> dict[str, Any]:
    return l7(f"dns: [{{{name}}}]", port='{port: "53", protocol: ANY}')


def kafka(rule: str) -> dict[str, Any]:
    return l7(f"kafka: [{{{rule}}}]")


FORTY_ONE = ", ".join(f'{{port: "{i}"}}' for i in range(1, 42))
TYPES = ", ".join(f"{{type: {i}}}" for i in range(41))

ROWS: dict[str, tuple[dict[str, Any], str, Reason]] = {
    "no list": (cnp("endpointSelector: {}"), "spec", Reason.EMPTY),
    "only an empty list": (cnp("endpointSelector: {}, ingress: []"), "spec", Reason.EMPTY),
    "no selector": (cnp("ingress: [{}]"), "spec.endpointSelector", Reason.MISSING),
    "both selectors": (
        ccnp("endpointSelector: {}, nodeSelector: {}, ingress: [{}]"),
        "spec.nodeSelector",
        Reason.CONFLICT,
    ),
    "nodeSelector in a namespace": (cnp("nodeSelector: {}, ingress: [{}]"), "spec.nodeSelector", Reason.NOT_ALLOWED),
    "neither spec nor specs": (cnp("") | {"spec": None}, "spec", Reason.MISSING),
    "no name": (cnp("endpointSelector: {}, ingress: [{}]") | {"metadata": {}}, "metadata.name", Reason.MISSING),
    "bad label value": (
        cnp("endpointSelector: {matchLabels: {a: b c}}, ingress: [{}]"),
        "spec.endpointSelector.matchLabels[a]",
        Reason.BAD_SELECTOR,
    ),
    "In without values": (
        clause("fromEndpoints: [{matchExpressions: [{key: a, operator: In}]}]"),
        f"{IN}.fromEndpoints[0].matchExpressions[0].values",
        Reason.BAD_SELECTOR,
    ),
    "a key that is too long with its source": (
        clause(f"fromEndpoints: [{{matchLabels: {{{'a' * 60}: b}}}}]"),
        f"{IN}.fromEndpoints[0].matchLabels[{'a' * 60}]",
        Reason.BAD_SELECTOR,
    ),
    "two kinds of peers": (
        clause("fromEndpoints: [{}], fromEntities: [host]"),
        f"{IN}.fromEntities",
        Reason.CONFLICT,
    ),
    "CIDR and CIDRSet": (
        clause("fromCIDR: [10.0.0.0/8], fromCIDRSet: [{cidr: 10.0.0.0/8}]"),
        f"{IN}.fromCIDRSet",
        Reason.CONFLICT,
    ),
    "toFQDNs and another kind": (
        clause("toFQDNs: [{matchName: a}], toCIDR: [10.0.0.0/8]", "egress"),
        f"{OUT}.toFQDNs",
        Reason.CONFLICT,
    ),
    "toServices and another kind": (
        clause("toServices: [{k8sService: {serviceName: a}}], toEndpoints: [{}]", "egress"),
        f"{OUT}.toServices",
        Reason.CONFLICT,
    ),
    "HTTP on host ingress": (
        ccnp(f"nodeSelector: {{}}, ingress: [{{toPorts: [{{ports: [{TCP80}], rules: {{http: [{{}}]}}}}]}}]"),
        f"{IN_PORTS}.rules.http",
        Reason.NOT_ALLOWED,
    ),
    "HTTP on host egress": (
        ccnp(f"nodeSelector: {{}}, egress: [{{toPorts: [{{ports: [{TCP80}], rules: {{http: [{{}}]}}}}]}}]"),
        f"{OUT_PORTS}.rules.http",
        Reason.NOT_ALLOWED,
    ),
    "DNS on ingress": (l7("dns: [{matchName: a}]", "ingress"), f"{IN_PORTS}.rules.dns", Reason.NOT_ALLOWED),
    "icmps with toPorts": (
        clause(f"icmps: [{{fields: [{{type: 8}}]}}], toPorts: [{{ports: [{TCP80}]}}]"),
        f"{IN}.icmps",
        Reason.CONFLICT,
    ),
    "more than 40 types": (clause(f"icmps: [{{fields: [{TYPES}]}}]"), f"{IN}.icmps[0].fields", Reason.TOO_MANY),
    "a family that is none": (
        clause("icmps: [{fields: [{family: IPv5, type: 8}]}]"),
        f"{IN}.icmps[0].fields[0].family",
        Reason.BAD_ICMP,
    ),
    "a type of the other family": (
        clause("icmps: [{fields: [{family: IPv6, type: Photuris}]}]"),
        f"{IN}.icmps[0].fields[0].type",
        Reason.BAD_ICMP,
    ),
    "the schema's own misspelling": (
        clause("icmps: [{fields: [{type: ExtendedEcho Reply}]}]"),
        f"{IN}.icmps[0].fields[0].type",
        Reason.BAD_ICMP,
    ),
    "no type": (clause("icmps: [{fields: [{}]}]"), f"{IN}.icmps[0].fields[0].type", Reason.MISSING),
    "server names with HTTP": (
        l7("http: [{}]", more=", serverNames: [a.io]"),
        f"{OUT_PORTS}.serverNames",
        Reason.CONFLICT,
    ),
    "an empty server name": (
        ports(f"ports: [{TCP80}], serverNames: ['']", "egress"),
        f"{OUT_PORTS}.serverNames[0]",
        Reason.BAD_NAME,
    ),
    "no server name": (
        ports(f"ports: [{TCP80}], serverNames: []", "egress"),
        f"{OUT_PORTS}.serverNames",
        Reason.EMPTY,
    ),
    "more than 40 ports": (ports(f"ports: [{FORTY_ONE}]"), f"{IN_PORTS}.ports", Reason.TOO_MANY),
    "more than 40 ports denied": (
        ports(f"ports: [{FORTY_ONE}]", "ingressDeny"),
        "spec.ingressDeny[0].toPorts[0].ports",
        Reason.TOO_MANY,
    ),
    "no port": (ports("ports: [{protocol: TCP}]"), f"{PORT}.port", Reason.MISSING),
    "an empty port": (ports("ports: [{port: ''}]"), f"{PORT}.port", Reason.MISSING),
    "a port that is neither name nor number": (ports("ports: [{port: 'a_b'}]"), f"{PORT}.port", Reason.BAD_PORT),
    "a port above 65535": (ports("ports: [{port: '65536'}]"), f"{PORT}.port", Reason.BAD_PORT),
    "no octal digits": (ports("ports: [{port: '080'}]"), f"{PORT}.port", Reason.BAD_PORT),
    "a name of 16 characters": (ports(f"ports: [{{port: {'a' * 16}}}]"), f"{PORT}.port", Reason.BAD_PORT),
    "VRRP with a port": (ports("ports: [{port: '1', protocol: VRRP}]"), f"{PORT}.port", Reason.BAD_PORT),
    "endPort above 65535": (ports("ports: [{port: '1', endPort: 65536}]"), f"{PORT}.endPort", Reason.BAD_PORT),
    "DNS with a range": (
        l7("dns: [{matchName: a}]", port='{port: "53", endPort: 54}'),
        f"{OUT_PORTS}.ports[0].endPort",
        Reason.NOT_ALLOWED,
    ),
    "ICMP as a protocol": (ports("ports: [{port: '1', protocol: ICMP}]"), f"{PORT}.protocol", Reason.INVALID),
    "a protocol in small letters": (ports("ports: [{port: '1', protocol: tcp}]"), f"{PORT}.protocol", Reason.INVALID),
    "HTTP without a protocol": (
        l7("http: [{}]", "ingress", '{port: "80"}'),
        f"{PORT}.protocol",
        Reason.NOT_ALLOWED,
    ),
    "HTTP over UDP": (
        l7("http: [{}]", "ingress", '{port: "80", protocol: UDP}'),
        f"{PORT}.protocol",
        Reason.NOT_ALLOWED,
    ),
    "a listener on ingress": (
        ports(f"ports: [{TCP80}], listener: {{name: l, envoyConfig: {{name: c}}}}"),
        f"{IN_PORTS}.listener",
        Reason.NOT_ALLOWED,
    ),
    "a listener with HTTP": (
        l7("http: [{}]", more=", listener: {name: l, envoyConfig: {name: c}}"),
        f"{OUT_PORTS}.listener",
        Reason.CONFLICT,
    ),
    "a listener without a name": (
        ports(f"ports: [{TCP80}], listener: {{envoyConfig: {{name: c}}}}", "egress"),
        f"{OUT_PORTS}.listener.name",
        Reason.MISSING,
    ),
    "a listener of too low a priority": (
        ports(f"ports: [{TCP80}], listener: {{name: l, priority: 101, envoyConfig: {{name: c}}}}", "egress"),
        f"{OUT_PORTS}.listener.priority",
        Reason.INVALID,
    ),
    "HTTP on port 0": (l7("http: [{}]", "ingress", '{port: "0", protocol: TCP}'), f"{PORT}.port", Reason.NOT_ALLOWED),
    "DNS without ports": (
        ports("rules: {dns: [{matchName: a}]}", "egress"),
        f"{OUT_PORTS}.ports",
        Reason.MISSING,
    ),
    "HTTP and Kafka": (l7("http: [{}], kafka: [{}]"), f"{OUT_PORTS}.rules", Reason.CONFLICT),
    "l7 without l7proto": (l7("l7: [{a: b}]"), f"{OUT_PORTS}.rules.l7", Reason.MISSING),
    "an empty key of l7": (l7("l7proto: x, l7: [{'': b}]"), f"{OUT_PORTS}.rules.l7[0]", Reason.INVALID),
    "a path that is no regex": (l7("http: [{path: '['}]"), f"{OUT_PORTS}.rules.http[0].path", Reason.BAD_REGEX),
    "a method that is no regex": (l7("http: [{method: '('}]"), f"{OUT_PORTS}.rules.http[0].method", Reason.BAD_REGEX),
    "a regex that only RE2 takes": (
        l7(r"http: [{path: 'a\C'}]"),
        f"{OUT_PORTS}.rules.http[0].path",
        Reason.BAD_REGEX,
    ),
    "a header match without a name": (
        l7("http: [{headerMatches: [{value: a}]}]"),
        f"{OUT_PORTS}.rules.http[0].headerMatches[0].name",
        Reason.MISSING,
    ),
    "a header action that is none": (
        l7("http: [{headerMatches: [{name: a, mismatch: FAIL}]}]"),
        f"{OUT_PORTS}.rules.http[0].headerMatches[0].mismatch",
        Reason.INVALID,
    ),
    "a secret without a name": (
        l7("http: [{headerMatches: [{name: a, secret: {namespace: b}}]}]"),
        f"{OUT_PORTS}.rules.http[0].headerMatches[0].secret.name",
        Reason.MISSING,
    ),
    "a DNS name with a blank": (dns("matchName: 'a b'"), f"{OUT_PORTS}.rules.dns[0].matchName", Reason.BAD_NAME),
    "a DNS pattern with a slash": (
        dns("matchPattern: '*/b'"),
        f"{OUT_PORTS}.rules.dns[0].matchPattern",
        Reason.BAD_NAME,
    ),
    "a star in a name": (dns("matchName: '*.b'"), f"{OUT_PORTS}.rules.dns[0].matchName", Reason.BAD_NAME),
    "a DNS name of 256": (dns(f"matchName: {'a' * 256}"), f"{OUT_PORTS}.rules.dns[0].matchName", Reason.BAD_NAME),
    "both names in toFQDNs": (
        clause("toFQDNs: [{matchName: a, matchPattern: b}]", "egress"),
        f"{OUT}.toFQDNs[0]",
        Reason.CONFLICT,
    ),
    "role and apiKey": (kafka("role: produce, apiKey: fetch"), f"{OUT_PORTS}.rules.kafka[0]", Reason.CONFLICT),
    "an API key that is none": (kafka("apiKey: fetsch"), f"{OUT_PORTS}.rules.kafka[0].apiKey", Reason.BAD_KAFKA),
    "a negative API version": (kafka("apiVersion: '-1'"), f"{OUT_PORTS}.rules.kafka[0].apiVersion", Reason.BAD_KAFKA),
    "a topic with a blank": (kafka("topic: a b"), f"{OUT_PORTS}.rules.kafka[0].topic", Reason.BAD_KAFKA),
    "a role that is none": (kafka("role: admin"), f"{OUT_PORTS}.rules.kafka[0].role", Reason.BAD_KAFKA),
    "a CIDR that is none": (clause("fromCIDR: [10.0.0.0/33]"), f"{IN}.fromCIDR[0]", Reason.BAD_CIDR),
    "a netmask": (clause("fromCIDR: [10.0.0.0/255.0.0.0]"), f"{IN}.fromCIDR[0]", Reason.BAD_CIDR),
    "a padded length": (clause("fromCIDR: [10.0.0.0/08]"), f"{IN}.fromCIDR[0]", Reason.BAD_CIDR),
    "an address in a CIDRSet": (
        clause("fromCIDRSet: [{cidr: 10.0.0.1}]"),
        f"{IN}.fromCIDRSet[0].cidr",
        Reason.BAD_CIDR,
    ),
    "an exception outside": (
        clause("fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]"),
        f"{IN}.fromCIDRSet[0].except[0]",
        Reason.BAD_CIDR,
    ),
    "an exception of the other family": (
        clause("fromCIDRSet: [{cidr: 0.0.0.0/0, except: ['fd00::/8']}]"),
        f"{IN}.fromCIDRSet[0].except[0]",
        Reason.BAD_CIDR,
    ),
    "nothing in a CIDRSet": (clause("fromCIDRSet: [{}]"), f"{IN}.fromCIDRSet[0]", Reason.MISSING),
    "cidr and cidrGroupRef": (
        clause("fromCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: g}]"),
        f"{IN}.fromCIDRSet[0]",
        Reason.CONFLICT,
    ),
    "a group's name that is none": (
        clause("fromCIDRSet: [{cidrGroupRef: G_1}]"),
        f"{IN}.fromCIDRSet[0].cidrGroupRef",
        Reason.INVALID,
    ),
    "an entity that is none": (clause("fromEntities: [foo]"), f"{IN}.fromEntities[0]", Reason.BAD_ENTITY),
    "fromRequires": (clause("fromRequires: [a]"), f"{IN}.fromRequires", Reason.NOT_ALLOWED),
    "authentication without a mode": (clause("authentication: {}"), f"{IN}.authentication.mode", Reason.INVALID),
    "a log value of 33": (
        cnp(f"endpointSelector: {{}}, ingress: [{{}}], log: {{value: {'x' * 33}}}"),
        "spec.log.value",
        Reason.INVALID,
    ),
    "a log value that is not printable": (
        cnp('endpointSelector: {}, ingress: [{}], log: {value: "a\\tb"}'),
        "spec.log.value",
        Reason.INVALID,
    ),
    "an empty label": (cnp("endpointSelector: {}, ingress: [{}], labels: ['']"), "spec.labels[0]", Reason.INVALID),
    "TLS without a secret": (
        ports(f"ports: [{TCP80}], terminatingTLS: {{}}", "egress"),
        f"{OUT_PORTS}.terminatingTLS.secret",
        Reason.MISSING,
    ),
    "a service selector without one": (
        clause("toServices: [{k8sServiceSelector: {namespace: a}}]", "egress"),
        f"{OUT}.toServices[0].k8sServiceSelector.selector",
        Reason.MISSING,
    ),
    "a number for a string": (ports("ports: [{port: 80}]"), f"{PORT}.port", Reason.WRONG_TYPE),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda name: name.replace(" ", "-"))
def test_what_cilium_refuses_is_refused_here(row: str) -> None:
    raw, path, reason = ROWS[row]
    judged = judge(raw)
    assert (path, reason) in judged.errors & judged.by_cilium


def test_a_namespace_makes_the_kind() -> None:
    """Facts 1.1: a CiliumNetworkPolicy in namespace "" is clusterwide, and so may select nodes; absent is "default"."""
    clusterwide = judge(cnp("endpointSelector: {matchLabels: {a: b}}, ingress: [{}]", namespace=""))
    assert clusterwide.policy is not None
    assert clusterwide.policy.namespace == ""
    assert [r.key for r in clusterwide.policy.rules[0].subject.requirements] == ["any:a"]
    assert ("metadata.namespace", Reason.REWRITTEN) in clusterwide.warnings
    absent = judge(cnp("endpointSelector: {}, ingress: [{}]", namespace=None))
    assert absent.policy is not None
    assert absent.policy.namespace == "default"


def test_nodes_as_peers_need_a_flag_of_cilium_and_none_here() -> None:
    for raw, path in (
        (clause("fromNodes: [{}]"), f"{IN}.fromNodes"),
        (clause("toNodes: [{}]", "egress"), f"{OUT}.toNodes"),
    ):
        judged = judge(raw)
        assert judged.valid
        assert judged.by_cilium == {(path, Reason.NOT_IN_SCHEMA)}


NOT_ENFORCED: dict[str, tuple[dict[str, Any], str, Reason]] = {
    "nodeSelector": (ccnp("nodeSelector: {}, ingress: [{}]"), "spec.nodeSelector", Reason.NOT_SUPPORTED),
    "authentication": (clause("authentication: {mode: required}"), f"{IN}.authentication.mode", Reason.NOT_SUPPORTED),
    "TLS": (
        ports(f"ports: [{TCP80}], originatingTLS: {{secret: {{name: a}}}}", "egress"),
        f"{OUT_PORTS}.originatingTLS",
        Reason.NOT_SUPPORTED,
    ),
    "server names": (
        ports(f"ports: [{TCP80}], serverNames: ['*.a.io']", "egress"),
        f"{OUT_PORTS}.serverNames",
        Reason.NOT_SUPPORTED,
    ),
    "listener": (
        ports(f"ports: [{TCP80}], listener: {{name: l, envoyConfig: {{name: c}}}}", "egress"),
        f"{OUT_PORTS}.listener",
        Reason.NOT_SUPPORTED,
    ),
    "groups": (clause("fromGroups: [{aws: {region: eu}}]"), f"{IN}.fromGroups[0]", Reason.NOT_SUPPORTED),
    "l7proto": (l7("l7proto: r2d2, l7: [{cmd: HALT}]"), f"{OUT_PORTS}.rules.l7", Reason.NOT_SUPPORTED),
    "DNS over SCTP": (
        l7("dns: [{matchName: a}]", port='{port: "53", protocol: SCTP}'),
        f"{OUT_PORTS}.ports[0].protocol",
        Reason.NOT_SUPPORTED,
    ),
    "a topic with a backslash": (kafka(r"topic: a\\b"), f"{OUT_PORTS}.rules.kafka[0].topic", Reason.BAD_KAFKA),
    "VRRP": (ports("ports: [{port: '0', protocol: VRRP}]"), f"{PORT}.protocol", Reason.NOT_SUPPORTED),
    "IGMP": (ports("ports: [{port: '0', protocol: IGMP}]"), f"{PORT}.protocol", Reason.NOT_SUPPORTED),
}


@pytest.mark.parametrize("row", NOT_ENFORCED)
def test_what_is_not_enforced_here_is_refused_and_good_in_cilium(row: str) -> None:
    raw, path, reason = NOT_ENFORCED[row]
    judged = judge(raw)
    assert (path, reason) in judged.errors
    assert judged.valid_in_cilium
