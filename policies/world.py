"""What a node knows of the cluster at one moment: an immutable view, swapped whole. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.crd import CiliumNetworkPolicy
from policies.objects import EndpointSlice, Namespace, Pod, PodKey, Service


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Objects by kind. A mapping that did not change is the same mapping as in the view before: compare with `is`."""

    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    pods: Mapping[PodKey, Pod] = field(default_factory=dict)
    services: Mapping[PodKey, Service] = field(default_factory=dict)
    slices: Mapping[PodKey, EndpointSlice] = field(default_factory=dict)
    policies: Mapping[PodKey, CiliumNetworkPolicy] = field(default_factory=dict)
