"""Words in which definitions are written: types of OpenAPI as API servers want them, and the frame around. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "integer"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
LABELS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}


def several(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def known(about: str = "", /, *, required: Sequence[str] = (), **properties: Schema) -> Schema:
    """An object with these fields, and whatever others it has. Underscores stand for dashes, and at the end for nothing
    (a word of Python)."""
    made: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if about:
        made["description"] = about
    if properties:
        made["properties"] = {name.rstrip("_").replace("_", "-"): schema for name, schema in properties.items()}
    if required:
        made["required"] = list(required)
    return made


CONDITIONS: Final[Schema] = {
    **several(
        known(
            required=("type", "status"),
            type=TEXT,
            status={"type": "string", "enum": ["True", "False", "Unknown"]},
            reason=TEXT,
            message=TEXT,
            lastTransitionTime=TIME,
            observedGeneration=NUMBER,
        )
    ),
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
}


@dataclass(frozen=True, slots=True)
class Column:
    """What `kubectl get` shows; `wide` ones only with -o wide."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False

    def schema(self) -> Schema:
        made: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return {**made, "priority": 1} if self.wide else made


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a kind. Of those that are served, one is stored."""

    name: str
    root: Schema
    columns: tuple[Column, ...] = ()
    has_status: bool = False  # /status is an address of its own
    deprecated: bool = False

    def schema(self, stored: bool) -> Schema:
        fields = {"apiVersion": TEXT, "kind": TEXT, "metadata": {"type": "object"}}
        root = {**self.root, "properties": {**fields, **self.root.get("properties", {})}}
        made: Schema = {"name": self.name, "served": True, "storage": stored, "schema": {"openAPIV3Schema": root}}
        if self.columns:
            made["additionalPrinterColumns"] = [column.schema() for column in self.columns]
        if self.has_status:
            made["subresources"] = {"status": {}}
        if self.deprecated:
            made["deprecated"] = True
        return made


def definition(
    kind: str,
    plural: str,
    short: Sequence[str],
    scope: str,
    versions: Sequence[Version],
    also: Sequence[str] = (),
    *,
    group: str = "cilium.io",
) -> Mapping[str, Any]:
    """The spec of a definition; the first version is stored. `also`: more categories."""
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": list(short),
        "categories": [group.partition(".")[0], *also],
    }
    made = [version.schema(stored=version is versions[0]) for version in versions]
    return {"group": group, "names": names, "scope": scope, "versions": made}
