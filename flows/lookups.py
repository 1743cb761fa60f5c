"""What flows asks of the rest of the house: who lives at an address, which labels an identity has. Values, no I/O.

The agent satisfies `Lookups` in its wiring with views that never change: when anything does, it makes a new view. So
a flow that is built late still shows who was there when it was seen, and what was looked up can be kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from flows.record import HttpRecord, PacketRecord, Parsed, TlsRefusal


@dataclass(frozen=True, slots=True)
class WorkloadRef:
    """What made a pod: Deployment deathstar."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """A Kubernetes service."""

    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """A policy object that allowed or denied a connection. `labels` are `k8s:io.cilium.k8s.policy.*`, sorted; `logs`
    is what the deciding clauses want said in flows (`log.value`)."""

    name: str
    namespace: str
    kind: str
    labels: tuple[str, ...] = ()
    revision: int = 0
    logs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Reason:
    """Why a verdict is what it is: the policies that gave it (none of a default deny), and words for the policy log.

    Compared by being the same object: a view gives the same one for the same reason, as far as it remembers.
    """

    policies: tuple[PolicyRef, ...] = ()
    log: tuple[str, ...] = ()


NO_REASON = Reason()


@dataclass(frozen=True, slots=True)
class EndpointRef:
    """Who lives at an address. `id` is 0 unless the endpoint is on this node; labels are `source:key=value`, sorted."""

    identity: int
    id: int = 0
    namespace: str = ""
    pod_name: str = ""
    labels: tuple[str, ...] = ()
    workloads: tuple[WorkloadRef, ...] = ()
    cluster: str = "default"


class Lookups(Protocol):
    """An immutable view: the same question always gets the same answer from the same object."""

    @property
    def node_name(self) -> str:
        """`node`, or `cluster/node` when the cluster is not called "default"."""

    def endpoint_by_ip(self, ip: str) -> EndpointRef | None:
        """The pod with this address, of this node or not; None when it is no pod that we know."""

    def identity_by_ip(self, ip: str) -> int:
        """The identity of the longest prefix that holds this address; world when there is none."""

    def identity_labels(self, identity: int) -> tuple[str, ...]:
        """The labels of an identity, sorted; empty when it is not known."""

    def service_by_address(self, ip: str, port: int) -> ServiceRef | None:
        """The service whose frontend this is."""

    @property
    def node_labels(self) -> tuple[str, ...]:
        """The labels of this node's Node object, `key=value`, sorted."""

    def names_of(self, ip: str, by: str) -> tuple[str, ...]:
        """The DNS names, without the trailing dot and sorted, that who lives at `by` was told for this address."""

    def why_request(self, record: HttpRecord) -> Reason:
        """Which rule let the request pass, or why none did. Words quote nothing that may be secret."""

    def why_parsed(self, record: Parsed) -> Reason:
        """Which rules let a DNS or Kafka message pass, or why none did."""

    def why_refused(self, record: TlsRefusal) -> Reason:
        """Why none of the slot's names let the connection pass."""

    def why_packet(self, record: PacketRecord) -> Reason:
        """Which policies allowed or denied the packet of a policy verdict, or why none allowed it; of a drop too."""
