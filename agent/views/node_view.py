"""Who lives where, for flows: an immutable view of world, policy and names, swapped whole after each regeneration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.views.learned import NO_NAMES, LearnedNames
from agent.views.packet_reasons import Attempt, PacketReasons, drop_reason, is_verdict
from agent.views.parsed_reasons import ParsedReasons
from agent.views.policy_refs import PolicyRefs
from agent.views.reasons import Asked, RequestReasons
from agent.views.refusals import RefusalReasons
from agent.views.searches import Searches
from agent.views.slot_reasons import UNKNOWN, SlotReasons, Traced
from agent.views.whereabouts import Whereabouts
from flows.lookups import EndpointRef, ServiceRef, WorkloadRef
from flows.record import HttpRecord, PacketRecord, Parsed, TlsRefusal
from policies.compiling.identity import IdentityAllocator
from policies.ir import NodePolicy
from policies.objects import ObjectKey, Pod
from policies.prefixes import parse_prefix
from policies.rules import Policy
from policies.types import (
    IDENTITY_ANY,
    IDENTITY_FIRST_LOCAL,
    IDENTITY_HOST,
    IDENTITY_LAST_LOCAL,
    IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6,
    Direction,
    Protocol,
)
from policies.world import World


class NodeView:
    """Satisfies flows.lookups.Lookups. Made from one world and the policy compiled from it; never changes.

    `before` is the view that this one follows: what did not change is shared with it. `searches` outlives it, so that
    what is known of a rule set is known to the next view too. Without, nothing bounds the time that they take.
    """

    def __init__(
        self,
        node_name: str,
        world: World,
        node: NodePolicy,
        labels: Mapping[int, tuple[str, ...]],
        *,
        searches: Searches | None = None,
        names: LearnedNames = NO_NAMES,
        before: NodeView | None = None,
    ) -> None:
        self._node_name = node_name
        own = world.nodes.get(node_name.rpartition("/")[2])
        self._node_labels = tuple(sorted(f"{key}={value}" for key, value in own.labels.items())) if own else ()
        self._labels = labels
        self._names = names
        self.policies: Mapping[ObjectKey, Policy] = world.policies
        self.groups = tuple(policy.labels for policy in node.policies)
        searches = searches or Searches(lambda: 0)
        refs = PolicyRefs(node.revision, {log.origin: log.value for log in node.logs})
        slots = SlotReasons(node, refs)
        self._requests = RequestReasons(slots, searches)
        self._parsed = ParsedReasons(slots, searches)
        self._refusals = RefusalReasons(slots, searches)
        self._packets = PacketReasons(node, world, refs, searches)
        former: Whereabouts = before._where if before is not None else Whereabouts()
        self._where: Whereabouts = former.then(world, node)
        self._local = {(e.namespace, e.name): e.id for e in node.endpoints}
        self._endpoints: dict[str, EndpointRef] = {}  # by address, of those that somebody asked for

    @property
    def node_name(self) -> str:
        return self._node_name

    @property
    def node_labels(self) -> tuple[str, ...]:
        return self._node_labels

    def names_of(self, ip: str, by: str) -> tuple[str, ...]:
        return self._names.names_of(ip, by)

    def endpoint_by_ip(self, ip: str) -> EndpointRef | None:
        found = self._endpoints.get(ip)
        if found is None and (pod := self._where.pod(ip)) is not None:
            found = self._endpoints[ip] = self._endpoint(pod, self._local.get((pod.namespace, pod.name), 0), ip)
        return found

    def identity_by_ip(self, ip: str) -> int:
        known = self._where.identity(ip)
        if known is None or IDENTITY_FIRST_LOCAL <= known <= IDENTITY_LAST_LOCAL:
            known = self._names.identity_of(ip) or known or self._by_prefix(ip)
        if known is not None:
            return known
        return IDENTITY_WORLD_IPV6 if ":" in ip else IDENTITY_WORLD_IPV4

    def _by_prefix(self, ip: str) -> int | None:
        """Whom the longest prefix that policies speak of makes of it; nobody, of what is no address."""
        try:
            return self._where.prefixes.longest(parse_prefix(ip))
        except ValueError:
            return None

    def identity_labels(self, identity: int) -> tuple[str, ...]:
        return self._labels.get(identity, ())

    def service_by_address(self, ip: str, port: int) -> ServiceRef | None:
        return self._where.services.get((ip, port))

    def why_request(self, record: HttpRecord) -> Traced:
        """Which rule let the request pass, or why none did."""
        if record.denied_by is None and (leaf := self._requests.leaf(record.slot.name, record.allowed_by)) is not None:
            return leaf
        exchange = record.exchange
        what = (exchange.method, exchange.authority, exchange.path)
        return self._requests.of(Asked(record.slot.name, record.denied_by, record.allowed_by, *what))

    def why_asked(self, asked: Asked) -> Traced:
        """The same of a request that is known in short."""
        return self._requests.of(asked)

    def why_unsearched(self, slot: str, denied: bool) -> Traced:
        """The same of requests that nobody knows one by one."""
        return self._requests.unsearched(slot, denied)

    def why_parsed(self, record: Parsed) -> Traced:
        """Which rules let a DNS or Kafka message pass, or why none did."""
        return self._parsed.of(record)

    def why_refused(self, record: TlsRefusal) -> Traced:
        """Why no TLS rule let the connection pass."""
        return self._refusals.of(record)

    def why_packet(self, record: PacketRecord) -> Traced:
        """Which clauses gave this policy verdict; of a default deny, what came nearest."""
        if record.direction is None or not is_verdict(record):
            return UNKNOWN
        ingress = record.direction is Direction.INGRESS
        own = record.destination_identity if ingress else record.source_identity
        peer = record.source_identity if ingress else record.destination_identity
        ip = record.source_ip if ingress else record.destination_ip
        if own is None:
            return UNKNOWN
        if peer is None:  # the world, or a service's address
            peer = self.identity_by_ip(ip)
        pod = self._where.pod(ip)
        name = f"{pod.namespace}/{pod.name}" if pod is not None else ip
        attempt = (record.direction, own, peer, name, record.protocol, self._target_port(record), drop_reason(record))
        return self._packets.of(Attempt(*attempt), self.identity_labels(peer))

    def _target_port(self, record: PacketRecord) -> int:
        """The port that the policy speaks of: of ICMP the type, of a service its target port."""
        if record.protocol in (Protocol.ICMP, Protocol.ICMPV6):
            return record.icmp_type
        if record.direction is Direction.INGRESS:
            return record.destination_port
        frontend = (record.destination_ip, record.destination_port, record.protocol)
        return self._where.targets.get(frontend, record.destination_port)

    def _endpoint(self, pod: Pod, endpoint_id: int, ip: str) -> EndpointRef:
        identity = self.identity_by_ip(ip)
        workloads = (WorkloadRef(pod.workload.name, pod.workload.kind),) if pod.workload else ()
        return EndpointRef(
            identity=identity,
            id=endpoint_id,
            namespace=pod.namespace,
            pod_name=pod.name,
            labels=self.identity_labels(identity),
            workloads=workloads,
        )


def labels_by_identity(
    allocator: IdentityAllocator, node: NodePolicy, of_names: Iterable[int] = ()
) -> dict[int, tuple[str, ...]]:
    """The labels of every identity that this policy can show, reserved ones included. `of_names`: those that learned
    addresses may have."""
    numbers = {address.identity for address in node.addresses} | {policy.group for policy in node.policies}
    numbers.update(of_names)
    reserved = range(IDENTITY_HOST, IDENTITY_WORLD_IPV6 + 1)
    return {number: allocator.labels(number) for number in (*sorted(numbers), *reserved, IDENTITY_ANY)}
