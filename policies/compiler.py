"""World and local pods -> NodePolicy: who must be told what. Pure, and incremental.

What did not change since the last call is not compiled again: policies are bound to living selections once, a group is
merged again only if its rules or their peers changed, and address and service tables only if pods or services did.
Errors are collected; whatever can be compiled is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.addresses import AddressBook, service_table
from policies.census import Census
from policies.errors import PolicyError, Reason, in_order
from policies.identity import IdentityAllocator
from policies.ir import DirectionPolicy, Endpoint, EndpointPolicy, NodePolicy
from policies.merge import Implicit, RuleSets, merge
from policies.objects import ObjectKey, PodKey
from policies.rulebook import BoundRule, Rulebook
from policies.selectors import SelectorCache
from policies.types import IDENTITY_UNMANAGED, RESERVED_LABELS, Direction, Origin
from policies.world import World

INVALID_POLICY = "invalid-policy"


@dataclass(frozen=True, slots=True)
class CompilerOptions:
    """`node_name`: host-network pods of this node are the host; "" leaves that to their addresses."""

    cluster: str = "default"
    node_name: str = ""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The IR without slots, and what could not be compiled."""

    node: NodePolicy
    errors: tuple[PolicyError, ...] = ()


@dataclass(frozen=True, slots=True)
class _Merged:
    """A compiled group and what it was compiled from."""

    rules: tuple[BoundRule, ...]
    seen: int  # version of the selector cache when it was last known to be current
    version: int  # of the peers of its rules
    policy: EndpointPolicy


class Compiler:
    """Keeps what the next call can reuse. One caller; `identities` is changed by `compile`."""

    def __init__(self, identities: IdentityAllocator, options: CompilerOptions | None = None) -> None:
        self._options = options or CompilerOptions()
        self._identities = identities
        self._selectors = SelectorCache()
        self._census = Census(identities, self._selectors, self._options.cluster)
        self._rulebook = Rulebook(self._selectors)
        self._rule_sets = RuleSets()
        self._merged: dict[int, _Merged] = {}
        self._world = World()
        self._host: tuple[str, ...] | None = None
        self._book = AddressBook(())
        self._addresses = self._book.table()
        self._services = service_table(self._world, self._book)

    def compile(
        self, world: World, local: Mapping[PodKey, int], host_addresses: Sequence[str], revision: int
    ) -> Compiled:
        """The policy of this node. `local`: pods on it and the interface index of their host-side veth."""
        pods_changed = self._census.take(world)
        self._make_tables(world, tuple(sorted(host_addresses)), pods_changed)
        endpoints, errors = self._endpoints(world, local)
        groups = sorted({endpoint.group for endpoint in endpoints})
        self._rulebook.take(world.policies, groups)
        self._merged = {group: self._group(group) for group in groups}
        self._world = world
        node = NodePolicy(
            revision=revision,
            policies=tuple(merged.policy for merged in self._merged.values()),
            endpoints=endpoints,
            addresses=self._addresses,
            services=self._services,
        )
        return Compiled(node, in_order([*errors, *self._census.errors, *self._book.errors]))

    def _make_tables(self, world: World, host: tuple[str, ...], pods_changed: bool) -> None:
        before = self._world
        if pods_changed or host != self._host:
            self._host = host
            self._book = AddressBook(host)
            for key, pod in world.pods.items():
                if pod.host_network and not pod.is_over:
                    self._book.add_host_pod(pod, bool(pod.node_name) and pod.node_name == self._options.node_name)
                elif not pod.is_over:
                    self._book.add_pod(key, pod, self._census.identity[key])
            self._addresses = self._book.table()
        elif world.services is before.services and world.slices is before.slices:
            return
        self._services = service_table(world, self._book)

    def _endpoints(self, world: World, local: Mapping[PodKey, int]) -> tuple[tuple[Endpoint, ...], list[PolicyError]]:
        endpoints, errors = [], []
        for (namespace, name), number in sorted(local.items()):
            key = PodKey(namespace, name)
            pod, group = world.pods.get(key), self._census.identity.get(key)
            if pod is None or group is None:
                message = "it is on this node, but no running pod of that name is known"
                errors.append(PolicyError("Pod", namespace, name, "", Reason.UNKNOWN_POD, message))
            else:
                endpoints.append(Endpoint(number, group, namespace, name, tuple(sorted(pod.addresses))))
        return tuple(sorted(endpoints)), errors

    def _group(self, group: int) -> _Merged:
        rules, seen = self._rulebook.rules(group), self._selectors.version
        known = self._merged.get(group)
        if known is not None and known.rules is rules and known.seen == seen:
            return known
        version = sum(rule.version(seen) for rule in rules)
        if known is not None and known.rules == rules and known.version == version:
            return _Merged(rules, seen, version, known.policy)
        return _Merged(rules, seen, version, self._compile_group(group, rules))

    def _compile_group(self, group: int, rules: tuple[BoundRule, ...]) -> EndpointPolicy:
        if group == IDENTITY_UNMANAGED:  # no identity was left: nothing can be known to be allowed
            closed = DirectionPolicy(enforced=True)
            return EndpointPolicy(group, RESERVED_LABELS[group], closed, closed)
        ingress, egress = (self._direction(rules, direction) for direction in Direction)
        return EndpointPolicy(group, self._identities.labels(group), ingress, egress)

    def _direction(self, rules: tuple[BoundRule, ...], direction: Direction) -> DirectionPolicy:
        enforcing = [rule for rule in rules if direction in rule.rule.enforces]
        if not enforcing:
            return DirectionPolicy()
        clauses = [clause for rule in enforcing for clause in rule.clauses[direction]]
        invalid = {_invalid(rule.key) for rule in enforcing if rule.rule.invalid}
        implicit = Implicit(direction is Direction.INGRESS, tuple(sorted(invalid)))
        return DirectionPolicy(True, merge(clauses, implicit, self._rule_sets))


def _invalid(key: ObjectKey) -> Origin:
    """What a denial says that only a refused policy is the reason for."""
    return Origin("deflector", "", INVALID_POLICY, f"{key.namespace}/{key.name}")
