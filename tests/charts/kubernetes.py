"""Kubernetes' own schemas of its objects, strict: a field that it does not know is a fault."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.charts.chart import Object

OLDEST, NEWEST = "1.26", "1.37"  # Chart.yaml says what the oldest is
OF_OTHERS = ("Certificate", "ServiceMonitor")  # kinds that Kubernetes has no schema of


def validate(made: Object, version: str = NEWEST) -> None:
    """Raises jsonschema.ValidationError."""
    if made["kind"] not in OF_OTHERS:
        _validator(made["apiVersion"], made["kind"], version).validate(made)


@cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator:
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], number) if part)
    return Draft202012Validator(_read(f"{name}.json", version), registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry[Object]:
    whole: Resource[Object] = Resource.from_contents(_read("_definitions.json", version))
    return whole @ Registry()


def _read(name: str, version: str) -> Object:
    folder = files("kubernetes_validate") / f"kubernetes-json-schema/v{version}.0-local-strict"
    found: Object = json.loads((folder / name).read_text())
    return found
