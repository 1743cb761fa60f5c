"""The folder of Kubernetes manifests that a node is pointed at: what the API server would tell it.

Touches that folder only. Files appear, change and go as a whole (written aside, then renamed).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conformance.blueprint import Blueprint
from conformance.objects import namespace_object, node_objects, pod_object, service_objects

POLICY_PREFIX = "policy-"


@dataclass(frozen=True, slots=True)
class ManifestFolder:
    """A folder whose files are written and removed atomically."""

    root: Path

    def populate(self, blueprint: Blueprint) -> None:
        """Write everything but policies."""
        self.root.mkdir(parents=True, exist_ok=True)
        namespaces = [namespace_object(name, labels) for name, labels in blueprint.namespaces.items()]
        self.write("namespaces.yaml", to_yaml(namespaces))
        self.write("pods.yaml", to_yaml(pod_object(pod) for pod in blueprint.pods))
        self.write("services.yaml", to_yaml(o for service in blueprint.services for o in service_objects(service)))
        more: dict[str, list[Mapping[str, Any]]] = {
            "nodes.yaml": list(node_objects(blueprint)),
            "objects.yaml": list(blueprint.objects),
        }
        for name, objects in more.items():
            if objects:
                self.write(name, to_yaml(objects))

    def write(self, name: str, text: str) -> None:
        """Make or replace one file. The new content is seen whole or not at all."""
        aside = self.root / f".{name}.new"
        aside.write_text(text)
        os.replace(aside, self.root / name)

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def digests(self) -> dict[str, str]:
        """sha256 (hex) of each file, by name."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.root.iterdir())
            if not path.name.startswith(".")
        }

    def policies(self) -> list[str]:
        """Names of the policy files."""
        return sorted(name for name in self.digests() if name.startswith(POLICY_PREFIX))


def policy_file(name: str) -> str:
    """The file that holds the policy of that name."""
    return f"{POLICY_PREFIX}{name}.yaml"


def to_yaml(objects: Iterable[Mapping[str, Any]]) -> str:
    """YAML documents, keys in the order given, no aliases."""
    return "---\n".join(yaml.dump(dict(o), Dumper=_Plain, sort_keys=False, default_flow_style=False) for o in objects)


class _Plain(yaml.SafeDumper):
    """Kubernetes tools print no anchors, and people do not like them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
