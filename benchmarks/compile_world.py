"""A cluster for the compiler to chew on: namespaces, apps, pods, and the policies that people write for them.

Made to be like the real thing, not to be easy: broad selectors beside narrow ones, policies for whole namespaces and
for the whole cluster, ranges and single ports that overlap, prefixes with excepts, requests, denials. The same seed
gives the same cluster.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from policies.objects import Namespace, Pod, PodKey, key_of
from policies.reading.readers import parse_object
from policies.rules import Policy
from policies.types import Protocol
from policies.world import World

NAMESPACES, APPS = 50, 20  # apps per namespace
TIERS = ("front", "middle", "back", "batch")
TEAMS = 10
CLUSTERWIDE_EVERY = 100  # one policy in so many is for the whole cluster
_NS = "k8s:io.kubernetes.pod.namespace"
_NS_LABEL = "io.cilium.k8s.namespace.labels."


@dataclass(frozen=True, slots=True)
class Cluster:
    """A world, and which pods of it are on this node (with the interface index of each)."""

    world: World
    local: dict[PodKey, int]


def cluster(policies: int, local: int, identities: int, seed: int = 7) -> Cluster:
    """`identities` pods, each with labels of its own; `local` of them here, evenly from all namespaces."""
    rng = random.Random(seed)
    namespaces = {f"ns-{n:02}": _namespace(n) for n in range(NAMESPACES)}
    pods = {pod_key(i): pod(i) for i in range(identities)}
    here = {pod_key(_local(i, local)): 10 + i for i in range(local)}
    made = (policy(i, rng) for i in range(policies))
    return Cluster(World(namespaces, pods, policies={key_of(p): p for p in made}), here)


def _namespace(number: int) -> Namespace:
    labels = {"team": f"team-{number % TEAMS}", "env": "dev" if number % 5 == 0 else "prod"}
    return Namespace(f"ns-{number:02}", {**labels, "kubernetes.io/metadata.name": f"ns-{number:02}"})


def _local(i: int, local: int) -> int:
    """The number of a pod in the i-th namespace, another app each round."""
    namespace, turn = i % NAMESPACES, i // NAMESPACES
    return namespace + NAMESPACES * ((turn * 7 + namespace) % APPS)


def pod_key(number: int) -> PodKey:
    app = number // NAMESPACES % APPS
    return PodKey(f"ns-{number % NAMESPACES:02}", f"app-{app:02}-{number // NAMESPACES // APPS:03}")


def pod(number: int) -> Pod:
    """The pod of that number: its app, a tier, a release of its own, and the recommended labels that charts give."""
    namespace, name = pod_key(number)
    app, replica = number // NAMESPACES % APPS, number // NAMESPACES // APPS
    labels = {
        "app": f"app-{app:02}",
        "tier": TIERS[app % len(TIERS)],
        "release": f"r{replica}",
        "app.kubernetes.io/name": f"app-{app:02}",
        "app.kubernetes.io/part-of": f"suite-{app % 5}",
        "app.kubernetes.io/managed-by": "Helm",
    }
    ports = {("http", Protocol.TCP): 8080 if app % 3 else 8000, ("metrics", Protocol.TCP): 9090}
    address = f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}"
    return Pod(namespace, name, labels, (address,), phase="Running", ports=ports)


def policy(number: int, rng: random.Random) -> Policy:
    """The policy of that number: one for its namespace, or now and then for all."""
    namespace = f"ns-{number % NAMESPACES:02}"
    is_clusterwide = number % CLUSTERWIDE_EVERY == CLUSTERWIDE_EVERY - 1
    spec: dict[str, Any] = {"endpointSelector": {} if is_clusterwide else _subject(number // NAMESPACES, rng)}
    writers = _CLUSTERWIDE if is_clusterwide else _NAMESPACED
    for writer in rng.sample(writers, 2):
        for field, clauses in writer(rng).items():
            spec.setdefault(field, []).extend(clauses)
    kind = "CiliumClusterwideNetworkPolicy" if is_clusterwide else "CiliumNetworkPolicy"
    metadata = {"name": f"policy-{number}"} | ({} if is_clusterwide else {"namespace": namespace})
    found = parse_object({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec})
    assert isinstance(found, Policy)
    return found


def edited(before: Policy, number: int, seed: int) -> Policy:
    """The policy of that number, rewritten."""
    after = policy(number, random.Random(seed))
    assert key_of(after) == key_of(before)
    return after


def _subject(turn: int, rng: random.Random) -> dict[str, Any]:
    if turn % 5 < 2:
        return {}
    if turn % 5 < 4:
        return {"matchLabels": {"tier": rng.choice(TIERS)}}
    return {"matchLabels": {"app": _app(rng)}}


def _app(rng: random.Random) -> str:
    return f"app-{rng.randrange(APPS):02}"


def _ports(*ports: str, protocol: str = "TCP") -> list[dict[str, Any]]:
    written = []
    for port in ports:
        first, _, last = port.partition("-")
        written.append({"port": first, "protocol": protocol} | ({"endPort": int(last)} if last else {}))
    return [{"ports": written}]


def _neighbours(rng: random.Random) -> dict[str, Any]:
    return {"ingress": [{"fromEndpoints": [{"matchLabels": {"app": _app(rng)}}], "toPorts": _ports("8080")}]}


def _all_of_the_namespace(rng: random.Random) -> dict[str, Any]:
    return {"ingress": [{"fromEndpoints": [{}]}], "egress": [{"toEndpoints": [{}], "toPorts": _ports("1024-32767")}]}


def _another_namespace(rng: random.Random) -> dict[str, Any]:
    other = {"app": _app(rng), _NS: f"ns-{rng.randrange(NAMESPACES):02}"}
    return {"ingress": [{"fromEndpoints": [{"matchLabels": other}], "toPorts": _ports("80", "8443")}]}


def _a_team(rng: random.Random) -> dict[str, Any]:
    team = {f"{_NS_LABEL}team": f"team-{rng.randrange(TEAMS)}"}
    return {"ingress": [{"fromEndpoints": [{"matchLabels": team}], "toPorts": _ports("9000-9100")}]}


def _tiers_anywhere(rng: random.Random) -> dict[str, Any]:
    tiers = {"key": "tier", "operator": "In", "values": rng.sample(TIERS, 2)}
    anywhere = {"key": _NS, "operator": "Exists"}
    return {"egress": [{"toEndpoints": [{"matchExpressions": [tiers, anywhere]}], "toPorts": _ports("8080", "9090")}]}


def _prefixes(rng: random.Random) -> dict[str, Any]:
    first, second = rng.randrange(8), rng.randrange(16)
    chosen = {"cidr": f"172.{16 + first}.0.0/16", "except": [f"172.{16 + first}.{second}.0/24"]}
    single = {"toCIDR": [f"192.0.2.{rng.randrange(64)}/32"]}
    return {"egress": [{"toCIDRSet": [chosen], "toPorts": _ports("443", "5432")}, single]}


def _entities(rng: random.Random) -> dict[str, Any]:
    probes = {"fromEntities": ["cluster"], "toPorts": _ports("15020")}
    return {"ingress": [probes], "egress": [{"toEntities": ["world"], "toPorts": _ports("443")}]}


def _requests(rng: random.Random) -> dict[str, Any]:
    http = [
        {"method": rng.choice(["GET", "POST"]), "path": f"/api/v1/thing-{rng.randrange(40)}(/.*)?"}
        for _ in range(rng.randint(3, 10))
    ]
    to_ports = [{**_ports("8080")[0], "rules": {"http": http}}]
    return {"ingress": [{"fromEndpoints": [{"matchLabels": {"tier": rng.choice(TIERS)}}], "toPorts": to_ports}]}


def _denials(rng: random.Random) -> dict[str, Any]:
    dev = {"matchExpressions": [{"key": f"{_NS_LABEL}env", "operator": "In", "values": ["dev"]}]}
    return {"ingressDeny": [{"fromEndpoints": [dev], "toPorts": _ports("22", "8443")}]}


def _pings_and_names(rng: random.Random) -> dict[str, Any]:
    ping = {"fromEntities": ["cluster"], "icmps": [{"fields": [{"type": 8}]}]}
    named = {"fromEndpoints": [{"matchLabels": {"app": _app(rng)}}], "toPorts": _ports("metrics")}
    return {"ingress": [ping, named]}


def _dns(rng: random.Random) -> dict[str, Any]:
    dns = {"app": "app-01", _NS: "ns-00"}
    return {"egress": [{"toEndpoints": [{"matchLabels": dns}], "toPorts": _ports("53", protocol="ANY")}]}


def _monitoring(rng: random.Random) -> dict[str, Any]:
    scraper = {"tier": "batch", _NS: f"ns-{rng.randrange(5):02}"}
    return {"ingress": [{"fromEndpoints": [{"matchLabels": scraper}], "toPorts": _ports("9090", "metrics")}]}


def _no_metadata_server(rng: random.Random) -> dict[str, Any]:
    return {"egressDeny": [{"toCIDR": ["169.254.169.254/32"]}]}


def _not_from_dev(rng: random.Random) -> dict[str, Any]:
    dev = {"matchExpressions": [{"key": f"{_NS_LABEL}env", "operator": "NotIn", "values": ["prod"]}]}
    return {"ingressDeny": [{"fromEndpoints": [dev], "toPorts": _ports("5432")}]}


_NAMESPACED = [
    *(_neighbours, _all_of_the_namespace, _another_namespace, _a_team, _tiers_anywhere, _prefixes, _entities),
    *(_requests, _denials, _pings_and_names),
]
_CLUSTERWIDE = [_dns, _monitoring, _no_metadata_server, _not_from_dev, _entities]
