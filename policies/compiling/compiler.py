"""World and local pods -> NodePolicy: who must be told what. Pure, and incremental.

What did not change since the last call is not compiled again, and stays the same object: policies are bound to living
peer sets once, a direction of a group is merged again only if its rules changed, identities that come or go move within
what was merged, and the tables of addresses and services are kept entry by entry. Errors are collected; whatever can be
compiled is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from policies.compiling.addresses import AddressBook
from policies.compiling.by_name import FqdnEnforcement
from policies.compiling.census import Census
from policies.compiling.cidrs import CidrBook
from policies.compiling.enforcement import AllowLocalhost, Enforcement
from policies.compiling.fqdns import FqdnBook, LearnedNames, NoNames
from policies.compiling.groups import GroupBook, Modes
from policies.compiling.identity import IdentityAllocator
from policies.compiling.named_ports import NamedPorts, OwnPorts, PortName
from policies.compiling.nodes import Nodes, api_servers
from policies.compiling.peers import Places
from policies.compiling.peersets import PeerSets
from policies.compiling.roles import KafkaRoles
from policies.compiling.rulebook import Rulebook
from policies.compiling.selections import SelectorCache
from policies.compiling.services import ServiceBook
from policies.errors import PolicyError, Reason, in_order
from policies.ir import Endpoint, NodePolicy
from policies.label_filter import LabelFilter
from policies.objects import PodKey
from policies.prefixes import Prefix, parse_prefix
from policies.types import IDENTITY_UNKNOWN
from policies.world import World


@dataclass(frozen=True, slots=True)
class CompilerOptions:
    """`node_name`: Node objects and host-network pods of this name are the host; "" leaves that to their addresses.

    `ipv4`, `ipv6`: families that the node has; with one of them only, there is one world. `node_labels`: nodes may be
    selected by their labels (enable-node-selector-labels). `kafka_roles`: which APIs a role of Kafka rules stands for;
    `fqdn_enforcement`: what toFQDNs hold requests to.
    `label_filter`: which labels of pods make their identity, if not as by default.
    """

    cluster: str = "default"
    node_name: str = ""
    policy_enforcement: Enforcement = Enforcement.DEFAULT
    allow_localhost: AllowLocalhost = AllowLocalhost.AUTO
    node_labels: bool = False
    ipv4: bool = True
    ipv6: bool = True
    kafka_roles: KafkaRoles = KafkaRoles.NATIVE
    fqdn_enforcement: FqdnEnforcement = FqdnEnforcement.IP
    label_filter: LabelFilter | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """The IR without slots, and what could not be compiled. Groups that an error names are on their last good policy,
    or denied where there is none."""

    node: NodePolicy
    errors: tuple[PolicyError, ...] = ()


class Compiler:
    """Keeps what the next call can reuse. One caller; `identities` is changed by `compile`."""

    def __init__(
        self,
        identities: IdentityAllocator,
        options: CompilerOptions | None = None,
        learned: LearnedNames | None = None,
    ) -> None:
        self._options = options or CompilerOptions()
        is_dual = self._options.ipv4 and self._options.ipv6
        self._identities = identities
        self._selectors = SelectorCache()
        self._sets = PeerSets(self._selectors)
        self._names = NamedPorts()
        keeps = self._options.label_filter.keeps if self._options.label_filter is not None else None
        self._census = Census(identities, self._selectors, self._options.cluster, keeps)
        self._nodes = Nodes(
            identities, self._selectors, own_name=self._options.node_name, with_labels=self._options.node_labels
        )
        self._cidrs = CidrBook(identities, self._selectors, is_dual=is_dual)
        self.fqdns = FqdnBook(identities, self._selectors, self._cidrs, is_dual=is_dual)
        self._learned = learned or NoNames()
        self._frontends: frozenset[str] = frozenset()
        self._places = Places(
            self._options.cluster,
            is_dual,
            kafka_roles=self._options.kafka_roles,
            names=self._options.fqdn_enforcement,
        )
        self._rulebook = Rulebook(self._sets)
        modes = Modes(self._options.policy_enforcement, self._options.allow_localhost)
        self._groups = GroupBook(self._rulebook, self._names, identities, modes)
        self._addresses = AddressBook(is_dual=is_dual)
        self._services = ServiceBook(self._addresses)
        self._world = World()
        self._servers: frozenset[str] = frozenset()

    def compile(
        self, world: World, local: Mapping[PodKey, int], host_addresses: Sequence[str], revision: int
    ) -> Compiled:
        """The policy of this node. `local`: pods on it and the interface index of their host-side veth."""
        self._take_pods(world)
        self._addresses.set_host(host_addresses)
        servers = api_servers(world.slices) if world.slices is not self._world.slices else self._servers
        self._nodes.take(world.nodes, servers, self._addresses.host)
        endpoints, errors = self._endpoints(world, local)
        self._take_policies(world, {endpoint.group for endpoint in endpoints})
        self._cidrs.take(world.cidr_groups, servers - self._nodes.identities.keys())
        self._take_addresses(world)
        policies = self._groups.compile(_own_ports(world, endpoints), self._sets.settle())
        self._world, self._servers = world, servers
        node = NodePolicy(
            revision=revision,
            policies=policies,
            endpoints=endpoints,
            addresses=self._addresses.table,
            services=self._services.table,
            logs=self._rulebook.logs,
            fqdn_selectors=self.fqdns.selectors,
        )
        books = (self._census, self._nodes, self._cidrs, self.fqdns, self._addresses, self._groups)
        return Compiled(node, in_order([*errors, *(error for book in books for error in book.errors)]))

    def _take_pods(self, world: World) -> None:
        for key in self._census.take(world):
            pod, identity = world.pods.get(key), self._census.identity.get(key)
            if pod is not None and identity is not None:
                self._addresses.set_pod(key, pod.addresses, identity)
                self._names.set(key, pod.ports, identity)
            else:
                self._addresses.set_pod(key, (), IDENTITY_UNKNOWN)
                self._names.set(key, {}, IDENTITY_UNKNOWN)
            is_node = pod is not None and pod.host_network and not pod.is_over
            self._nodes.set_pod(key, pod if is_node else None)

    def _take_policies(self, world: World, groups: Iterable[int]) -> None:
        before = self._world
        looked_up_in = (world.cidr_groups, world.services, world.slices, world.secrets)
        looked_up_before = (before.cidr_groups, before.services, before.slices, before.secrets)
        if any(now is not then for now, then in zip(looked_up_in, looked_up_before, strict=True)):
            self._places = replace(
                self._places,
                groups=world.cidr_groups,
                services=world.services,
                slices=world.slices,
                secrets=world.secrets,
            )
        labels = {group: self._identities.labels(group) for group in groups}
        self._rulebook.take(world.policies, self._places, labels)

    def _take_addresses(self, world: World) -> None:
        self._addresses.set_nodes(self._nodes.identities)
        self._addresses.set_cidrs(self._cidrs.identities)
        moved = self._addresses.settle()
        self._services.take(world.services, world.slices, moved)
        self._take_names(world, moved)

    def _take_names(self, world: World, moved: Iterable[str]) -> None:
        doubtful = {parse_prefix(text) for text in moved}
        if world.services is not self._world.services:
            frontends = frozenset(address for service in world.services.values() for address in service.addresses)
            doubtful |= {parse_prefix(address) for address in frontends ^ self._frontends}
            self._frontends = frontends
        self.fqdns.follow(self._rulebook.names, self._rulebook.names_version, self._learned)
        self.fqdns.take(self._learned, doubtful, self._is_taken)

    def _is_taken(self, prefix: Prefix) -> bool:
        """Whether an address is of a pod, a node or a service: no name selects these (facts 6.3)."""
        address = str(prefix).partition("/")[0]
        return address in self._frontends or self._addresses.is_taken(address)

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


def _own_ports(world: World, endpoints: Iterable[Endpoint]) -> dict[int, OwnPorts]:
    """The groups of these endpoints, each with the names of its pods' ports. Pods that share their labels share the
    numbers of a name, too."""
    found: dict[int, set[tuple[PortName, int]]] = {}
    for endpoint in endpoints:
        ports = world.pods[PodKey(endpoint.namespace, endpoint.name)].ports
        found.setdefault(endpoint.group, set()).update((PortName(*name), port) for name, port in ports.items())
    return {group: tuple(sorted(ports)) for group, ports in found.items()}
