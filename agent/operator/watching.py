"""What the operator follows at the API server, and in which shape; sinks that pass on what is told. No effects of its
own: agent.cluster.list_watch does the asking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agent.cluster import resources, shapes
from agent.cluster.list_watch import Query
from agent.cluster.resources import Resource
from policies.objects import PodKey

Raw = dict[str, Any]
_WHOLE: Final = msgspec.json.Decoder()


def policy(raw: bytes | msgspec.Raw) -> Raw:
    """A policy as its reader wants it, and apart from that what its status says of our conditions."""
    found: Raw = _WHOLE.decode(raw)
    if not isinstance(found, dict):
        raise msgspec.DecodeError("an object must be a mapping")
    status = found.pop("status", None)
    meta = found.get("metadata")
    if isinstance(meta, dict):
        for name in ("managedFields", "annotations", "selfLink"):
            meta.pop(name, None)
    conditions = status.get("conditions") if isinstance(status, dict) else None
    found["status"] = {"conditions": conditions if isinstance(conditions, list) else []}
    return found


def everything(raw: bytes | msgspec.Raw) -> Raw:
    """All of it, but what servers keep for themselves."""
    found: Raw = _WHOLE.decode(raw)
    if not isinstance(found, dict):
        raise msgspec.DecodeError("an object must be a mapping")
    if isinstance(found.get("metadata"), dict):
        found["metadata"].pop("managedFields", None)
    return found


POLICY_QUERIES: Final = (
    Query(resources.CILIUM_POLICIES, policy, consistent=True),
    Query(resources.CILIUM_CLUSTER_POLICIES, policy, consistent=True),
    Query(resources.NETWORK_POLICIES, policy, consistent=True),
)
REPORTS: Final = Query(resources.DEFLECTOR_NODES, everything, consistent=True)
NODES: Final = Query(resources.NODES, shapes.metadata, consistent=True)
PODS: Final = Query(resources.PODS, shapes.metadata, consistent=True)
IDENTITIES: Final = Query(resources.CILIUM_IDENTITIES, everything, consistent=True)
ENDPOINTS: Final = Query(resources.CILIUM_ENDPOINTS, everything, consistent=True)
SLICES: Final = Query(resources.CILIUM_ENDPOINT_SLICES, everything, consistent=True)
QUERIES: Final = (*POLICY_QUERIES, REPORTS, NODES, PODS, IDENTITIES, ENDPOINTS, SLICES)


@dataclass(slots=True)
class Told:
    """agent.cluster.list_watch.Sink: passes everything on, and knows whether all was told once."""

    resource: Resource
    on_update: Callable[[PodKey, Raw], None]
    on_gone: Callable[[PodKey], None]
    on_listed: Callable[[Resource], None]
    on_trouble: Callable[[Resource, str], None]

    def upsert(self, key: PodKey, raw: Raw) -> None:
        self.on_update(key, raw)

    def gone(self, key: PodKey) -> None:
        self.on_gone(key)

    def listed(self) -> None:
        self.on_listed(self.resource)

    def trouble(self, words: str) -> None:
        self.on_trouble(self.resource, words)
