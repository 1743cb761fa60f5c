"""The words of the domain as frozen values: identities, directions, protocols, port ranges, labels, rule origins.

Imports the standard library only; everything else in the house may import this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

# Reserved numeric identities (Cilium pkg/identity/reserved.go). 0 is also the wildcard of the policy map.
IDENTITY_ANY = 0
IDENTITY_UNKNOWN = 0
IDENTITY_HOST = 1
IDENTITY_WORLD = 2
IDENTITY_UNMANAGED = 3
IDENTITY_HEALTH = 4
IDENTITY_INIT = 5
IDENTITY_REMOTE_NODE = 6
IDENTITY_KUBE_APISERVER = 7
IDENTITY_INGRESS = 8
IDENTITY_WORLD_IPV4 = 9
IDENTITY_WORLD_IPV6 = 10
IDENTITY_FIRST_ALLOCATED = 256
IDENTITY_LAST_ALLOCATED = 65535
# Of this node only: prefixes that policies speak of, and nodes with labels (facts 2.5).
IDENTITY_FIRST_LOCAL = (1 << 24) + 1
IDENTITY_LAST_LOCAL = (1 << 24) + 0xFFFF
IDENTITY_FIRST_NODE = (2 << 24) + 1
IDENTITY_LAST_NODE = (2 << 24) + 0xFFFF

RESERVED_LABELS: dict[int, tuple[str, ...]] = {
    IDENTITY_UNKNOWN: ("reserved:unknown",),
    IDENTITY_HOST: ("reserved:host",),
    IDENTITY_WORLD: ("reserved:world",),
    IDENTITY_UNMANAGED: ("reserved:unmanaged",),
    IDENTITY_HEALTH: ("reserved:health",),
    IDENTITY_INIT: ("reserved:init",),
    IDENTITY_REMOTE_NODE: ("reserved:remote-node",),
    IDENTITY_KUBE_APISERVER: ("reserved:kube-apiserver", "reserved:remote-node"),
    IDENTITY_INGRESS: ("reserved:ingress",),
    IDENTITY_WORLD_IPV4: ("reserved:world-ipv4",),
    IDENTITY_WORLD_IPV6: ("reserved:world-ipv6",),
}


class Direction(StrEnum):
    """Direction of a connection as the endpoint sees it."""

    INGRESS = "ingress"
    EGRESS = "egress"

    __hash__ = str.__hash__  # Enum's own is Python code, and places of slots are hashed by the thousand


class Protocol(IntEnum):
    """IP protocol numbers; ANY covers every protocol, also those without ports."""

    ANY = 0
    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58
    SCTP = 132

    __hash__ = int.__hash__


PORT_MAX = 65535
ICMP_TYPE_MAX = 255


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports first..last, both included. 0..65535 is every port (and the only range of Protocol.ANY)."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= PORT_MAX:
            raise ValueError(f"port range {self.first}-{self.last} is not within 0..{PORT_MAX} in order")

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


ALL_PORTS = PortRange(0, PORT_MAX)


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Which clause of which object a decision comes from, e.g. CiliumNetworkPolicy default/rule1 spec.ingress[0].

    `kind` is the Kubernetes kind, or "deflector" for implicit rules (then `name` says which, e.g. allow-localhost).
    `path` is the field path inside the object, in the form that error messages use.
    """

    kind: str
    namespace: str
    name: str
    path: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where} {self.path}".rstrip()
