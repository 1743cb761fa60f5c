"""The folder of Kubernetes manifests that a node is pointed at: what the API server would tell it.

Touches that folder only. Files appear, change and go as a whole (written aside, then renamed).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conformance.blueprint import Blueprint, Pod, Service

POLICY_PREFIX = "policy-"
API_VERSION = "cilium.io/v2"


@dataclass(frozen=True, slots=True)
class ManifestFolder:
    """A folder whose files are written and removed atomically."""

    root: Path

    def populate(self, blueprint: Blueprint) -> None:
        """Write everything but policies."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.write("namespaces.yaml", to_yaml([_namespace(name) for name in blueprint.namespaces]))
        self.write("pods.yaml", to_yaml([pod_object(pod) for pod in blueprint.pods]))
        self.write("services.yaml", to_yaml([o for service in blueprint.services for o in service_objects(service)]))

    def write(self, name: str, text: str) -> None:
        """Make or replace one file. The new content is seen whole or not at all."""
        aside = self.root / f".{name}.new"
        aside.write_text(text)
        os.replace(aside, self.root / name)

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def digests(self) -> dict[str, str]:
        """sha256 (hex) of each file, by name."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.root.iterdir())
            if not path.name.startswith(".")
        }

    def policies(self) -> list[str]:
        """Names of the policy files."""
        return sorted(name for name in self.digests() if name.startswith(POLICY_PREFIX))


def policy_file(name: str) -> str:
    """The file that holds the policy of that name."""
    return f"{POLICY_PREFIX}{name}.yaml"


def policy_text(name: str, body: dict[str, Any]) -> str:
    """A CiliumNetworkPolicy in namespace default around `spec` or `specs`."""
    head = {"apiVersion": API_VERSION, "kind": "CiliumNetworkPolicy"}
    return to_yaml([{**head, "metadata": {"name": name, "namespace": "default"}, **body}])


def to_yaml(objects: list[dict[str, Any]]) -> str:
    """YAML documents, keys in the order given, no aliases."""
    return "---\n".join(yaml.dump(o, Dumper=_Plain, sort_keys=False, default_flow_style=False) for o in objects)


class _Plain(yaml.SafeDumper):
    """Kubernetes tools print no anchors, and people do not like them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _namespace(name: str) -> dict[str, Any]:
    labels = {"kubernetes.io/metadata.name": name}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod_object(pod: Pod) -> dict[str, Any]:
    """The Pod as the API server shows it once it runs; a replica names its ReplicaSet."""
    metadata: dict[str, Any] = {"name": pod.name, "namespace": pod.namespace}
    if pod.deployment:
        metadata["generateName"] = f"{pod.deployment.replica_set}-"
    metadata["labels"] = dict(pod.labels)
    if pod.deployment:
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": pod.deployment.replica_set, "controller": True}
        metadata["ownerReferences"] = [owner]
    container: dict[str, Any] = {"name": "ship", "image": "starwars"}
    if pod.serves:
        container["ports"] = [{"containerPort": port, "protocol": "TCP"} for port in pod.serves]
    status = {
        "phase": "Running",
        "podIP": pod.v4,
        "podIPs": [{"ip": pod.v4}, {"ip": pod.v6}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container]},
        "status": status,
    }


def service_objects(service: Service) -> Iterator[dict[str, Any]]:
    """The Service and one EndpointSlice per address family."""
    metadata = {"name": service.name, "namespace": service.namespace}
    port = {"name": "http", "port": service.port, "targetPort": service.target_port, "protocol": "TCP"}
    spec = {
        "type": "ClusterIP",
        "clusterIP": service.v4,
        "clusterIPs": [service.v4, service.v6],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
        "selector": dict(service.selector),
        "ports": [port],
    }
    yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    for family in (4, 6):
        yield _endpoint_slice(service, family)


def _endpoint_slice(service: Service, family: int) -> dict[str, Any]:
    metadata = {
        "name": f"{service.name}-ipv{family}",
        "namespace": service.namespace,
        "labels": {"kubernetes.io/service-name": service.name},
    }
    endpoints = [
        {
            "addresses": [pod.address(family)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.namespace},
        }
        for pod in service.backends
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": f"IPv{family}",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": service.target_port, "protocol": "TCP"}],
    }
