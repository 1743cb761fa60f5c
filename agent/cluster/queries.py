"""What a node follows at the API server, kind by kind. Pure data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.cluster import resources, shapes
from agent.cluster.list_watch import Query
from policies.objects import PodKey
from policies.rules import Policy, SecretHeader


class IdentitySource(Enum):
    """Where the identities of other nodes' pods come from."""

    ENDPOINTS = "endpoints"  # CiliumEndpoint objects
    SLICES = "endpoint-slices"  # CiliumEndpointSlice objects
    PODS = "pods"  # the pods themselves


@dataclass(frozen=True, slots=True)
class Following:
    """What is followed. Times in seconds: a batch ends after `quiet` without news, or after `hold`."""

    node_name: str
    identities: IdentitySource = IdentitySource.ENDPOINTS
    quiet: float = 0.01
    hold: float = 0.2


# Policies must be of this moment when they are listed: an older list could open what is closed by now.
_POLICIES: Final = (
    Query(resources.CILIUM_POLICIES, shapes.whole, consistent=True),
    Query(resources.CILIUM_CLUSTER_POLICIES, shapes.whole, consistent=True),
    Query(resources.CILIUM_CIDR_GROUPS, shapes.whole, consistent=True),
    Query(resources.CILIUM_CIDR_GROUPS_ALPHA, shapes.whole, consistent=True, optional=True),
    Query(resources.NETWORK_POLICIES, shapes.whole, consistent=True),
)
_OTHERS: Final = (
    Query(resources.NAMESPACES, shapes.metadata),
    Query(resources.NODES, shapes.node),
    Query(resources.SERVICES, shapes.service),
    Query(resources.ENDPOINT_SLICES, shapes.endpoint_slice),
    Query(resources.CILIUM_IDENTITIES, shapes.identity),
)


def queries(following: Following) -> tuple[Query, ...]:
    """Everything but secrets."""
    own = f"spec.nodeName={following.node_name}"
    pods = {
        IdentitySource.ENDPOINTS: (
            Query(resources.PODS, shapes.pod, fields=own),
            Query(resources.CILIUM_ENDPOINTS, shapes.endpoint),
        ),
        IdentitySource.SLICES: (
            Query(resources.PODS, shapes.pod, fields=own),
            Query(resources.CILIUM_ENDPOINT_SLICES, shapes.cilium_endpoint_slice),
        ),
        IdentitySource.PODS: (Query(resources.PODS, shapes.pod),),
    }
    return (*_POLICIES, *_OTHERS, *pods[following.identities])


def secret_query(key: PodKey) -> Query:
    """One secret. A role that names it (resourceNames) allows this, and no more (Kubernetes: RBAC, "a list or watch by
    resourceNames needs the field selector metadata.name")."""
    fields = f"metadata.name={key.name}"
    return Query(resources.SECRETS, shapes.secret, key.namespace, fields, consistent=True)


def secrets_of(policy: Policy) -> Iterator[PodKey]:
    """The secrets that headers of a policy's rules name."""
    for rule in policy.rules:
        for clause in (*rule.ingress, *rule.egress):
            for entry in clause.to_ports:
                for secret_rule in entry.secret_rules:
                    for expected in secret_rule.expects:
                        if isinstance(expected, SecretHeader):
                            yield PodKey(expected.namespace, expected.secret)
