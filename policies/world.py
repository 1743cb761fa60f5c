"""What a node knows of the cluster at one moment: an immutable view, swapped whole. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.objects import (
    CidrGroup,
    EndpointSlice,
    Identity,
    Namespace,
    Node,
    ObjectKey,
    Pod,
    PodKey,
    Secret,
    Service,
)
from policies.rules import Policy


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Objects by kind. A mapping that did not change is the same mapping as in the view before: compare with `is`."""

    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    pods: Mapping[PodKey, Pod] = field(default_factory=dict)
    services: Mapping[PodKey, Service] = field(default_factory=dict)
    slices: Mapping[PodKey, EndpointSlice] = field(default_factory=dict)
    policies: Mapping[ObjectKey, Policy] = field(default_factory=dict)
    cidr_groups: Mapping[str, CidrGroup] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    secrets: Mapping[PodKey, Secret] = field(default_factory=dict)
    identities: Mapping[str, Identity] = field(default_factory=dict)  # agreed ones, by their number as written
