"""Kubernetes objects that a node needs to know, as frozen values. Pure data; policies.reading reads raw ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from policies.rules import Policy
from policies.types import Protocol

ENDPOINT_KIND: Final = "CiliumEndpoint"
POLICY_KINDS: Final = ("CiliumClusterwideNetworkPolicy", "CiliumNetworkPolicy", "NetworkPolicy")


class ObjectKey(NamedTuple):
    """What makes an object the same object. `namespace` is "" for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class PodKey(NamedTuple):
    """Namespace and name of a pod (or of anything else that has both)."""

    namespace: str
    name: str


class Workload(NamedTuple):
    """What a pod belongs to, e.g. ("Deployment", "deathstar")."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Namespace", "", self.name)


class Published(NamedTuple):
    """What another node has published of a pod of its own: its agreed identity number (0: none yet), the labels of its
    identity (none, where only the number was published), the address of its node."""

    number: int = 0
    labels: tuple[str, ...] = ()
    node: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """`addresses` are in canonical form, in the order of status.podIPs. With `published`, it is known by a
    CiliumEndpoint only."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    host_network: bool = False
    node_name: str = ""
    service_account: str = "default"
    workload: Workload | None = None
    phase: str = ""
    ports: Mapping[tuple[str, Protocol], int] = field(default_factory=dict)  # named container ports
    has_known_labels: bool = True  # a refused pod's may be unreadable: then nothing is known to be allowed
    published: Published | None = None

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Pod" if self.published is None else ENDPOINT_KIND, self.namespace, self.name)

    @property
    def is_over(self) -> bool:
        """A finished pod keeps its address in its status while another pod may already have it."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class ServicePort:
    """`target` is a number, a name, or "" where the service port itself is meant."""

    name: str
    protocol: Protocol
    port: int
    target: int | str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """`addresses`: cluster addresses in canonical form; none for a headless service."""

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)  # none: its slices are written by hand

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Service", self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a slice. `ready`: takes new connections; `serving`: would while terminating."""

    addresses: tuple[str, ...]
    ready: bool = True
    serving: bool = True


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """`ports`: (name, protocol) -> target port, already a number."""

    namespace: str
    name: str
    service: str = ""
    backends: tuple[Backend, ...] = ()
    ports: Mapping[tuple[str, Protocol], int] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("EndpointSlice", self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class CidrGroup:
    """A CiliumCIDRGroup: prefixes by name. `prefixes` are canonical, sorted, each once."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("CiliumCIDRGroup", "", self.name)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster. `addresses` in canonical form, whatever their type but for host names."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Node", "", self.name)


@dataclass(frozen=True, slots=True)
class Identity:
    """A CiliumIdentity: the number that all nodes have agreed on for a label set. `labels` as identities have them,
    sorted; `created` as written in the object, so that the older of two can be told."""

    number: int
    labels: tuple[str, ...] = ()
    created: str = ""

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("CiliumIdentity", "", str(self.number))


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Values by name, decoded; never written anywhere but into the rules that ask for one."""

    namespace: str
    name: str
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Secret", self.namespace, self.name)


Object = CidrGroup | EndpointSlice | Identity | Namespace | Node | Pod | Policy | Secret | Service


def key_of(obj: Object) -> ObjectKey:
    """The key of any object."""
    if isinstance(obj, Policy):
        return ObjectKey(obj.kind, obj.namespace, obj.name)
    return obj.key
