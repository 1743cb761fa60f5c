"""Who lives at which address, and what stands behind a service address: the tables of the IR. Pure.

An address is of a pod, of this node (host), of another node (a host-network pod elsewhere), or of the world.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from policies.errors import PolicyError, Reason, in_order
from policies.ir import Address, ServiceAddress
from policies.objects import Backend, EndpointSlice, Pod, PodKey, Service, ServicePort
from policies.types import (
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    IDENTITY_UNKNOWN,
    IDENTITY_UNMANAGED,
    IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6,
)
from policies.world import World

_WORLD: Final = (Address("0.0.0.0/0", IDENTITY_WORLD_IPV4), Address("::/0", IDENTITY_WORLD_IPV6))


class AddressBook:
    """Address (canonical text) -> identity, without the world. Two pods on one address: nobody's, and an error."""

    def __init__(self, host_addresses: Iterable[str]) -> None:
        self.errors: list[PolicyError] = []
        self._owners: dict[str, PodKey] = {}
        self._host = {str(ipaddress.ip_address(address.partition("%")[0])) for address in host_addresses}
        self._identities = dict.fromkeys(self._host, IDENTITY_HOST)

    def add_pod(self, key: PodKey, pod: Pod, identity: int) -> None:
        """The addresses of a pod that is not over."""
        for address in pod.addresses:
            self._add(address, key, identity)

    def add_host_pod(self, pod: Pod, is_here: bool) -> None:
        """A host-network pod is its node: this one, or another."""
        for address in pod.addresses:
            self._identities.setdefault(address, IDENTITY_HOST if is_here else IDENTITY_REMOTE_NODE)

    def identity(self, address: str) -> int:
        """Who lives there; the world, where nobody is known to."""
        world = IDENTITY_WORLD_IPV6 if ":" in address else IDENTITY_WORLD_IPV4
        return self._identities.get(address, world)

    def table(self) -> tuple[Address, ...]:
        """All prefixes, sorted."""
        own = (Address(f"{a}/{128 if ':' in a else 32}", identity) for a, identity in self._identities.items())
        return tuple(sorted([*own, *_WORLD], key=lambda entry: entry.prefix))

    def _add(self, address: str, key: PodKey, identity: int) -> None:
        if address in self._host:
            self._conflict(address, key, "this node")
            return
        other = self._owners.setdefault(address, key)
        if other != key:
            self._conflict(address, key, f"Pod {other.namespace}/{other.name}")
            if self._identities[address] != identity:
                identity = IDENTITY_UNMANAGED  # undecidable: no policy selects it
        self._identities[address] = identity

    def _conflict(self, address: str, key: PodKey, other: str) -> None:
        message = f"{address} is also the address of {other}"
        error = PolicyError("Pod", key.namespace, key.name, "status.podIPs", Reason.ADDRESS_CONFLICT, message)
        self.errors = list(in_order([*self.errors, error]))


def service_table(world: World, book: AddressBook) -> tuple[ServiceAddress, ...]:
    """Every ClusterIP and port with the identity and port that its backends have in common, sorted."""
    slices: dict[PodKey, list[EndpointSlice]] = {}
    for piece in world.slices.values():
        slices.setdefault(PodKey(piece.namespace, piece.service), []).append(piece)
    return tuple(
        sorted(
            _frontend(address, port, slices.get(key, ()), book)
            for key, service in world.services.items()
            for address, port in _frontends(service)
        )
    )


def _frontends(service: Service) -> Iterator[tuple[str, ServicePort]]:
    return ((address, port) for address in service.addresses for port in service.ports)


def _frontend(address: str, port: ServicePort, slices: Iterable[EndpointSlice], book: AddressBook) -> ServiceAddress:
    found = {
        (book.identity(backend), target)
        for backend, target in service_backends(slices, port)
        if (":" in backend) == (":" in address)
    }
    identity, target = found.pop() if len(found) == 1 else (IDENTITY_UNKNOWN, 0)
    return ServiceAddress(address, port.port, port.protocol, identity, target)


def service_backends(slices: Iterable[EndpointSlice], port: ServicePort) -> list[tuple[str, int]]:
    """Addresses and target ports that new connections go to: ready ones, else those that still serve (kube-proxy)."""
    candidates: list[tuple[Backend, int]] = [
        (backend, piece.ports[port.name, port.protocol])
        for piece in slices
        if (port.name, port.protocol) in piece.ports
        for backend in piece.backends
    ]
    usable = [pair for pair in candidates if pair[0].ready] or [pair for pair in candidates if pair[0].serving]
    return [(address, target) for backend, target in usable for address in backend.addresses]
