"""What clauses look up in the world: peers of every kind -> selectors, secrets -> values, roles -> APIs. Pure.

Selectors are the one form that selections are kept for. Entities are reserved labels, prefixes are `cidr:` keys; groups
of prefixes and services are looked up in the world, so their selectors change with it. A peer that stands for nobody
now (a service without backends) chooses nobody: never everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from policies.compiling import roles, secret_headers
from policies.compiling.by_name import FqdnEnforcement
from policies.compiling.roles import KafkaRoles
from policies.labels import CIDR_GROUP, CLUSTER_KEY, GROUP_NAME_PREFIX, K8S, NAMESPACE_KEY, RESERVED, Label, fqdn_key
from policies.objects import CidrGroup, EndpointSlice, PodKey, Secret, Service
from policies.prefixes import parse_prefix
from policies.rules import CidrGroupPeer, CidrPeer, Clause, Entity, EntityPeer, FqdnPeer, Peer, ServicePeer
from policies.selectors import Operator, Requirement, Selector, exists, label_map, within

EVERYBODY: Final = Selector()
NOBODY: Final = Selector.of([exists(f"{RESERVED}:none")])

_CLUSTER_ENTITIES: Final = (
    *("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"),
)  # and all pods of the cluster (facts 2.4)


@dataclass(frozen=True, slots=True)
class Places:
    """What of the world peers are looked up in, and what is the same for all of them: `is_dual`, each family has a
    world of its own; `kafka_roles`, what roles stand for; `names`, what toFQDNs hold requests to."""

    cluster: str = "default"
    is_dual: bool = True
    groups: Mapping[str, CidrGroup] = field(default_factory=dict)
    services: Mapping[PodKey, Service] = field(default_factory=dict)
    slices: Mapping[PodKey, EndpointSlice] = field(default_factory=dict)
    secrets: Mapping[PodKey, Secret] = field(default_factory=dict)
    kafka_roles: KafkaRoles = KafkaRoles.NATIVE
    names: FqdnEnforcement = FqdnEnforcement.IP

    def looked_up(self, clause: Clause) -> Clause:
        """The clause with selectors for peers, and with the values of secrets and the keys of roles in its rules; the
        same one if that changes nothing."""
        peers = self.selectors(clause.peers) if clause.peers is not None else None
        to_ports = clause.to_ports
        if any(entry.l7 for entry in to_ports):
            to_ports = tuple(
                roles.resolve(secret_headers.resolve(entry, self.secrets), self.kafka_roles) for entry in to_ports
            )
            if all(now is before for now, before in zip(to_ports, clause.to_ports, strict=True)):
                to_ports = clause.to_ports
        return (
            clause
            if peers == clause.peers and to_ports is clause.to_ports
            else replace(clause, peers=peers, to_ports=to_ports)
        )

    def selectors(self, peers: Iterable[Peer]) -> tuple[Selector, ...]:
        """Who is meant by any of these peers: each selector once, in order of mention. Where nobody is meant now, one
        that chooses nobody: `()` would be what the author wrote."""
        peers = tuple(peers)
        found = tuple(dict.fromkeys(selector for peer in peers for selector in self._of(peer)))
        return found or ((NOBODY,) if peers else ())

    def _of(self, peer: Peer) -> Iterator[Selector]:
        match peer:
            case Selector():
                yield peer
            case EntityPeer(entity):
                yield from _entity(entity, self.cluster)
            case CidrPeer(prefix, excepts):
                yield self._prefix(prefix, excepts)
            case CidrGroupPeer(chosen, excepts):
                for group in self.groups.values():
                    if chosen.matches(label_map(group_labels(group))):
                        yield from (self._prefix(prefix, excepts) for prefix in group.prefixes)
            case FqdnPeer(named):
                yield Selector.of([exists(fqdn_key(named.pattern or named.name))])
            case ServicePeer():
                for service in self._services(peer):
                    yield from self._service(service)

    def _prefix(self, prefix: str, excepts: tuple[str, ...] = ()) -> Selector:
        """In single stack the world has no family: /0 of either is all of it."""
        if self.is_dual or parse_prefix(prefix).length:
            return within(prefix, excepts)
        rest = (r for r in within(prefix, excepts).requirements if r.operator is Operator.DOES_NOT_EXIST)
        return Selector.of([exists(f"{RESERVED}:world"), *rest])

    def _services(self, peer: ServicePeer) -> Iterator[Service]:
        for key, service in self.services.items():
            if peer.namespace not in ("", key.namespace):
                continue
            if peer.selector is not None:
                labels = (str(Label(K8S, name, value)) for name, value in service.labels.items())
                if peer.selector.matches(label_map(labels)):
                    yield service
            elif peer.name == key.name:
                yield service

    def _service(self, service: Service) -> Iterator[Selector]:
        if service.selector:
            labels = {**service.selector, NAMESPACE_KEY: service.namespace}
            yield Selector.of(Requirement(f"{K8S}:{key}", Operator.IN, (value,)) for key, value in labels.items())
            return
        for piece in self.slices.values():
            if (piece.namespace, piece.service) == (service.namespace, service.name):
                for backend in piece.backends:
                    if backend.ready or backend.serving:
                        yield from (within(str(parse_prefix(address))) for address in backend.addresses)


def is_settled(clause: Clause) -> bool:
    """Whether it means the same whatever groups, services and secrets there are."""
    peers = (isinstance(peer, CidrGroupPeer | ServicePeer) for peer in clause.peers or ())
    return not any(peers) and not any(entry.secret_rules for entry in clause.to_ports)


def group_labels(group: CidrGroup) -> tuple[str, ...]:
    """Labels of a group, which its prefixes inherit: its own, and one for its name; sorted."""
    own = (Label(CIDR_GROUP, key, value) for key, value in group.labels.items())
    return tuple(sorted(map(str, (*own, Label(CIDR_GROUP, f"{GROUP_NAME_PREFIX}{group.name}", "")))))


def _entity(entity: Entity, cluster: str) -> Iterator[Selector]:
    match entity:
        case Entity.ALL:
            yield EVERYBODY
        case Entity.WORLD:
            yield from (_reserved(name) for name in ("world", "world-ipv4", "world-ipv6"))
        case Entity.CLUSTER:
            yield from (_reserved(name) for name in _CLUSTER_ENTITIES)
            yield Selector.of([Requirement(f"{K8S}:{CLUSTER_KEY}", Operator.IN, (cluster,))])
        case _:
            yield _reserved(entity.value)


def _reserved(name: str) -> Selector:
    return Selector.of([exists(f"{RESERVED}:{name}")])
