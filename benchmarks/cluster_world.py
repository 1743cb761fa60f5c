"""A cluster that is not there: 500 nodes, 10,000 pods, 1,000 policies, as an API server would tell of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.cluster import resources
from agent.cluster.published import identity_body
from agent.cluster.resources import Resource
from policies.compiling.agreement import candidates
from policies.labels import identity_labels

NODES, PODS, POLICIES, NAMESPACES, APPS, SERVICES = 500, 10_000, 1_000, 50, 500, 500
OWN_NODE = "node"
OWN_PODS = 30  # of PODS; more may come
Raw = dict[str, Any]


def everything() -> Iterator[tuple[Resource, Raw]]:
    """All objects but the pods that come later."""
    for number in range(NAMESPACES):
        yield resources.NAMESPACES, {"metadata": {"name": _space(number), "labels": {"team": f"team-{number % 7}"}}}
    for number in range(NODES):
        name = OWN_NODE if number == 0 else f"node-{number}"
        address = {"type": "InternalIP", "address": _node_address(number)}
        yield resources.NODES, {"metadata": {"name": name}, "status": {"addresses": [address]}}
    for number in range(SERVICES):
        yield from _service(number)
    for number in range(POLICIES):
        yield resources.CILIUM_POLICIES, _policy(number)
    for app in range(APPS):
        labels = _labels(app)
        yield resources.CILIUM_IDENTITIES, identity_body(next(candidates(labels)), labels)
    for number in range(PODS):
        yield own_pod(number) if number < OWN_PODS else other_pod(number)


def own_pod(number: int, app: int | None = None) -> tuple[Resource, Raw]:
    """A pod of the node that is measured, of that app or of one of its own."""
    app = number % APPS if app is None else app
    name, address = f"app-{app}-own-{number:05}", own_address(number)
    noise = [{"name": f"VAR_{i}", "value": "some value " * 4} for i in range(12)]
    container = {"name": "app", "image": "registry.example/app:1", "env": noise, "ports": [_port(app)]}
    body = {
        "metadata": {"name": name, "namespace": _space(app % NAMESPACES), "labels": {"app": f"app-{app}"}},
        "spec": {"nodeName": OWN_NODE, "containers": [container], "serviceAccountName": "default"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }
    return resources.PODS, body


def other_pod(number: int) -> tuple[Resource, Raw]:
    """A pod of another node, as that publishes it."""
    app, node = number % APPS, 1 + number % (NODES - 1)
    labels = _labels(app)
    status = {
        "id": number,
        "state": "ready",
        "identity": {"id": next(candidates(labels)), "labels": list(labels)},
        "networking": {"addressing": [{"ipv4": _pod_address(number)}], "node": _node_address(node)},
        "policy": {"ingress": {"enforcing": True}, "egress": {"enforcing": False}},
        "named-ports": [{"name": "http", "port": 8000 + app % 10, "protocol": "TCP"}],
    }
    name = f"app-{app}-{number:05}"
    return resources.CILIUM_ENDPOINTS, {
        "metadata": {"name": name, "namespace": _space(app % NAMESPACES)},
        "status": status,
    }


def own_address(number: int) -> str:
    """Of a pod of the node that is measured."""
    return f"10.200.{number >> 8}.{number & 255}"


def _service(number: int) -> Iterator[tuple[Resource, Raw]]:
    app, space = number % APPS, _space(number % APPS % NAMESPACES)
    port = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}
    spec = {"clusterIP": f"10.96.{number >> 8}.{number & 255}", "ports": [port], "selector": {"app": f"app-{app}"}}
    yield resources.SERVICES, {"metadata": {"name": f"app-{app}", "namespace": space}, "spec": spec}
    pods = [pod for pod in range(OWN_PODS, PODS) if pod % APPS == app]
    ready = {"ready": True, "serving": True}
    backends = [{"addresses": [_pod_address(pod)], "conditions": ready} for pod in pods]
    metadata = {"name": f"app-{app}-x", "namespace": space, "labels": {"kubernetes.io/service-name": f"app-{app}"}}
    ports = [{"name": "http", "protocol": "TCP", "port": 8000 + app % 10}]
    body = {"metadata": metadata, "addressType": "IPv4", "endpoints": backends, "ports": ports}
    yield resources.ENDPOINT_SLICES, body


def _policy(number: int) -> Raw:
    app = number % APPS
    peers = [{"matchLabels": {"app": f"app-{(app + step) % APPS}"}} for step in (NAMESPACES, 2 * NAMESPACES)]
    ports: Raw = {"ports": [{"port": str(8000 + app % 10), "protocol": "TCP"}]}
    if number < APPS:
        ports["rules"] = {"http": [{"method": "GET", "path": f"/v{i}/app-{app}/.*"} for i in range(3)]}
    spec = {
        "endpointSelector": {"matchLabels": {"app": f"app-{app}"}},
        "ingress": [{"fromEndpoints": peers, "toPorts": [ports]}],
    }
    return {"metadata": {"name": f"policy-{number}", "namespace": _space(app % NAMESPACES)}, "spec": spec}


def _labels(app: int) -> tuple[str, ...]:
    number = app % NAMESPACES
    team = {"team": f"team-{number % 7}"}
    return identity_labels({"app": f"app-{app}"}, namespace=_space(number), namespace_labels=team)


def _port(app: int) -> Raw:
    return {"name": "http", "containerPort": 8000 + app % 10, "protocol": "TCP"}


def _space(number: int) -> str:
    return f"space-{number}"


def _pod_address(number: int) -> str:
    return f"10.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _node_address(number: int) -> str:
    return f"172.20.{number >> 8}.{number & 255}"
