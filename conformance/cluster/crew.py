"""A galaxy's pods and services as objects for a cluster, and what the cluster made of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from conformance.blueprint import UDP_ECHO_PORT, Blueprint, Host, Pod, Service
from conformance.cluster.claim import RUN_LABEL, Claim
from conformance.objects import pod_object, service_objects

CONTAINER = "ship"
LIFETIME = 2 * 3600  # seconds after which a pod that was forgotten ends by itself
START_FAILURES = 60  # seconds that a server may take to listen

Raw = dict[str, Any]


def crew(blueprint: Blueprint) -> tuple[Pod, ...]:
    """The pods that a cluster is asked for."""
    return tuple(pod for pod in blueprint.local_pods if not pod.resolves)


def services(blueprint: Blueprint) -> tuple[Service, ...]:
    """The services whose backends are such pods."""
    mine = {pod.alias for pod in crew(blueprint)}
    return tuple(
        service
        for service in blueprint.services
        if service.selector and all(isinstance(b, Pod) and b.alias in mine for b in service.backends)
    )


def objects(blueprint: Blueprint, claim: Claim, image: str) -> Iterator[Raw]:
    """What is to be applied once the namespaces are there."""
    for service in services(blueprint):
        yield _service(service, claim)
    for pod in crew(blueprint):
        yield _pod(pod, claim, image)


def _service(service: Service, claim: Claim) -> Raw:
    made, *_ = service_objects(service)
    made["metadata"]["namespace"] = claim.spaces[service.namespace]
    made["metadata"]["labels"] = {**made["metadata"].get("labels", {}), RUN_LABEL: claim.run}
    kept = {name: made["spec"][name] for name in ("type", "selector", "ports")}
    made["spec"] = {**kept, "ipFamilyPolicy": "PreferDualStack"}
    return made


def _pod(pod: Pod, claim: Claim, image: str) -> Raw:
    """One that no controller owns: what the labels say of a template is kept, for policies see labels only."""
    made = pod_object(pod)
    ports = made["spec"]["containers"][0].get("ports")
    labels = {**made["metadata"]["labels"], RUN_LABEL: claim.run}
    made["metadata"] = {"name": pod.name, "namespace": claim.spaces[pod.namespace], "labels": labels}
    del made["status"]
    container: Raw = {
        "name": CONTAINER,
        "image": image,
        "command": _command(pod),
        "securityContext": {  # ports below 1024; pings and SCTP by raw sockets
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "NET_RAW"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    }
    if ports:
        container["ports"] = ports
    if pod.serves:
        tcp = {"tcpSocket": {"port": pod.serves[0]}, "periodSeconds": 1, "failureThreshold": START_FAILURES}
        container["startupProbe"] = tcp
    made["spec"] = {
        "containers": [container],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "activeDeadlineSeconds": LIFETIME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_together(claim)]}},
    }
    return made


def _command(pod: Pod) -> list[str]:
    if not pod.serves:
        return ["sleep", "infinity"]
    ports = [word for port in pod.serves for word in ("--port", str(port))]
    ports += [word for port in (UDP_ECHO_PORT, *pod.echoes) for word in ("--udp", str(port))]
    return ["python", "-m", "conformance.deathstar", "--pod", pod.name, *ports]


def _together(claim: Claim) -> Raw:
    """Of all pods of the run: suites are about the doors of one node."""
    mine = {"matchLabels": {RUN_LABEL: claim.run}}
    return {"topologyKey": "kubernetes.io/hostname", "labelSelector": mine, "namespaceSelector": mine}


def as_made(blueprint: Blueprint, claim: Claim, found: Iterable[Raw]) -> Blueprint:
    """The galaxy with the namespaces and addresses that it has in the cluster ("": none of that family). What the
    cluster was not asked for is as it was."""
    made = {(raw["kind"], raw["metadata"]["namespace"], raw["metadata"]["name"]): raw for raw in found}
    pods: dict[str, Pod] = {}
    for pod in crew(blueprint):
        raw = made["Pod", claim.spaces[pod.namespace], pod.name]
        addresses = [entry["ip"] for entry in raw["status"].get("podIPs") or ()]
        v4, v6 = _by_family(addresses)
        pods[pod.alias] = replace(pod, namespace=raw["metadata"]["namespace"], v4=v4, v6=v6)
    changed: dict[str, Service] = {}
    for service in services(blueprint):
        raw = made["Service", claim.spaces[service.namespace], service.name]
        addresses = raw["spec"].get("clusterIPs") or [raw["spec"]["clusterIP"]]
        backends = tuple(_backend(backend, pods) for backend in service.backends)
        v4, v6 = _by_family(addresses)
        space = raw["metadata"]["namespace"]
        changed[service.name] = replace(service, namespace=space, backends=backends, v4=v4, v6=v6)
    return replace(
        blueprint,
        pods=tuple(pods.get(pod.alias, pod) for pod in blueprint.pods),
        services=tuple(changed.get(service.name, service) for service in blueprint.services),
    )


def _by_family(addresses: Iterable[str]) -> tuple[str, str]:
    known = {":" in address: address for address in addresses}
    return known.get(False, ""), known.get(True, "")


def _backend(backend: Pod | Host, pods: Mapping[str, Pod]) -> Pod | Host:
    return pods[backend.alias] if isinstance(backend, Pod) else backend


def families(blueprint: Blueprint) -> tuple[int, ...]:
    """The families of which every pod and every service has an address."""
    there: list[Pod | Service] = [*crew(blueprint), *services(blueprint)]
    return tuple(family for family in (4, 6) if all(one.address(family) for one in there))
