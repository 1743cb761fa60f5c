"""Definitions of the kinds that are read and written here, for clusters that have none: Cilium's, and our own. Pure.

They take every object that Cilium's take. What they do not know they keep: an API server that drops a misspelt field
would turn a policy into another one in silence, while our reader refuses it with its path (docs/policies.md).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from agent.crds.endpoints import ENDPOINT_SLICES, ENDPOINTS, IDENTITIES
from agent.crds.nodes import NODES
from agent.crds.policies import CIDR_GROUPS, CLUSTERWIDE_POLICIES, POLICIES

OWNER: Final = "app.kubernetes.io/managed-by"  # label of definitions that we have installed
OURS: Final = "deflector"
DIGEST: Final = "deflector/definition"  # annotation: other definition, other digest
_ALL: Final = (CIDR_GROUPS, CLUSTERWIDE_POLICIES, ENDPOINTS, ENDPOINT_SLICES, IDENTITIES, NODES, POLICIES)


def manifests() -> tuple[dict[str, Any], ...]:
    """The CustomResourceDefinition objects, by name. One that is there without our label is somebody else's."""
    made = []
    for spec in _ALL:
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
        metadata = {
            "name": f"{spec['names']['plural']}.{spec['group']}",
            "labels": {OWNER: OURS, "app.kubernetes.io/part-of": OURS},
            "annotations": {DIGEST: digest},
        }
        made.append(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": metadata,
                "spec": spec,
            }
        )
    return tuple(sorted(made, key=lambda item: str(item["metadata"]["name"])))
