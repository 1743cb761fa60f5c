"""What a galaxy consists of, as frozen values: pods, hosts, services, addresses. Pure.

Addresses follow from the order of the pods, so that the same blueprint gives the same manifests in every run; galaxies
do not meet, for each lives in network namespaces of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

POD_NET_V4, POD_NET_V6 = "10.244.0.{}", "fd00:10:244::{:x}"
REMOTE_POD_NET_V4, REMOTE_POD_NET_V6 = "10.244.1.{}", "fd00:10:244:1::{:x}"
SERVICE_NET_V4, SERVICE_NET_V6 = "10.96.0.{}", "fd00:10:96::{:x}"
NODE_V4, NODE_V6 = "172.18.0.2", "fd00:172:18::2"
WORLD_V4, WORLD_V6 = "172.18.0.9", "fd00:172:18::9"

FIRST_POD_HOST = 11
FIRST_SERVICE_HOST = 80
UDP_ECHO_PORT = 7007
MORE_NET, MORE_MAX = "198.51.100.{}", 250  # addresses that nobody has (RFC 5737)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Owner of replicas: pods are named NAME-HASH-xxxxx and point at ReplicaSet NAME-HASH."""

    name: str
    template_hash: str

    @property
    def replica_set(self) -> str:
        return f"{self.name}-{self.template_hash}"


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A container port with a name."""

    name: str
    number: int
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. `alias` is its short name in scenarios, `name` the one of Kubernetes.

    `serves`: its HTTP ports (TCP); one that serves also echoes UDP (at `echoes` and UDP_ECHO_PORT) and SCTP. One that
    `resolves` is a nameserver for the galaxy's names; one that keeps `topics` is a Kafka broker. A `remote` pod lives
    on another node: here it is an address of the world, and an object.
    """

    alias: str
    name: str
    labels: tuple[tuple[str, str], ...]
    v4: str
    v6: str
    namespace: str = "default"
    deployment: Deployment | None = None
    serves: tuple[int, ...] = ()
    echoes: tuple[int, ...] = ()
    named: tuple[NamedPort, ...] = ()
    remote: bool = False
    resolves: bool = False
    topics: tuple[str, ...] = ()

    def address(self, family: int) -> str:
        return self.v4 if family == 4 else self.v6

    @property
    def host_device(self) -> str:
        """Name of the host-side veth; at most 15 characters (IFNAMSIZ)."""
        return f"pod-{self.alias}"[:15]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine outside, reached through the node: an address of the world. With `node_labels` it is another node of
    the cluster, and there is a Node object for it."""

    name: str
    v4: str
    v6: str
    node_labels: Mapping[str, str] | None = None

    def address(self, family: int) -> str:
        return self.v4 if family == 4 else self.v6


@dataclass(frozen=True, slots=True)
class DnsName:
    """What nameservers say of a name: the addresses of hosts (and `more` IPv4 ones that nobody has), or another name;
    and whatever else (`records`, each a type and its data). `ttl` in seconds."""

    name: str
    hosts: tuple[str, ...] = ()
    more: int = 0
    cname: str = ""
    records: tuple[str, ...] = ()
    ttl: int = 60


@dataclass(frozen=True, slots=True)
class Service:
    """A dual-stack ClusterIP service. `backends` are the pods that are ready behind it; without a selector they are
    hosts, listed by hand."""

    name: str
    v4: str
    v6: str
    port: int
    target_port: int
    selector: tuple[tuple[str, str], ...]
    backends: tuple[Pod | Host, ...]
    namespace: str = "default"
    labels: tuple[tuple[str, str], ...] = ()
    protocols: tuple[str, ...] = ("TCP",)

    def address(self, family: int) -> str:
        return self.v4 if family == 4 else self.v6

    @property
    def dns_name(self) -> str:
        return f"{self.name}.{self.namespace}.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A whole galaxy. `namespaces` have labels; `objects` are manifests beside those of everything else."""

    name: str
    pods: tuple[Pod, ...]
    services: tuple[Service, ...] = ()
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {"default": {}})
    hosts: tuple[Host, ...] = ()
    objects: tuple[Mapping[str, Any], ...] = ()
    names: tuple[DnsName, ...] = ()

    @property
    def local_pods(self) -> tuple[Pod, ...]:
        """Pods with a veth on the node."""
        return tuple(pod for pod in self.pods if not pod.remote)

    @property
    def outsiders(self) -> tuple[Pod | Host, ...]:
        """Whoever lives in the world's network namespace, beside the world itself."""
        return (*self.hosts, *(pod for pod in self.pods if pod.remote))

    def names_with(self, changed: Mapping[str, DnsName]) -> tuple[DnsName, ...]:
        """The names, some of them said otherwise, and new ones."""
        return (*(name for name in self.names if name.name not in changed), *changed.values())

    def pod(self, alias: str) -> Pod:
        """The pod of that alias. Raises KeyError."""
        for pod in self.pods:
            if pod.alias == alias:
                return pod
        raise KeyError(alias)

    def host(self, name: str) -> Host:
        """The host of that name. Raises KeyError."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def service(self, name: str) -> Service:
        """The service of that name. Raises KeyError."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)


def star_wars() -> Blueprint:
    """The galaxy that every Cilium user knows: two deathstars behind a service, a tiefighter and an xwing."""
    deployment = Deployment("deathstar", "7d9c5bb4f8")
    crew = [
        ("deathstar-1", f"{deployment.replica_set}-4x7kp", _labels("empire", "deathstar", deployment), deployment),
        ("deathstar-2", f"{deployment.replica_set}-qm2zt", _labels("empire", "deathstar", deployment), deployment),
        ("tiefighter", "tiefighter", _labels("empire", "tiefighter"), None),
        ("xwing", "xwing", _labels("alliance", "xwing"), None),
    ]
    pods = tuple(
        Pod(
            alias=alias,
            name=name,
            labels=labels,
            v4=POD_NET_V4.format(host),
            v6=POD_NET_V6.format(host),
            deployment=owner,
            serves=(80, 8080) if owner else (),
        )
        for host, (alias, name, labels, owner) in enumerate(crew, FIRST_POD_HOST)
    )
    deathstar = Service(
        name="deathstar",
        v4=SERVICE_NET_V4.format(FIRST_SERVICE_HOST),
        v6=SERVICE_NET_V6.format(FIRST_SERVICE_HOST),
        port=80,
        target_port=80,
        selector=(("class", "deathstar"), ("org", "empire")),
        backends=tuple(pod for pod in pods if pod.deployment),
    )
    return Blueprint("starwars", pods, (deathstar,))


def _labels(org: str, kind: str, deployment: Deployment | None = None) -> tuple[tuple[str, str], ...]:
    labels = {"app.kubernetes.io/name": kind, "class": kind, "org": org}
    if deployment:
        labels["pod-template-hash"] = deployment.template_hash
    return tuple(sorted(labels.items()))
