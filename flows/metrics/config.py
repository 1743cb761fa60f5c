"""Which metrics, with which options: Hubble's one-line form and its dynamic file. Pure.

`hubble-metrics` is a list of `name[:option[=value[|value]][;option...]]`; the dynamic file says the same as YAML and
adds filters. An unknown metric is a warning, as in Hubble; an unknown option is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flow import flow_pb2
from google.protobuf import json_format

from flows.metrics.context import LABELS_CONTEXT, is_option

# metric -> its own options
METRICS: Final[dict[str, tuple[str, ...]]] = {
    "dns": ("query", "ignoreAAAA"),
    "drop": (),
    "tcp": (),
    "flow": (),
    "port-distribution": (),
    "icmp": (),
    "http": ("exemplars",),
    "httpV2": ("exemplars",),
    "kafka": (),
    "flows-to-world": ("any-drop", "port", "syn-only"),
    "policy": (),
}


class MetricsConfigError(ValueError):
    """A configuration that cannot be used; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. `contexts`: context option -> values; `options`: its own, switched on; filters as serialised."""

    name: str
    contexts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    options: frozenset[str] = frozenset()
    include: tuple[bytes, ...] = ()
    exclude: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Metrics in order, each name once, and what was passed over."""

    metrics: tuple[MetricSpec, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)


def parse_line(text: str) -> MetricsConfig:
    """The one-line form. Raises MetricsConfigError."""
    specs, warnings = [], []
    for word in text.split():
        name, _, rest = word.partition(":")
        if name not in METRICS:
            warnings.append(f'metric "{name}" is unknown and passed over: known are {", ".join(METRICS)}')
            continue
        options = {}
        for option in filter(None, rest.split(";")):
            key, _, value = option.partition("=")
            separator = "," if key.lower() == LABELS_CONTEXT else "|"
            options[key] = tuple(v for v in value.split(separator) if v)
        specs.append(_spec(name, options))
    return _checked(specs, warnings)


def parse_file(document: Any) -> MetricsConfig:
    """The dynamic form: `metrics: [{name, contextOptions: [{name, values}], includeFilters, excludeFilters}]`, as it
    was read from YAML. Raises MetricsConfigError."""
    if document is None:
        return MetricsConfig()
    entries = document.get("metrics") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise MetricsConfigError("the file must be a mapping with a list `metrics`")
    specs, warnings = [], []
    for i, entry in enumerate(entries):
        where = f"metrics[{i}]"
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise MetricsConfigError(f"{where}: must be a mapping with a name")
        if unknown := sorted(entry.keys() - {"name", "contextOptions", "includeFilters", "excludeFilters"}):
            raise MetricsConfigError(f"{where}: unknown field {unknown[0]}")
        if name not in METRICS:
            warnings.append(f'metric "{name}" is unknown and passed over: known are {", ".join(METRICS)}')
            continue
        spec = _spec(name, _context_options(entry.get("contextOptions"), where))
        include = _filters(entry.get("includeFilters"), f"{where}.includeFilters")
        exclude = _filters(entry.get("excludeFilters"), f"{where}.excludeFilters")
        specs.append(MetricSpec(spec.name, spec.contexts, spec.options, include, exclude))
    return _checked(specs, warnings)


def _spec(name: str, options: Mapping[str, tuple[str, ...]]) -> MetricSpec:
    own = {option.lower(): option for option in METRICS[name]}
    contexts, switched = [], set()
    for option, values in options.items():
        if is_option(option):
            contexts.append((option, values))
        elif option.lower() in own:
            if values not in ((), ("true",), ("false",)):
                raise MetricsConfigError(f'{name}: {option} is either on or off, not "{"|".join(values)}"')
            if values != ("false",):
                switched.add(own[option.lower()])
        else:
            known = ", ".join(METRICS[name]) or "none of its own"
            raise MetricsConfigError(f'{name}: unknown option "{option}" (options: {known}, and the context options)')
    return MetricSpec(name, tuple(sorted(contexts)), frozenset(switched))


def _checked(specs: Sequence[MetricSpec], warnings: Sequence[str]) -> MetricsConfig:
    names = [spec.name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MetricsConfigError(f"{twice[0]} is configured twice")
    if {"http", "httpV2"} <= set(names):
        raise MetricsConfigError("http and httpV2 share their names: configure one of them")
    return MetricsConfig(tuple(specs), tuple(warnings))


def _context_options(raw: Any, where: str) -> dict[str, tuple[str, ...]]:
    if raw is None:
        return {}
    options = {}
    for i, option in enumerate(raw if isinstance(raw, list) else [raw]):
        here = f"{where}.contextOptions[{i}]"
        name = option.get("name") if isinstance(option, dict) else None
        values = option.get("values") if isinstance(option, dict) else None
        values = [] if values is None else values
        if not isinstance(name, str) or not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise MetricsConfigError(f"{here}: must be {{name: ..., values: [...]}} of strings")
        separator = "," if name.lower() == LABELS_CONTEXT else "|"
        options[name] = tuple(part for value in values for part in value.split(separator) if part)
    return options


def _filters(raw: Any, where: str) -> tuple[bytes, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise MetricsConfigError(f"{where}: must be a list of flow filters")
    found = []
    for i, item in enumerate(raw):
        try:
            found.append(json_format.ParseDict(item, flow_pb2.FlowFilter()).SerializeToString())
        except (json_format.ParseError, TypeError, AttributeError) as error:
            raise MetricsConfigError(f"{where}[{i}]: {' '.join(str(error).split())}") from None
    return tuple(found)
