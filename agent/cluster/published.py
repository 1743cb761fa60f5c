"""What a node writes to the API server about its own pods: CiliumIdentity and CiliumEndpoint objects. Pure.

The fields are Cilium's, so that `kubectl get ciliumendpoints` and whoever else reads them need to know nothing new.
docs/cluster.md has the protocol that all nodes and the operator follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.compiling.identity import Labels
from policies.ir import DirectionPolicy, NodePolicy
from policies.labels import K8S, NAMESPACE_LABELS_PREFIX, parse_label
from policies.objects import Pod, PodKey
from policies.types import IDENTITY_FIRST_ALLOCATED, IDENTITY_LAST_ALLOCATED
from policies.world import World

_KEY: Final = re.compile(r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should be at the server. `identities`: labels by number, of this node's pods; `endpoints`: bodies; `over`:
    pods that have finished, whose endpoint nobody else takes away."""

    identities: Mapping[int, Labels]
    endpoints: Mapping[PodKey, Mapping[str, Any]]
    over: frozenset[PodKey] = frozenset()


def wanted(
    world: World,
    node: NodePolicy,
    node_name: str,
    labels: Callable[[int], Labels],
    uids: Mapping[PodKey, str],
) -> Wanted:
    """What this policy makes of the pods of this node. `uids`: of those that it has."""
    policies = {policy.group: policy for policy in node.policies}
    own = world.nodes.get(node_name)
    address = own.addresses[0] if own is not None and own.addresses else ""
    identities: dict[int, Labels] = {}
    endpoints: dict[PodKey, dict[str, Any]] = {}
    for endpoint in node.endpoints:
        key = PodKey(endpoint.namespace, endpoint.name)
        pod, policy = world.pods.get(key), policies[endpoint.group]
        if pod is None or not (pod_uid := uids.get(key)):
            continue
        if IDENTITY_FIRST_ALLOCATED <= endpoint.group <= IDENTITY_LAST_ALLOCATED:
            identities[endpoint.group] = labels(endpoint.group)
        status: dict[str, Any] = {
            "id": endpoint.id,
            "state": "ready" if endpoint.group in identities else "waiting-for-identity",
            "identity": {"id": endpoint.group, "labels": list(labels(endpoint.group))},
            "networking": {"addressing": list(_addressing(pod)), "node": address},
            "policy": {"ingress": _direction(policy.ingress), "egress": _direction(policy.egress)},
        }
        if pod.ports:
            ports = sorted(pod.ports.items())
            status["named-ports"] = [{"name": n, "port": port, "protocol": p.name} for (n, p), port in ports]
        endpoints[key] = {"metadata": _metadata(key, pod_uid), "status": status}
    return Wanted(identities, endpoints, frozenset(_over(world, uids)))


def _over(world: World, own: Iterable[PodKey]) -> Iterator[PodKey]:
    return (key for key in own if (pod := world.pods.get(key)) is not None and pod.is_over)


def _metadata(key: PodKey, uid: str) -> dict[str, Any]:
    """It goes with its pod: the owner takes it away, whatever becomes of this node."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": key.name, "uid": uid}
    return {"namespace": key.namespace, "name": key.name, "ownerReferences": [owner]}


def _addressing(pod: Pod) -> Iterator[dict[str, str]]:
    """Pairs of an IPv4 and an IPv6 address, as Cilium has them."""
    families = [[a for a in pod.addresses if ":" not in a], [a for a in pod.addresses if ":" in a]]
    for i in range(max(map(len, families), default=0)):
        names = zip(("ipv4", "ipv6"), families, strict=True)
        yield {name: addresses[i] for name, addresses in names if i < len(addresses)}


def _direction(policy: DirectionPolicy) -> dict[str, Any]:
    return {"enforcing": policy.enforced, "state": "enforcing" if policy.enforced else "non-enforcing"}


def identity_body(number: int, labels: Labels) -> dict[str, Any]:
    """The CiliumIdentity of that number. Labels of the object are for people's selectors; what counts is the other."""
    parsed = [parse_label(label) for label in labels]
    shown = {
        label.key: label.value
        for label in parsed
        if label.source == K8S
        and not label.key.startswith(NAMESPACE_LABELS_PREFIX)
        and _KEY.fullmatch(label.key)
        and _VALUE.fullmatch(label.value)
    }
    security = {f"{label.source}:{label.key}": label.value for label in parsed}
    return {"metadata": {"name": str(number), "labels": shown}, "security-labels": security}
