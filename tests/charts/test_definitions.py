"""The definitions that the operator installs: an API server takes them, and they take what Cilium's take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agent.cluster import resources
from agent.cluster.resources import Resource
from agent.crds import manifests
from tests.charts import kubernetes
from tests.charts.chart import ROOT, Object
from tests.charts.kubernetes import NEWEST, OLDEST

GOLDENS = Path(__file__).parent / "goldens/definitions"
FOLDERS = ("examples", "tests/policies/testdata")
# What operators publish, in the form of facts: numbers, names and addresses are made up.
OBJECTS: tuple[Object, ...] = (
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {"name": "40011", "labels": {"io.kubernetes.pod.namespace": "hoth"}},
        "security-labels": {"k8s:class": "xwing", "k8s:io.kubernetes.pod.namespace": "hoth"},
    },
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": {"name": "xwing", "namespace": "hoth"},
        "status": {
            "encryption": {},
            "external-identifiers": {"container-id": "c3po"},
            "id": 3,
            "identity": {"id": 40011, "labels": ["k8s:class=xwing"]},
            "named-ports": [{"name": "torpedo", "port": 80, "protocol": "TCP"}],
            "networking": {"addressing": [{"ipv4": "10.0.0.7", "ipv6": "fd00::7"}], "node": "192.0.2.1"},
            "policy": {"ingress": {"enforcing": True, "state": "enforcing"}, "egress": {"enforcing": False}},
            "state": "ready",
            "visibility-policy-status": "<status disabled>",
        },
    },
    {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumEndpointSlice",
        "metadata": {"name": "ces-r2d2"},
        "namespace": "hoth",
        "endpoints": [
            {
                "name": "xwing",
                "id": 40011,
                "encryption": {"key": 0},
                "networking": {"addressing": [{"ipv4": "10.0.0.7"}], "node": "192.0.2.1"},
            }
        ],
    },
    {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "outer-rim"},
        "spec": {"externalCIDRs": ["198.51.100.0/24"]},
    },
)


def versions() -> dict[tuple[str, str], Object]:
    """Schema of each kind in each version, by apiVersion and kind."""
    return {
        (f"{made['spec']['group']}/{version['name']}", made["spec"]["names"]["kind"]): version
        for made in manifests()
        for version in made["spec"]["versions"]
    }


def schema(version: str, kind: str) -> Object:
    found: Object = versions()[version, kind]["schema"]["openAPIV3Schema"]
    return found


def policies() -> list[Any]:
    """Every object of the group cilium.io in the examples and the tests of the compiler."""
    found = []
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.yaml")):
            for made in yaml.safe_load_all(file.read_text()):
                if isinstance(made, dict) and str(made.get("apiVersion")).startswith("cilium.io/"):
                    found.append(pytest.param(made, id=f"{file.stem}-{made['metadata']['name']}"))
    assert len(found) > 20
    return found


def policy(spec: Object) -> Object:
    metadata = {"name": "rule1", "namespace": "default"}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


def test_goldens(golden: Callable[[Path, str], None]) -> None:
    for made in manifests():
        golden(GOLDENS / f"{made['metadata']['name']}.yaml", _Plain.of(made))


class _Plain(yaml.SafeDumper):
    """Says what is there twice, twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    @classmethod
    def of(cls, made: Object) -> str:
        return yaml.dump(made, Dumper=cls, sort_keys=False, width=120)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_they_are_definitions(version: str) -> None:
    for made in manifests():
        kubernetes.validate(made, version)
        assert made["metadata"]["name"] == f"{made['spec']['names']['plural']}.{made['spec']['group']}"
        assert [version["storage"] for version in made["spec"]["versions"]].count(True) == 1


def test_their_schemas_are_structural() -> None:
    """What API servers ask beyond the types: one at each level, and none of the words that they forbid."""
    for version in versions().values():
        root = version["schema"]["openAPIV3Schema"]
        assert root["type"] == "object"
        for node in _nodes(root):
            assert "type" in node
            assert not {"$ref", "definitions", "patternProperties", "uniqueItems"} & node.keys()
            assert not {"properties", "additionalProperties"} <= node.keys()
            assert node["type"] != "array" or "items" in node


def test_no_field_is_dropped_in_silence() -> None:
    """Wherever fields are named, others are kept: `ingres` has to reach the reader, who refuses it."""
    for version in versions().values():
        root = version["schema"]["openAPIV3Schema"]
        for node in _nodes(root):
            if node["type"] == "object" and "properties" in node:
                assert node["x-kubernetes-preserve-unknown-fields"] is True


def _nodes(node: Object) -> Iterator[Object]:
    yield node
    below = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
    for child in below:
        if isinstance(child, dict):
            yield from _nodes(child)


@pytest.mark.parametrize("made", policies())
def test_policies_are_taken(made: Object) -> None:
    jsonschema.validate(made, schema(made["apiVersion"], made["kind"]))


@pytest.mark.parametrize("made", OBJECTS, ids=lambda made: made["kind"])
def test_what_nodes_publish_is_taken(made: Object) -> None:
    jsonschema.validate(made, schema(made["apiVersion"], made["kind"]))


@pytest.mark.parametrize(
    "spec",
    [
        {"endpointSelector": {"matchLabels": {"class": 1}}},
        {"ingress": {"fromEndpoints": []}},
        {"ingress": [{"toPorts": [{"ports": [{"port": 80}]}]}]},
        {"egress": [{"toFQDNs": ["endor.example"]}]},
        {"egressDeny": [{"toCIDR": "10.0.0.0/8"}]},
        {"ingress": [{"toPorts": [{"rules": {"http": {"method": "GET"}}}]}]},
        "everybody",
    ],
)
def test_wrong_types_are_refused(spec: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(policy(spec), schema("cilium.io/v2", "CiliumNetworkPolicy"))


def test_code_and_definitions_speak_of_the_same_kinds() -> None:
    known = {value for value in vars(resources).values() if isinstance(value, Resource)}
    defined = set()
    for made in manifests():
        spec, names = made["spec"], made["spec"]["names"]
        for version in spec["versions"]:
            namespaced = spec["scope"] == "Namespaced"
            defined.add(Resource(spec["group"], version["name"], names["kind"], names["plural"], namespaced))
    assert defined <= known
    theirs = {resource.kind for resource in known - defined if resource.group in ("cilium.io", "deflector.io")}
    assert theirs <= {"CiliumNode", "DeflectorNode"}


def test_policies_have_a_status_and_show_it() -> None:
    for kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
        version = versions()["cilium.io/v2", kind]
        assert version["subresources"] == {"status": {}}
        assert {"Valid", "Enforced"} <= {column["name"] for column in version["additionalPrinterColumns"]}


def test_endpoints_have_none() -> None:
    """As Cilium's: whoever writes an endpoint writes it whole."""
    assert "subresources" not in versions()["cilium.io/v2", "CiliumEndpoint"]
