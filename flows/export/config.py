"""Which exporters there are: Hubble's static keys and its dynamic file. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flow import flow_pb2
from google.protobuf import json_format
from observer import observer_pb2

from flows.filters import compile_filters
from flows.gotime import DURATION, duration_ns
from flows.mask import Mask, MaskError
from flows.predicates import FilterError

STDOUT: Final = "stdout"
MAX_SIZE_MB: Final = 10
MAX_BACKUPS: Final = 5
STATIC: Final = "static"  # the name of the exporter that the command line configures
_FIELDS: Final = frozenset(
    (
        *("name", "filePath", "fieldMask", "includeFilters", "excludeFilters", "fileMaxSizeMb", "fileMaxBackups"),
        *("fileCompress", "fieldAggregate", "aggregationInterval", "end"),
    )
)


class ExportConfigError(ValueError):
    """A configuration that cannot be used; one line that says where and what to do."""


@dataclass(frozen=True, slots=True)
class FileSpec:
    """Where lines go: a path that is rotated at `max_bytes` (0: never) and keeps `backups`, or "stdout"."""

    path: str
    max_bytes: int = MAX_SIZE_MB << 20
    backups: int = MAX_BACKUPS
    compress: bool = False


@dataclass(frozen=True, slots=True)
class ExporterSpec:
    """One exporter. Filters are serialised; masks are sets, so that their order makes no difference.

    `aggregate` and `interval` (seconds) are used only together; `mask` is not applied then. `end`: Unix time in ns
    after which nothing is written any more.
    """

    name: str
    file: FileSpec
    include: frozenset[bytes] = frozenset()
    exclude: frozenset[bytes] = frozenset()
    mask: frozenset[str] = frozenset()
    aggregate: frozenset[str] = frozenset()
    interval: float = 0.0
    end: int | None = None

    @property
    def aggregates(self) -> bool:
        return bool(self.aggregate) and self.interval > 0

    def request(self) -> observer_pb2.GetFlowsRequest:
        """What it asks of the ring: everything from now on that passes its filters."""
        request = observer_pb2.GetFlowsRequest(follow=True)
        request.whitelist.extend(flow_pb2.FlowFilter.FromString(wire) for wire in sorted(self.include))
        request.blacklist.extend(flow_pb2.FlowFilter.FromString(wire) for wire in sorted(self.exclude))
        if not self.aggregates:
            request.field_mask.paths.extend(sorted(self.mask))
        return request


def static(
    file: FileSpec,
    *,
    allow: str = "",
    deny: str = "",
    mask: str = "",
    aggregate: str = "",
    interval: str = "0s",
) -> ExporterSpec:
    """The exporter of the command line. Filters are JSON objects with white space between them; paths are separated by
    spaces or commas. Raises ExportConfigError."""
    spec = ExporterSpec(
        STATIC,
        file,
        frozenset(_filter(item, "allowlist") for item in _json_values(allow, "allowlist")),
        frozenset(_filter(item, "denylist") for item in _json_values(deny, "denylist")),
        frozenset(_words(mask)),
        frozenset(_words(aggregate)),
        _interval(interval, "aggregation interval"),
    )
    return _checked(spec, STATIC)


def parse_file(document: Any) -> tuple[ExporterSpec, ...]:
    """The dynamic file, as it was read from YAML; exporters by name. Raises ExportConfigError."""
    if document is None:
        return ()
    entries = document.get("flowLogs") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ExportConfigError("the file must be a mapping with a list `flowLogs`")
    specs = [_exporter(entry, f"flowLogs[{i}]") for i, entry in enumerate(entries)]
    for what, values in (("name", [s.name for s in specs]), ("filePath", [s.file.path for s in specs])):
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ExportConfigError(f'two flowLogs have the {what} "{twice[0]}"')
    return tuple(sorted(specs, key=lambda spec: spec.name))


def _exporter(entry: Any, where: str) -> ExporterSpec:
    if not isinstance(entry, dict):
        raise ExportConfigError(f"{where}: must be a mapping")
    if unknown := sorted(map(str, entry.keys() - _FIELDS)):
        raise ExportConfigError(f"{where}: unknown field {unknown[0]}")
    name, path = (_typed(entry, field, str, "", where) for field in ("name", "filePath"))
    if not name or not path:
        raise ExportConfigError(f"{where}: name and filePath are required")
    size = _typed(entry, "fileMaxSizeMb", int, 0, where) or MAX_SIZE_MB
    backups = _typed(entry, "fileMaxBackups", int, 0, where) or MAX_BACKUPS
    if size < 0 or backups < 0:
        raise ExportConfigError(f"{where}: sizes and numbers of files are not negative")
    file = FileSpec(path, size << 20, backups, _typed(entry, "fileCompress", bool, False, where))
    include, exclude = (
        frozenset(
            _filter(item, f"{where}.{field}[{i}]") for i, item in enumerate(_typed(entry, field, list, [], where))
        )
        for field in ("includeFilters", "excludeFilters")
    )
    interval = _interval(_typed(entry, "aggregationInterval", str, "0s", where), f"{where}.aggregationInterval")
    mask, aggregate = (_paths(entry, field, where) for field in ("fieldMask", "fieldAggregate"))
    return _checked(ExporterSpec(name, file, include, exclude, mask, aggregate, interval, _end(entry, where)), where)


def _checked(spec: ExporterSpec, where: str) -> ExporterSpec:
    request = spec.request()
    try:
        compile_filters(request.whitelist, request.blacklist)
        Mask(spec.mask)
        Mask(spec.aggregate)
    except (FilterError, MaskError) as error:
        raise ExportConfigError(f"{where}: {error}") from None
    return spec


def _typed(entry: Mapping[str, Any], field: str, kind: type, default: Any, where: str) -> Any:
    value = entry.get(field)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ExportConfigError(f"{where}.{field}: must be of type {kind.__name__}")
    return value


def _paths(entry: Mapping[str, Any], field: str, where: str) -> frozenset[str]:
    paths = _typed(entry, field, list, [], where)
    if not all(isinstance(path, str) for path in paths):
        raise ExportConfigError(f"{where}.{field}: must be a list of strings")
    return frozenset(paths)


def _end(entry: Mapping[str, Any], where: str) -> int | None:
    value = entry.get("end")
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ExportConfigError(f'{where}.end: "{value}" is no RFC 3339 time') from None
    if moment.tzinfo is None:
        raise ExportConfigError(f"{where}.end: must say its time zone")
    return round(moment.timestamp() * 1e9)


def _interval(text: str, where: str) -> float:
    if text == "0":
        return 0.0
    if not DURATION.match(text) or duration_ns(text) < 0:
        raise ExportConfigError(f'{where}: "{text}" is no duration: 30s and 1m30s are')
    return duration_ns(text) / 1e9


def _filter(item: Any, where: str) -> bytes:
    try:
        wire: bytes = json_format.ParseDict(item, flow_pb2.FlowFilter()).SerializeToString(deterministic=True)
    except (json_format.ParseError, TypeError, AttributeError, ValueError) as error:
        raise ExportConfigError(f"{where}: no flow filter: {' '.join(str(error).split())}") from None
    return wire


def _json_values(text: str, where: str) -> Iterable[Any]:
    decoder, at = json.JSONDecoder(), 0
    text = text.strip()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise ExportConfigError(f"{where}: must be JSON filters with spaces between them: {error}") from None
        yield value
        at += len(text[at:]) - len(text[at:].lstrip())


def _words(text: str) -> Sequence[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]
