"""Who lives at which address: the ipcache of the IR, kept current. Pure.

An address is of a pod, of a node, of the longest prefix that some policy speaks of, or of the world. This node's own
addresses are nobody else's; two pods on one address are nobody.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Final, TypeVar

from policies.errors import PolicyError, Reason
from policies.ir import Address
from policies.objects import Backend, EndpointSlice, PodKey, ServicePort
from policies.prefixes import Prefix, PrefixMap, parse_prefix
from policies.types import (
    IDENTITY_HOST,
    IDENTITY_UNMANAGED,
    IDENTITY_WORLD,
    IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6,
)

T = TypeVar("T")

_BY_PREFIX: Final = attrgetter("prefix")
_SORT_ANEW: Final = 64  # with more changes than these, sorting beats inserting


class AddressBook:
    """Prefix -> identity. Change it by the setters; `settle` makes the table of it. `is_dual`: each family has a world
    of its own."""

    def __init__(self, *, is_dual: bool = True) -> None:
        self.table: tuple[Address, ...] = ()  # sorted by prefix; the same tuple until it changes
        worlds = (IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6) if is_dual else (IDENTITY_WORLD, IDENTITY_WORLD)
        self._worlds = dict(zip((4, 6), worlds, strict=True))
        self._host: frozenset[str] = frozenset()
        self._told_host: object = None  # what they were told as
        self._pods: dict[PodKey, tuple[tuple[str, ...], int]] = {}
        self._claims: dict[str, dict[PodKey, int]] = {}
        self._contested: set[str] = set()
        self._nodes: Mapping[str, int] = {}
        self._cidrs: Mapping[Prefix, int] = {}
        self._longest: PrefixMap[int] = PrefixMap()
        self._entries: dict[str, Address] = {}
        self._touched = {"0.0.0.0/0", "::/0"}  # prefixes

    @property
    def host(self) -> frozenset[str]:
        """The addresses of this node itself."""
        return self._host

    @property
    def errors(self) -> list[PolicyError]:
        """Addresses that two pods have, or a pod and this node: for each pod but the first, by name."""
        found = []
        for address in self._contested:
            first, *others = sorted(self._claims[address])
            if address in self._host:
                found += [_conflict(address, key, "this node") for key in (first, *others)]
            else:
                found += [_conflict(address, key, f"Pod {first.namespace}/{first.name}") for key in others]
        return found

    def set_host(self, addresses: Iterable[str]) -> None:
        """The addresses of this node itself."""
        if addresses == self._told_host:
            return
        self._told_host = addresses
        host = frozenset(str(ipaddress.ip_address(address.partition("%")[0])) for address in addresses)
        self._touch(self._host ^ host)
        self._host = host

    def set_pod(self, key: PodKey, addresses: tuple[str, ...], identity: int) -> None:
        """A pod that is not over has these; none: it is gone."""
        before = self._pods.pop(key, None)
        if before is not None:
            for address in before[0]:
                claims = self._claims[address]
                claims.pop(key, None)
                if not claims:
                    del self._claims[address]
            self._touch(before[0])
        if addresses:
            self._pods[key] = (addresses, identity)
            for address in addresses:
                self._claims.setdefault(address, {})[key] = identity
            self._touch(addresses)

    def set_nodes(self, identities: Mapping[str, int]) -> None:
        """The addresses of all nodes; the same mapping is the same nodes."""
        if identities is not self._nodes:
            self._touch(_differing(self._nodes, identities))
            self._nodes = identities

    def set_cidrs(self, identities: Mapping[Prefix, int]) -> None:
        """The prefixes that policies speak of; the same mapping is the same prefixes."""
        if identities is self._cidrs:
            return
        for prefix in _differing(self._cidrs, identities):
            self._touched.add(str(prefix))
            if prefix in identities:
                self._longest[prefix] = identities[prefix]
            else:
                del self._longest[prefix]
        self._cidrs = identities

    def identity(self, address: str) -> int:
        """Who lives there; the world, where nobody is known to. Current only after `settle`."""
        prefix = parse_prefix(address)
        known = self._entries.get(str(prefix))
        if known is not None:
            return known.identity
        longest = self._longest.longest(prefix)
        return longest if longest is not None else self._worlds[prefix.version]

    def is_taken(self, address: str) -> bool:
        """Whether it is a pod's or a node's."""
        return address in self._claims or address in self._host or address in self._nodes

    def settle(self) -> set[str]:
        """Bring the table up to date; prefixes that have another identity now, or none, or one for the first time."""
        changed = {prefix for prefix in self._touched if self._enter(prefix)}
        self._touched = set()
        if len(changed) > _SORT_ANEW:
            self.table = tuple(sorted(self._entries.values(), key=_BY_PREFIX))
        elif changed:
            ordered = list(self.table)
            for prefix in changed:
                at = bisect_left(ordered, prefix, key=_BY_PREFIX)
                if at < len(ordered) and ordered[at].prefix == prefix:
                    del ordered[at]
                if prefix in self._entries:
                    insort(ordered, self._entries[prefix], key=_BY_PREFIX)
            self.table = tuple(ordered)
        return changed

    def _touch(self, addresses: Iterable[str]) -> None:
        self._touched.update(f"{address}/{128 if ':' in address else 32}" for address in addresses)

    def _enter(self, text: str) -> bool:
        """Make the entry of one prefix; whether it is another one now."""
        prefix, before = parse_prefix(text), self._entries.get(text)
        identity = self._owner(prefix, text.partition("/")[0])
        if identity is None:
            return self._entries.pop(text, None) is not None
        if before is not None and before.identity == identity:
            return False
        self._entries[text] = Address(text, identity)
        return True

    def _owner(self, prefix: Prefix, address: str) -> int | None:
        if not prefix.length:
            return self._worlds[prefix.version]
        if not prefix.is_host:
            return self._cidrs.get(prefix)
        claims = self._claims.get(address, {})
        if len(claims) > 1 or (claims and address in self._host):
            self._contested.add(address)
        else:
            self._contested.discard(address)
        if address in self._host:
            return IDENTITY_HOST
        if claims:  # undecidable, if they differ: no policy selects it
            return next(iter(claims.values())) if len(set(claims.values())) == 1 else IDENTITY_UNMANAGED
        return self._nodes.get(address, self._cidrs.get(prefix))


def _differing(before: Mapping[T, int], after: Mapping[T, int]) -> set[T]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _conflict(address: str, key: PodKey, other: str) -> PolicyError:
    message = f"{address} is also the address of {other}"
    return PolicyError("Pod", key.namespace, key.name, "status.podIPs", Reason.ADDRESS_CONFLICT, message)


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
