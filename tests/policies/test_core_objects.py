"""Nodes, secrets, groups of prefixes, names of ports: what the compiler is told of them."""

from __future__ import annotations

import base64
import tracemalloc
from typing import Any

import pytest
import yaml

from policies.errors import PolicyErrors, Reason
from policies.objects import CidrGroup, Node, Pod, Secret, Service
from policies.reading.cidr_group import CIDRS_MAX
from policies.reading.readers import identify, parse_object, read_object
from policies.types import Protocol


def obj(version: str, kind: str, body: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, **yaml.safe_load("{" + body + "}")}


def group(body: str, version: str = "cilium.io/v2") -> dict[str, Any]:
    return obj(version, "CiliumCIDRGroup", body)


@pytest.mark.parametrize("version", ["cilium.io/v2", "cilium.io/v2alpha1"])
def test_a_group_is_its_prefixes_sorted_each_once(version: str) -> None:
    found = parse_object(group("spec: {externalCIDRs: [10.2.0.0/16, 'FD00::/8', 10.1.2.3/8, 10.2.0.0/16]}", version))
    assert found == CidrGroup("x", {}, ("10.0.0.0/8", "10.2.0.0/16", "fd00::/8"))
    assert identify(group("")) == found.key


def test_a_group_has_labels() -> None:
    raw = group("spec: {externalCIDRs: []}") | {"metadata": {"name": "x", "labels": {"a": "b"}}}
    assert parse_object(raw) == CidrGroup("x", {"a": "b"})


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("spec: {externalCIDRs: [10.0.0.1]}", "spec.externalCIDRs[0]"),
        ("spec: {externalCIDRs: [10.0.0.0/8, 256.0.0.0/8]}", "spec.externalCIDRs[1]"),
        ("spec: {externalCIDRs: [010.0.0.0/8]}", "spec.externalCIDRs[0]"),
        ("spec: {externalCIDRs: [1]}", "spec.externalCIDRs[0]"),
        ("spec: {}", "spec.externalCIDRs"),
        ("spec: {externalCIDR: [], externalCIDRs: []}", "spec.externalCIDR"),
    ],
)
def test_a_bad_group_is_refused_at_its_field(body: str, path: str) -> None:
    with pytest.raises(PolicyErrors) as refused:
        parse_object(group(body))
    assert [error.path for error in refused.value.errors] == [path]


def test_a_group_holds_as_many_prefixes_as_the_limit_says() -> None:
    prefixes = [f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}/32" for i in range(CIDRS_MAX)]
    found = parse_object(group("") | {"spec": {"externalCIDRs": prefixes}})
    assert isinstance(found, CidrGroup)
    assert len(found.prefixes) == CIDRS_MAX
    with pytest.raises(PolicyErrors) as refused:
        parse_object(group("") | {"spec": {"externalCIDRs": ["10.0.0.0/8"] * (CIDRS_MAX + 1)}})
    assert [error.reason for error in refused.value.errors] == [Reason.TOO_MANY]


def test_a_node_is_its_labels_and_addresses() -> None:
    addresses = (
        "{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: '2001:DB8::1'},"
        " {type: Hostname, address: x}, {type: ExternalIP, address: 198.51.100.1},"
        " {type: InternalIP, address: 192.0.2.1}"
    )
    raw = obj("v1", "Node", f"status: {{addresses: [{addresses}]}}") | {"metadata": {"name": "x", "labels": {"a": "b"}}}
    assert parse_object(raw) == Node("x", {"a": "b"}, ("192.0.2.1", "2001:db8::1", "198.51.100.1"))
    assert identify(raw) == ("Node", "", "x")


def test_a_secret_is_its_texts() -> None:
    binary = base64.b64encode(b"\xff\xfe").decode()
    text = base64.b64encode("grüß".encode()).decode()
    found = parse_object(obj("v1", "Secret", f"data: {{a: {text}, b: {binary}, c: ''}}, stringData: {{c: plain}}"))
    assert found == Secret("default", "x", {"a": "grüß", "c": "plain"})
    assert "grüß" not in repr(found)


def test_what_is_wrong_with_a_secret_is_said_without_its_value() -> None:
    with pytest.raises(PolicyErrors) as refused:
        parse_object(obj("v1", "Secret", "data: {a: 'p@ssword'}"))
    (error,) = refused.value.errors
    assert (error.path, error.reason) == ("data[a]", Reason.INVALID)
    assert "p@ssword" not in str(error)


def test_ports_of_containers_have_names() -> None:
    containers = (
        "{ports: [{name: web, containerPort: 80}, {containerPort: 81}, {name: DNS, containerPort: 53, protocol: UDP}]},"
        " {ports: [{name: web, containerPort: 8080}]}"
    )
    inits = (
        "{restartPolicy: Always, ports: [{name: mesh, containerPort: 15001}]}, {ports: [{name: no, containerPort: 1}]}"
    )
    found = parse_object(obj("v1", "Pod", f"spec: {{containers: [{containers}], initContainers: [{inits}]}}"))
    assert isinstance(found, Pod)
    assert found.ports == {("web", Protocol.TCP): 80, ("dns", Protocol.UDP): 53, ("mesh", Protocol.TCP): 15001}


def test_a_service_has_labels_and_a_selector() -> None:
    raw = obj("v1", "Service", "spec: {selector: {app: a}, clusterIP: None}")
    raw["metadata"]["labels"] = {"team": "b"}
    found = parse_object(raw)
    assert isinstance(found, Service)
    assert (found.labels, found.selector, found.addresses) == ({"team": "b"}, {"app": "a"}, ())


def test_a_cluster_scoped_object_has_no_namespace() -> None:
    raw = obj("cilium.io/v2", "CiliumClusterwideNetworkPolicy", "spec: {endpointSelector: {}, ingress: [{}]}")
    raw["metadata"]["namespace"] = "d"
    assert identify(raw) == ("CiliumClusterwideNetworkPolicy", "", "x")
    assert {(error.path, error.reason) for error in read_object(raw).errors} == {
        ("metadata.namespace", Reason.NOT_ALLOWED)
    }


def test_reading_a_big_group_takes_memory_in_proportion() -> None:
    raw = group("") | {"spec": {"externalCIDRs": [f"10.0.{i >> 8}.{i & 255}/32" for i in range(10_000)]}}
    tracemalloc.start()
    parse_object(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000 * 400
