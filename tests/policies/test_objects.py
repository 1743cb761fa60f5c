"""Objects: what is read, and what is refused with which words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import PolicyError, PolicyErrors, Reason
from policies.objects import EndpointSlice, Pod, Service, Workload
from policies.reading.readers import identify, parse_object
from policies.rules import Policy
from policies.types import Direction, Protocol
from tests.policies.make import pod, policy, to_ports
from tests.policies.worlds import policies

GOOD = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: rule1, creationTimestamp: "2026-01-01T00:00:00Z", annotations: {a: b}}
spec:
  description: L3-L4 policy
  labels: ["k8s:a=b", {key: a, value: b, source: k8s}]
  endpointSelector: {matchLabels: {org: empire}}
  ingress:
  - fromEndpoints: [{matchLabels: {org: empire}}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules:
        http: [{method: POST, path: /v1/request-landing, host: "death.*", headers: ["X-Key: a b", X-Seen]}]
status: {conditions: []}
"""


def refusals(raw: Any) -> set[tuple[str, str]]:
    """(path, reason) of all that is wrong."""
    with pytest.raises(PolicyErrors) as refused:
        parse_object(raw)
    assert all(isinstance(error, PolicyError) and "\n" not in str(error) for error in refused.value.errors)
    return {(error.path, error.reason) for error in refused.value.errors}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good policy with another value at this path; steps are separated by slashes."""
    raw: dict[str, Any] = yaml.safe_load(GOOD)
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    here: Any = raw
    for step in steps:
        here = here[step]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return raw


def test_a_policy_is_read_whole() -> None:
    found = parse_object(yaml.safe_load(GOOD))
    assert isinstance(found, Policy)
    (rule,) = found.rules
    (clause,) = rule.ingress
    assert (found.namespace, found.name, rule.enforces) == ("default", "rule1", (Direction.INGRESS,))
    assert str(clause.origin) == "CiliumNetworkPolicy default/rule1 spec.ingress[0]"
    (http,) = clause.to_ports[0].l7
    assert [(h.name, h.value) for h in http.headers] == [("x-key", "a b"), ("x-seen", None)]


CLAUSE = "spec/ingress/0"
PORTS = f"{CLAUSE}/toPorts/0/ports"
PORT = f"{PORTS}/0"
HTTP = f"{CLAUSE}/toPorts/0/rules/http"
IN = "spec.ingress[0]"
AT_PORT = f"{IN}.toPorts[0].ports[0]"
AT_HTTP = f"{IN}.toPorts[0].rules.http[0]"
SELECTOR = "spec/endpointSelector"


@pytest.mark.parametrize(
    ("path", "value", "where", "reason"),
    [
        ("foo", 1, "foo", Reason.UNKNOWN_FIELD),
        ("metadata/foo", 1, "metadata.foo", Reason.UNKNOWN_FIELD),
        ("metadata/name", ..., "metadata.name", Reason.MISSING),
        ("metadata/name", "Not_A_Name", "metadata.name", Reason.INVALID),
        ("spec", ..., "spec", Reason.MISSING),
        ("spec", [], "spec", Reason.WRONG_TYPE),
        ("spec/ingress", ..., "spec", Reason.EMPTY),
        ("spec/ingress", [], "spec", Reason.EMPTY),
        ("spec/ingress", {}, "spec.ingress", Reason.WRONG_TYPE),
        ("spec/ingress", [None], "spec.ingress[0]", Reason.WRONG_TYPE),
        ("spec/ingres", [], "spec.ingres", Reason.UNKNOWN_FIELD),
        ("spec/nodeSelector", {}, "spec.nodeSelector", Reason.NOT_ALLOWED),
        ("spec/description", 1, "spec.description", Reason.WRONG_TYPE),
        ("spec/labels", [1], "spec.labels[0]", Reason.WRONG_TYPE),
        ("spec/enableDefaultDeny", {"ingres": False}, "spec.enableDefaultDeny.ingres", Reason.UNKNOWN_FIELD),
        ("spec/enableDefaultDeny", {"ingress": "no"}, "spec.enableDefaultDeny.ingress", Reason.WRONG_TYPE),
        (f"{CLAUSE}/authentication", {"mode": "required"}, f"{IN}.authentication.mode", Reason.NOT_SUPPORTED),
        (f"{CLAUSE}/authentication", {"mode": "maybe"}, f"{IN}.authentication.mode", Reason.INVALID),
        (f"{CLAUSE}/fromRequires", ["x"], f"{IN}.fromRequires", Reason.NOT_ALLOWED),
        (f"{CLAUSE}/fromGroups", [], f"{IN}.fromGroups", Reason.EMPTY),
        (f"{CLAUSE}/toEndpoints", [], f"{IN}.toEndpoints", Reason.UNKNOWN_FIELD),
        ("spec/egress", [{"toFQDNs": ["a"]}], "spec.egress[0].toFQDNs[0]", Reason.WRONG_TYPE),
        ("spec/egress", [{"toServices": []}], "spec.egress[0].toServices", Reason.EMPTY),
        (SELECTOR, ..., "spec.endpointSelector", Reason.MISSING),
        (SELECTOR, "x", "spec.endpointSelector", Reason.WRONG_TYPE),
        (f"{SELECTOR}/matchLabel", {}, "spec.endpointSelector.matchLabel", Reason.UNKNOWN_FIELD),
        (f"{SELECTOR}/matchLabels", {"a": 1}, "spec.endpointSelector.matchLabels[a]", Reason.WRONG_TYPE),
        (f"{SELECTOR}/matchLabels", {"a": "b c"}, "spec.endpointSelector.matchLabels[a]", Reason.BAD_SELECTOR),
        (f"{SELECTOR}/matchLabels", {"a b": "c"}, "spec.endpointSelector.matchLabels[a b]", Reason.BAD_SELECTOR),
        (f"{SELECTOR}/matchLabels", {":a b": ""}, "spec.endpointSelector.matchLabels[:a b]", Reason.BAD_SELECTOR),
        (f"{SELECTOR}/matchLabels", {"a=b": ""}, "spec.endpointSelector.matchLabels[a=b]", Reason.BAD_SELECTOR),
        (
            f"{SELECTOR}/matchLabels",
            {"cidr:10.0.0.0/8": ""},
            "spec.endpointSelector.matchLabels[cidr:10.0.0.0/8]",
            Reason.NOT_SUPPORTED,
        ),
        (f"{PORT}/port", 80, f"{AT_PORT}.port", Reason.WRONG_TYPE),
        (f"{PORT}/port", ..., f"{AT_PORT}.port", Reason.MISSING),
        (f"{PORT}/port", "010", f"{AT_PORT}.port", Reason.BAD_PORT),
        (f"{PORT}/port", "65536", f"{AT_PORT}.port", Reason.BAD_PORT),
        (f"{PORT}/port", "8_0", f"{AT_PORT}.port", Reason.BAD_PORT),
        (f"{PORT}/port", "http-", f"{AT_PORT}.port", Reason.BAD_PORT),
        (f"{PORT}/port", "0x5_0", f"{AT_PORT}.port", Reason.BAD_PORT),
        (f"{PORT}/port", "0", f"{AT_PORT}.port", Reason.NOT_ALLOWED),
        (f"{PORT}/endPort", 79, f"{AT_PORT}.endPort", Reason.BAD_PORT),
        (f"{PORT}/endPort", 65536, f"{AT_PORT}.endPort", Reason.BAD_PORT),
        (f"{PORT}/endPort", "90", f"{AT_PORT}.endPort", Reason.WRONG_TYPE),
        (f"{PORT}/endport", 90, f"{AT_PORT}.endport", Reason.UNKNOWN_FIELD),
        (f"{PORT}/protocol", ..., f"{AT_PORT}.protocol", Reason.NOT_ALLOWED),
        (f"{PORT}/protocol", "UDP", f"{AT_PORT}.protocol", Reason.NOT_ALLOWED),
        (f"{PORT}/protocol", "tcp", f"{AT_PORT}.protocol", Reason.INVALID),
        (f"{PORT}/protocol", "ICMP", f"{AT_PORT}.protocol", Reason.INVALID),
        (f"{PORT}/protocol", "SCTP", f"{AT_PORT}.protocol", Reason.NOT_ALLOWED),
        (PORTS, [{"port": str(i), "protocol": "TCP"} for i in range(1, 42)], f"{IN}.toPorts[0].ports", Reason.TOO_MANY),
        (PORTS, [], f"{IN}.toPorts[0].ports", Reason.MISSING),
        (f"{HTTP}/0/path", "/[", f"{AT_HTTP}.path", Reason.BAD_REGEX),
        (f"{HTTP}/0/method", "(", f"{AT_HTTP}.method", Reason.BAD_REGEX),
        (f"{HTTP}/0/host", "*", f"{AT_HTTP}.host", Reason.BAD_REGEX),
        (f"{HTTP}/0/path", 1, f"{AT_HTTP}.path", Reason.WRONG_TYPE),
        (f"{HTTP}/0/headers", ["X-Key:"], f"{AT_HTTP}.headers[0]", Reason.BAD_HEADER),
        (f"{HTTP}/0/headers", ["X-Key:true"], f"{AT_HTTP}.headers[0]", Reason.BAD_HEADER),
        (f"{HTTP}/0/headers", ["X-Key:  v"], f"{AT_HTTP}.headers[0]", Reason.BAD_HEADER),
        (f"{HTTP}/0/headers", [1], f"{AT_HTTP}.headers[0]", Reason.WRONG_TYPE),
        (f"{HTTP}/0/headers", "X", f"{AT_HTTP}.headers", Reason.WRONG_TYPE),
        (f"{HTTP}/0/headerMatches", [{}], f"{AT_HTTP}.headerMatches[0].name", Reason.MISSING),
        (f"{HTTP}/0/query", "x", f"{AT_HTTP}.query", Reason.UNKNOWN_FIELD),
        ("kind", "CiliumClusterwideNetworkPolicies", "kind", Reason.UNKNOWN_KIND),
        ("kind", "CiliumNetworkPolicies", "kind", Reason.UNKNOWN_KIND),
        ("kind", ["x"], "kind", Reason.MISSING),
        ("apiVersion", "cilium.io/v3", "apiVersion", Reason.UNKNOWN_KIND),
    ],
)
def test_what_is_refused(path: str, value: Any, where: str, reason: str) -> None:
    assert refusals(changed(path, value)) == {(where, reason)}


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ({"key": "a", "operator": "In"}, "values"),
        ({"key": "a", "operator": "Exists", "values": ["b"]}, "values"),
        ({"key": "a", "operator": "in", "values": ["b"]}, "operator"),
        ({"key": "", "operator": "Exists"}, "key"),
        ({"key": "a", "operator": "In", "values": ["b c"]}, "values[0]"),
    ],
)
def test_a_bad_expression_is_refused(expression: dict[str, Any], field: str) -> None:
    raw = changed(SELECTOR, {"matchExpressions": [expression]})
    assert refusals(raw) == {(f"spec.endpointSelector.matchExpressions[0].{field}", Reason.BAD_SELECTOR)}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/ingressDeny", None),
        (f"{CLAUSE}/fromEndpoints", None),
        (f"{CLAUSE}/toPorts/0/rules/http", []),
        (f"{CLAUSE}/toPorts/0/rules", {}),
        (f"{CLAUSE}/toPorts", [{}]),
        (f"{PORT}/endPort", 0),
        (f"{PORT}/endPort", 80),
        ("spec/egress", []),
        ("specs", [{"endpointSelector": {}, "egress": [{}]}]),
        (f"{SELECTOR}/matchLabels", {"reserved:host": ""}),
        (f"{SELECTOR}/matchLabels", {":a": ""}),
        ("spec/ingressDeny", []),
        ("spec/log", {"value": "x"}),
        ("spec/enableDefaultDeny", {"ingress": False}),
        (f"{CLAUSE}/icmps", []),
        (f"{CLAUSE}/fromRequires", []),
        (f"{CLAUSE}/authentication", {"mode": "disabled"}),
        (f"{HTTP}/0/headerMatches", []),
        (f"{PORT}/port", "http"),
    ],
)
def test_what_is_accepted(path: str, value: Any) -> None:
    parse_object(changed(path, value))


def test_all_errors_are_said_at_once() -> None:
    raw = changed(f"{HTTP}/0/path", "[")
    raw["spec"]["egressDeny"] = [{"toFQDNs": [{"matchName": "example.org"}]}]
    raw["spec"]["ingress"].append({"fromEntities": ["word"], "toPorts": [to_ports("2-1", protocol="xyz")]})
    assert {path for path, _ in refusals(raw)} == {
        "spec.egressDeny[0].toFQDNs",
        "spec.ingress[0].toPorts[0].rules.http[0].path",
        "spec.ingress[1].fromEntities[0]",
        "spec.ingress[1].toPorts[0].ports[0].endPort",
        "spec.ingress[1].toPorts[0].ports[0].protocol",
    }


def test_a_policy_that_is_wrong_everywhere_is_refused_in_bounds() -> None:
    raw = changed(HTTP, [{"path": "["}] * 10_000)
    with pytest.raises(PolicyErrors) as refused:
        parse_object(raw)
    assert len(refused.value.errors) == 101
    assert "9900 more are not listed" in str(refused.value.errors[-1])


def test_an_error_is_one_line_that_names_place_object_field_and_reason() -> None:
    with pytest.raises(PolicyErrors) as refused:
        parse_object(changed(f"{PORT}/endPort", 79), "rule1.yaml", 3)
    assert str(refused.value.errors[0]) == (
        "rule1.yaml:3: CiliumNetworkPolicy default/rule1: spec.ingress[0].toPorts[0].ports[0].endPort: "
        "invalid port (InvalidPort): 79 is less than port 80: Envoy refuses the whole policy for it"
    )


def test_what_holds_for_a_policy_that_was_never_good() -> None:
    raw = changed(f"{CLAUSE}/fromEntities", ["word"])
    with pytest.raises(PolicyErrors) as refused:
        parse_object(raw)
    fallback = refused.value.fallback
    assert isinstance(fallback, Policy)
    assert [(rule.enforces, rule.ingress, rule.invalid) for rule in fallback.rules] == [
        ((Direction.INGRESS,), (), True)
    ]


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ({"egressDeny": [{"x": 1}]}, [Direction.EGRESS]),
        ({"ingress": {"oops": 1}}, [Direction.INGRESS]),
        ({"ingress": {}}, [Direction.INGRESS]),
        ({"ingres": [{}]}, list(Direction)),
        ({"ingress": [{"x": 1}], "egres": []}, [Direction.INGRESS]),
        ({"nodeSelector": {}}, []),
        ({}, []),
    ],
)
def test_a_refused_policy_denies_in_the_directions_that_it_is_about(spec: Any, directions: list[Direction]) -> None:
    with pytest.raises(PolicyErrors) as refused:
        parse_object(policy("p") | {"spec": {"endpointSelector": {}, **spec}})
    fallback = refused.value.fallback
    found = [d for rule in fallback.rules for d in rule.enforces] if isinstance(fallback, Policy) else []
    assert found == directions


def replica(name: str, kind: str, generate: str = "x-", **labels: str) -> Pod:
    raw = pod("p", "10.0.0.1", **labels)
    owner = {"apiVersion": "v1", "kind": kind, "name": name, "controller": True}
    raw["metadata"] |= {"ownerReferences": [owner]} | ({"generateName": generate} if generate else {})
    found = parse_object(raw)
    assert isinstance(found, Pod)
    return found


def test_a_pod_knows_its_workload() -> None:
    assert replica("web-5d4", "ReplicaSet", pod_template_hash="5d4").workload == Workload("Deployment", "web")
    assert replica("web-5d4", "ReplicaSet").workload == Workload("ReplicaSet", "web-5d4")
    assert replica("tick-28000000", "Job").workload == Workload("CronJob", "tick")
    assert replica("once", "Job").workload == Workload("Job", "once")
    assert replica("agent", "DaemonSet").workload == Workload("DaemonSet", "agent")
    assert replica("db", "StatefulSet", generate="").workload is None


def test_a_pod_is_read_leniently_where_nobody_looks_and_strictly_where_somebody_does() -> None:
    raw = pod("p", ["10.0.0.1", "fd00:0::1"], app="a")
    raw["spec"] = {"nodeName": "n1", "serviceAccountName": "sa", "hostNetwork": True, "containers": [{"what": "ever"}]}
    found = parse_object(raw)
    assert found == Pod("default", "p", {"app": "a"}, ("10.0.0.1", "fd00::1"), True, "n1", "sa", None, "Running")
    bad = copy.deepcopy(raw)
    bad["status"]["podIPs"] = [{"ip": "10.0.0.300"}, 7]
    bad["spec"]["hostNetwork"] = "yes"
    assert refusals(bad) == {
        ("status.podIPs[0].ip", Reason.INVALID),
        ("status.podIPs[1]", Reason.WRONG_TYPE),
        ("spec.hostNetwork", Reason.WRONG_TYPE),
    }


def test_services_and_slices_are_read() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1", "fd96::1"],
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"port": 53, "protocol": "UDP"}],
        },
    }
    found = parse_object(service)
    assert isinstance(found, Service)
    assert found.addresses == ("10.96.0.1", "fd96::1")
    assert [(p.name, p.protocol, p.port, p.target) for p in found.ports] == [
        ("http", Protocol.TCP, 80, "web"),
        ("", Protocol.UDP, 53, ""),
    ]
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": False, "serving": True}}],
        "ports": [{"name": "http", "port": 8080}, {"name": "any"}],
    }
    read = parse_object(piece)
    assert isinstance(read, EndpointSlice)
    assert (read.service, read.ports) == ("web", {("http", Protocol.TCP): 8080})
    assert (read.backends[0].ready, read.backends[0].serving) == (False, True)
    service["spec"]["ports"][0]["port"] = 0
    assert refusals(service) == {("spec.ports[0].port", Reason.BAD_PORT)}


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(_json)
def test_any_raw_object_is_read_or_refused(raw: Any) -> None:
    with pytest.raises(PolicyErrors):
        parse_object(raw)
    identify(raw)


@given(policies(most=2), st.data())
def test_any_change_of_a_policy_is_read_or_refused(world: list[dict[str, Any]], data: st.DataObject) -> None:
    for raw in copy.deepcopy(world):  # strategies share what they draw from
        spots = list(_spots(raw))
        container, key = data.draw(st.sampled_from(spots))
        container[key] = data.draw(_json)
        try:
            parse_object(raw)
        except PolicyErrors as refused:
            lines = [str(error) for error in refused.errors]
            assert lines
            assert not any("\n" in line for line in lines)


def _spots(raw: Any) -> Any:
    keys = list(raw) if isinstance(raw, dict) else range(len(raw)) if isinstance(raw, list) else ()
    for key in keys:
        yield raw, key
        yield from _spots(raw[key])
