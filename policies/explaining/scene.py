"""One node's policy and who is who in it: the ends of a connection, by whatever name a person gives them. Pure.

An end is `NAMESPACE/POD`, an IP address, an entity (`world`, `host` ...) or, as a destination, a service: by its
ClusterIP, as `NAMESPACE/NAME`, or by its DNS name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from policies.compiling.addresses import service_backends
from policies.ir import Endpoint, EndpointPolicy, NodePolicy
from policies.objects import Pod, PodKey, Service
from policies.types import (
    IDENTITY_ANY,
    IDENTITY_HEALTH,
    IDENTITY_HOST,
    IDENTITY_INGRESS,
    IDENTITY_INIT,
    IDENTITY_KUBE_APISERVER,
    IDENTITY_REMOTE_NODE,
    IDENTITY_UNMANAGED,
    IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6,
    Protocol,
)
from policies.world import World

ENTITIES: Final = {
    "health": IDENTITY_HEALTH,
    "host": IDENTITY_HOST,
    "ingress": IDENTITY_INGRESS,
    "init": IDENTITY_INIT,
    "kube-apiserver": IDENTITY_KUBE_APISERVER,
    "remote-node": IDENTITY_REMOTE_NODE,
    "unmanaged": IDENTITY_UNMANAGED,
    "world": IDENTITY_WORLD_IPV4,
    "world-ipv4": IDENTITY_WORLD_IPV4,
    "world-ipv6": IDENTITY_WORLD_IPV6,
}
_SERVICE_SUFFIXES: Final = (".svc.cluster.local", ".svc")


class UnknownEnd(Exception):
    """Nobody of that name or address is known; the text says what would be."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection. `endpoint`: it is a pod of this node, and has a policy. `address` "": not known."""

    name: str
    identity: int
    labels: tuple[str, ...] = ()
    address: str = ""
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes. Through a service: `ends` are its backends, and `identity` is what egress policy judges
    by: that which they have in common, or 0."""

    name: str
    ends: tuple[tuple[End, int], ...]  # each with the port there
    identity: int
    port: int  # the one that egress policy speaks of
    service: str = ""


@dataclass(frozen=True)
class Scene:
    """A compiled node, the world that it was compiled from, and the labels of the identities in it. `hides_topics`: its
    Kafka proxy leaves topics that no rule allows out of answers that list all."""

    node: NodePolicy
    world: World
    labels: Mapping[int, tuple[str, ...]]
    hides_topics: bool = True

    def policy(self, end: End) -> EndpointPolicy | None:
        """The policy of an end that is a pod of this node."""
        return self._policies.get(end.endpoint.group) if end.endpoint is not None else None

    def end(self, written: str) -> End:
        """The pod, address or entity of that name. Raises UnknownEnd."""
        address = _address(written)
        if address is not None:
            return self.end_at(address)
        if written in ENTITIES:
            identity = ENTITIES[written]
            return End(written, identity, self.labels.get(identity, ()))
        namespace, slash, name = written.partition("/")
        key = PodKey(namespace, name) if slash else PodKey("default", written)
        pod = self.world.pods.get(key)
        if pod is None:
            raise UnknownEnd(f"{written!r} is no pod, address or entity ({', '.join(ENTITIES)}) that is known here")
        return self._pod_end(pod)

    def end_at(self, address: str) -> End:
        """Whoever lives at this address (canonical)."""
        owner = self._owners.get(address)
        if owner is not None:
            return owner
        identity = self._identity_at(address)
        return End(address, identity, self.labels.get(identity, ()), address)

    def target(self, written: str, protocol: Protocol, port: int) -> Target:
        """Where a connection to that name and port goes. Raises UnknownEnd."""
        address = _address(written)
        service = self._service_at(address) if address is not None else self._service_named(written)
        if service is not None:
            return self._through(service, address, protocol, port)
        end = self.end(written)
        return Target(end.name, ((end, port),), end.identity, port)

    def _through(self, service: Service, address: str | None, protocol: Protocol, port: int) -> Target:
        """Through a service as the data path sees it: its frontend's entry, and each backend by itself."""
        name = f"{service.namespace}/{service.name}"
        found = [f for f in service.ports if (f.port, f.protocol) == (port, protocol)]
        entries = [
            entry
            for entry in self.node.services
            if entry.address in service.addresses and (entry.port, entry.protocol) == (port, protocol)
        ]
        if address is not None:
            entries = [entry for entry in entries if entry.address == address]
        entries.sort(key=lambda entry: (entry.identity == IDENTITY_ANY, ":" in entry.address))
        if not found or not entries:
            known = ", ".join(f"{p.port}/{p.protocol.name}" for p in service.ports) or "none"
            raise UnknownEnd(f"service {name} has no port {port}/{protocol.name} (it has: {known})")
        entry, is_v6 = entries[0], ":" in entries[0].address
        slices = [
            s for s in self.world.slices.values() if (s.namespace, s.service) == (service.namespace, service.name)
        ]
        backends = [(a, target) for a, target in service_backends(slices, found[0]) if (":" in a) == is_v6]
        ends = tuple((self.end_at(a), target) for a, target in sorted(set(backends)))
        return Target(f"service {name}", ends, entry.identity, entry.target_port, name)

    def _service_at(self, address: str) -> Service | None:
        return next((s for s in self.world.services.values() if address in s.addresses), None)

    def _service_named(self, written: str) -> Service | None:
        """NAMESPACE/NAME if no pod is called so; NAME.NAMESPACE[.svc[.cluster.local]]; NAME in namespace default."""
        for suffix in _SERVICE_SUFFIXES:
            if written.endswith(suffix):
                name, _, namespace = written.removesuffix(suffix).partition(".")
                return self.world.services.get(PodKey(namespace, name))
        if "/" in written:
            key = pod = PodKey(*written.split("/", 1))
        else:
            name, dot, namespace = written.partition(".")
            key, pod = PodKey(namespace if dot else "default", name), PodKey("default", written)
        return None if pod in self.world.pods or written in ENTITIES else self.world.services.get(key)

    def _pod_end(self, pod: Pod) -> End:
        for address in pod.addresses:
            if address in self._owners:
                return self._owners[address]
        name, address = f"{pod.namespace}/{pod.name}", next(iter(pod.addresses), "")
        if not address:
            raise UnknownEnd(f"pod {name} has no address yet (status.podIP): nothing can reach it")
        identity = self._identity_at(address)
        return End(name, identity, self.labels.get(identity, ()), address)

    def _identity_at(self, address: str) -> int:
        """By the longest prefix, as the ipcache has it."""
        found = ipaddress.ip_address(address)
        for length in range(found.max_prefixlen, -1, -1):
            prefix = str(ipaddress.ip_network((found, length), strict=False))
            if prefix in self._prefixes:
                return self._prefixes[prefix]
        return IDENTITY_WORLD_IPV6 if found.version == 6 else IDENTITY_WORLD_IPV4

    @cached_property
    def _policies(self) -> dict[int, EndpointPolicy]:
        return {policy.group: policy for policy in self.node.policies}

    @cached_property
    def _prefixes(self) -> dict[str, int]:
        return {entry.prefix: entry.identity for entry in self.node.addresses}

    @cached_property
    def _owners(self) -> dict[str, End]:
        return dict(self._endpoint_ends())

    def _endpoint_ends(self) -> Iterator[tuple[str, End]]:
        for endpoint in self.node.endpoints:
            labels = self.labels.get(endpoint.group, ())
            for address in endpoint.addresses:
                name = f"{endpoint.namespace}/{endpoint.name}"
                # Who is seen at the address may be less than the pod is: an address that two pods claim is nobody's.
                yield address, End(name, self._identity_at(address), labels, address, endpoint)


def _address(written: str) -> str | None:
    try:
        return str(ipaddress.ip_address(written.strip("[]")))
    except ValueError:
        return None
