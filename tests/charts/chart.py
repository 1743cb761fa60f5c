"""The chart as Helm itself renders it: by file, as objects, and with what is random in it named instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/deflector"
NAMESPACE = "deflector-system"
RELEASE = "shield"  # names must not depend on it
Values = Mapping[str, Any]
Object = dict[str, Any]

MADE = re.compile(r"^(\s+(?:tls\.crt|tls\.key|ca\.crt|deflector/renew-after): ).+$", re.M)


@cache
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def render(values: Values | None = None, *, namespace: str = NAMESPACE) -> dict[str, str]:
    """Rendered text by template, e.g. `agent/daemonset.yaml`; templates that render nothing are left out."""
    made = chart().render(dict(values or {}), name=RELEASE, namespace=namespace)
    short = {path.removeprefix("deflector/templates/"): text for path, text in made.items()}
    return {path: text.strip() + "\n" for path, text in sorted(short.items()) if text.strip()}


def objects(values: Values | None = None) -> list[Object]:
    """Every object that an install would make."""
    return [made for path, text in render(values).items() if path != "NOTES.txt" for made in parsed(text)]


def parsed(text: str) -> Iterator[Object]:
    yield from (made for made in yaml.safe_load_all(text) if made)


def one(kind: str, name: str, values: Values | None = None) -> Object:
    """The object of this kind and name."""
    found = [made for made in objects(values) if (made["kind"], made["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name}"
    return found[0]


def pod_specs(values: Values | None = None) -> dict[str, Object]:
    """The pods that an install would run, by name of what makes them."""
    found = {}
    for made in objects(values):
        if made["kind"] in ("DaemonSet", "Deployment"):
            found[made["metadata"]["name"]] = made["spec"]["template"]["spec"]
        elif made["kind"] == "Pod":
            found[made["metadata"]["name"]] = made["spec"]
    return found


def containers(values: Values | None = None) -> dict[str, Object]:
    """Every container, those that come first included, by `pod/container`."""
    return {
        f"{pod}/{container['name']}": container
        for pod, spec in pod_specs(values).items()
        for container in [*spec.get("initContainers", ()), *spec["containers"]]
    }


def without_secrets(text: str) -> str:
    """Certificates and times are other ones each time."""
    return MADE.sub(r"\1<made>", text)


def defaults() -> Object:
    values: Object = yaml.safe_load((CHART / "values.yaml").read_text())
    return values


def at(path: str, value: Any, below: Values | None = None) -> Object:
    """Values with `value` at `path` (`hubble.tls.method`), on top of those of `below`."""
    made = deepcopy(dict(below or {}))
    *folders, leaf = path.split(".")
    place = made
    for folder in folders:
        place = place.setdefault(folder, {})
    place[leaf] = value
    return made
