"""Definitions of the kinds that agents use, for a server that has none: as loose as can be, but for what tests are
about (scope, status subresource, pruned fields). Where a cluster has Cilium's own, those are used."""

from __future__ import annotations

from typing import Any

from agent.cluster import resources
from agent.cluster.resources import Resource

ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
SCHEMAS: dict[str, dict[str, Any]] = {
    "CiliumIdentity": {"type": "object", "properties": {"security-labels": LABELS}},
    "CiliumEndpoint": {"type": "object", "properties": {"status": ANYTHING}},
}
NEEDED = (
    resources.CILIUM_POLICIES,
    resources.CILIUM_CLUSTER_POLICIES,
    resources.CILIUM_CIDR_GROUPS,
    resources.CILIUM_IDENTITIES,
    resources.CILIUM_ENDPOINTS,
    resources.CILIUM_ENDPOINT_SLICES,
)


def definition(resource: Resource) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind."""
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": SCHEMAS.get(resource.kind, ANYTHING)},
        "subresources": {"status": {}},
    }
    if resource.kind in ("CiliumIdentity", "CiliumCIDRGroup", "CiliumEndpoint", "CiliumEndpointSlice"):
        del version["subresources"]
    names = {"kind": resource.kind, "plural": resource.plural, "singular": resource.kind.lower()}
    spec = {
        "group": resource.group,
        "names": {**names, "listKind": f"{resource.kind}List"},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "versions": [version],
    }
    return {"metadata": {"name": f"{resource.plural}.{resource.group}"}, "spec": spec}
