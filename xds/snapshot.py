"""An immutable world: every resource that is served at one moment, by type and name.

Pure. A type's version is the hash of its resources' versions: content hash plus epoch. Opaque, equality only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xds.resources import Key, Resource

_NOTHING: Mapping[str, Resource] = {}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`by_type` maps type URL to name to resource; both sorted. Made by `snapshot`."""

    by_type: Mapping[str, Mapping[str, Resource]]

    def of_type(self, type_url: str) -> Mapping[str, Resource]:
        return self.by_type.get(type_url, _NOTHING)

    def get(self, key: Key) -> Resource | None:
        return self.of_type(key.type_url).get(key.name)

    def problems(self) -> list[str]:
        """What some resource refers to and is not there; empty for a consistent world."""
        return [
            f"{resource.key.name}: refers to {key.name} ({key.type_url}), which is not in the snapshot"
            for resources in self.by_type.values()
            for resource in resources.values()
            for key in resource.refers
            if self.get(key) is None
        ]


def snapshot(resources: Iterable[Resource]) -> Snapshot:
    """A world of these resources."""
    by_type: dict[str, dict[str, Resource]] = {}
    for resource in sorted(resources, key=lambda r: r.key):
        by_type.setdefault(resource.key.type_url, {})[resource.key.name] = resource
    return Snapshot(by_type)


def version_of(resources: Iterable[Resource]) -> str:
    """One version for several resources: the same content and epochs give the same version."""
    text = "\n".join(f"{r.key.name}={r.version}" for r in sorted(resources, key=lambda r: r.key))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
