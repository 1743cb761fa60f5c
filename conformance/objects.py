"""Blueprints and policies as Kubernetes objects: what the API server would show of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from conformance.blueprint import NODE_V4, NODE_V6, Blueprint, Host, Pod, Service

POLICY_VERSIONS = {
    "CiliumNetworkPolicy": "cilium.io/v2",
    "CiliumClusterwideNetworkPolicy": "cilium.io/v2",
    "CiliumCIDRGroup": "cilium.io/v2",
    "NetworkPolicy": "networking.k8s.io/v1",
}
CLUSTERWIDE = ("CiliumClusterwideNetworkPolicy", "CiliumCIDRGroup")
OTHER_NODE = "other-node"

Raw = dict[str, Any]


def policy_object(kind: str, name: str, namespace: str, body: Mapping[str, Any]) -> Raw:
    """A policy, or a CIDR group, around `spec` or `specs`; a clusterwide kind has no namespace."""
    metadata = {"name": name} if kind in CLUSTERWIDE else {"name": name, "namespace": namespace}
    return {"apiVersion": POLICY_VERSIONS[kind], "kind": kind, "metadata": metadata, **body}


def namespace_object(name: str, labels: Mapping[str, str]) -> Raw:
    labels = {"kubernetes.io/metadata.name": name, **labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def node_objects(blueprint: Blueprint) -> Iterator[Raw]:
    """The other nodes; and this one, if there are others."""
    others = [host for host in blueprint.hosts if host.node_labels is not None]
    if others:
        yield _node(blueprint.name, {}, (NODE_V4, NODE_V6))
    for host in others:
        yield _node(host.name, host.node_labels or {}, (host.v4, host.v6))


def _node(name: str, labels: Mapping[str, str], addresses: tuple[str, ...]) -> Raw:
    labels = {"kubernetes.io/hostname": name, **labels}
    known = [{"type": "InternalIP", "address": address} for address in addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"addresses": [*known, {"type": "Hostname", "address": name}]},
    }


def pod_object(pod: Pod) -> Raw:
    """The Pod as the API server shows it once it runs; a replica names its ReplicaSet."""
    metadata: Raw = {"name": pod.name, "namespace": pod.namespace}
    if pod.deployment:
        metadata["generateName"] = f"{pod.deployment.replica_set}-"
    metadata["labels"] = dict(pod.labels)
    if pod.deployment:
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": pod.deployment.replica_set, "controller": True}
        metadata["ownerReferences"] = [owner]
    container: Raw = {"name": "ship", "image": "starwars"}
    ports = _container_ports(pod)
    if ports:
        container["ports"] = ports
    status = {
        "phase": "Running",
        "podIP": pod.v4,
        "podIPs": [{"ip": pod.v4}, {"ip": pod.v6}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    spec: Raw = {"containers": [container]}
    if pod.remote:
        spec["nodeName"] = OTHER_NODE
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def _container_ports(pod: Pod) -> list[Raw]:
    named = {(port.number, port.protocol): port.name for port in pod.named}
    ports = [{"containerPort": port, "protocol": "TCP"} for port in pod.serves if (port, "TCP") not in named]
    return ports + [
        {"name": name, "containerPort": number, "protocol": protocol} for (number, protocol), name in named.items()
    ]


def service_objects(service: Service) -> Iterator[Raw]:
    """The Service and one EndpointSlice per address family."""
    metadata: Raw = {"name": service.name, "namespace": service.namespace}
    if service.labels:
        metadata["labels"] = dict(service.labels)
    ports = [
        {"name": name, "port": service.port, "targetPort": service.target_port, "protocol": transport}
        for name, transport in _port_names(service)
    ]
    spec: Raw = {
        "type": "ClusterIP",
        "clusterIP": service.v4,
        "clusterIPs": [service.v4, service.v6],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
        "selector": dict(service.selector),
        "ports": ports,
    }
    if not service.selector:
        del spec["selector"]
    yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    for family in (4, 6):
        yield _endpoint_slice(service, family)


def _endpoint_slice(service: Service, family: int) -> Raw:
    metadata = {
        "name": f"{service.name}-ipv{family}",
        "namespace": service.namespace,
        "labels": {"kubernetes.io/service-name": service.name},
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": f"IPv{family}",
        "endpoints": [_endpoint(backend, family) for backend in service.backends],
        "ports": [
            {"name": name, "port": service.target_port, "protocol": transport}
            for name, transport in _port_names(service)
        ],
    }


def _port_names(service: Service) -> list[tuple[str, str]]:
    """Of each protocol: ports of a service have names, and no two the same."""
    if service.protocols == ("TCP",):
        return [("http", "TCP")]
    return [(f"port-{transport.lower()}", transport) for transport in service.protocols]


def _endpoint(backend: Pod | Host, family: int) -> Raw:
    endpoint: Raw = {
        "addresses": [backend.address(family)],
        "conditions": {"ready": True, "serving": True, "terminating": False},
    }
    if isinstance(backend, Pod):
        endpoint["targetRef"] = {"kind": "Pod", "name": backend.name, "namespace": backend.namespace}
    return endpoint
