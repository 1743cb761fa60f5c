"""Who lives at which address, for flows: kept from view to view, so that one pod costs what one pod costs. Pure.

Every whereabouts is immutable; the next one shares with it whatever did not change, and copies what did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flows.lookups import ServiceRef
from policies.compiling.changes import changed_keys, changed_values
from policies.ir import Address, NodePolicy, ServiceAddress
from policies.objects import Pod, PodKey, Service
from policies.prefixes import PrefixMap, parse_prefix
from policies.types import IDENTITY_ANY
from policies.world import World


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """`hosts`: identity by address; `behind`: the same of service addresses; `prefixes`: of what is no single address;
    `claims`: pods by address, in order; `services`: by address and port; `targets`: target port by frontend."""

    world: World = field(default_factory=World)
    addresses: Sequence[Address] = ()
    frontends: Sequence[ServiceAddress] = ()
    hosts: Mapping[str, int] = field(default_factory=dict)
    behind: Mapping[str, int] = field(default_factory=dict)
    prefixes: PrefixMap[int] = field(default_factory=PrefixMap)
    claims: Mapping[str, tuple[PodKey, ...]] = field(default_factory=dict)
    services: Mapping[tuple[str, int], ServiceRef] = field(default_factory=dict)
    targets: Mapping[tuple[str, int, int], int] = field(default_factory=dict)

    def then(self, world: World, node: NodePolicy) -> Whereabouts:
        """The same of another world and what was compiled of it."""
        before = self.world
        gone, come = _differing(self.addresses, node.addresses)
        is_same = node.services is self.frontends
        return Whereabouts(
            world=world,
            addresses=node.addresses,
            frontends=node.services,
            hosts=_hosts(self.hosts, gone, come),
            behind=self.behind if is_same else _behind(node.services),
            prefixes=self.prefixes if not _spans(gone) and not _spans(come) else _prefixes(node.addresses),
            claims=_claims(self.claims, before.pods, world.pods),
            services=self.services if world.services is before.services else _services(world.services),
            targets=self.targets if is_same else _targets(node.services),
        )

    def pod(self, ip: str) -> Pod | None:
        """Who has the address; of two, the later by name."""
        claims = self.claims.get(ip)
        return self.world.pods[claims[-1]] if claims else None

    def identity(self, ip: str) -> int | None:
        """Of a pod, a node or whoever alone is behind a service."""
        known = self.hosts.get(ip)
        return known if known is not None else self.behind.get(ip)


def _differing(before: Sequence[Address], now: Sequence[Address]) -> tuple[list[Address], list[Address]]:
    """What is gone, and what has come."""
    gone, come = changed_values(before, now)
    kept = set(map(id, gone)) & set(map(id, come))
    return [one for one in gone if id(one) not in kept], [one for one in come if id(one) not in kept]


def _hosts(before: Mapping[str, int], gone: Sequence[Address], come: Sequence[Address]) -> Mapping[str, int]:
    if not gone and not come:
        return before
    hosts = dict(before)
    for address in gone:
        if parse_prefix(address.prefix).is_host:
            hosts.pop(address.prefix.partition("/")[0], None)
    for address in come:
        if parse_prefix(address.prefix).is_host:
            hosts[address.prefix.partition("/")[0]] = address.identity
    return hosts


def _spans(addresses: Sequence[Address]) -> bool:
    """Whether some are more than one address."""
    return any(not parse_prefix(address.prefix).is_host for address in addresses)


def _prefixes(addresses: Sequence[Address]) -> PrefixMap[int]:
    found: PrefixMap[int] = PrefixMap()
    for address in addresses:
        if not (prefix := parse_prefix(address.prefix)).is_host:
            found[prefix] = address.identity
    return found


def _claims(
    claims: Mapping[str, tuple[PodKey, ...]], before: Mapping[PodKey, Pod], pods: Mapping[PodKey, Pod]
) -> Mapping[str, tuple[PodKey, ...]]:
    changed = changed_keys(before, pods)
    if not changed:
        return claims
    made = dict(claims)
    for key in changed:
        for ip in _addresses(before.get(key)):
            if left := tuple(one for one in made.get(ip, ()) if one != key):
                made[ip] = left
            else:
                made.pop(ip, None)
    for key in changed:
        for ip in _addresses(pods.get(key)):
            made[ip] = tuple(sorted({*made.get(ip, ()), key}))
    return made


def _addresses(pod: Pod | None) -> tuple[str, ...]:
    return pod.addresses if pod is not None and not pod.host_network and not pod.is_over else ()


def _services(services: Mapping[PodKey, Service]) -> dict[tuple[str, int], ServiceRef]:
    return {
        (ip, port.port): ServiceRef(service.name, service.namespace)
        for service in services.values()
        for ip in service.addresses
        for port in service.ports
    }


def _targets(frontends: Sequence[ServiceAddress]) -> dict[tuple[str, int, int], int]:
    return {(s.address, s.port, int(s.protocol)): s.target_port for s in frontends}


def _behind(frontends: Sequence[ServiceAddress]) -> dict[str, int]:
    """Service addresses whose backends, at all ports, share one identity: that is who is meant by the address."""
    found: dict[str, set[int]] = {}
    for service in frontends:
        found.setdefault(service.address, set()).add(service.identity)
    return {address: min(behind) for address, behind in found.items() if len(behind) == 1 and behind != {IDENTITY_ANY}}
