"""Makes l7proxy/kafka/messages.txt of what kio knows: when a new Kafka has new versions, not in a build.

    python tables_from_kio.py dump > new.json            once with each release of kio that is needed: the current one,
    python tables_from_kio.py dump > old.json            and 0.6.1, the last with the versions that Kafka 4.0 removed
    python tables_from_kio.py merge new.json old.json    what the first knows of a version is taken from it

kio's classes are one per version; the table has each field once, with the versions that it is in.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

# kio's names of types whose wire form is a plain number
PLAIN = {
    "error_code": "int16",
    "timedelta_i32": "int32",
    "timedelta_i64": "int64",
    "datetime_i64": "int64",
}
NUMBERS = {"bool", "int8", "int16", "uint16", "int32", "uint32", "int64", "float64"}


def dump() -> dict[str, Any]:
    """{key: {"name", "request": {version: fields}, "response": ..., "flexible": first version}}."""
    import kio.schema
    from kio.schema.index import api_key_map

    root = Path(str(kio.schema.__file__)).parent
    apis: dict[str, Any] = {}
    for key, name in sorted(api_key_map.items()):
        api: dict[str, Any] = {"name": name, "flexible": None, "request": {}, "response": {}}
        for version in sorted(int(path.name[1:]) for path in (root / name).glob("v*")):
            for kind in ("request", "response"):
                module = importlib.import_module(f"kio.schema.{name}.v{version}.{kind}")
                made = getattr(module, "".join(word.capitalize() for word in name.split("_")) + kind.capitalize())
                api[kind][version] = _fields(made)
                if made.__flexible__ and api["flexible"] is None:
                    api["flexible"] = version
        apis[str(key)] = api
    return apis


def _fields(entity: Any) -> list[dict[str, Any]]:
    from kio.serial._introspect import EntityField, EntityTupleField, classify_field

    found = []
    for field in dataclasses.fields(entity):
        kind = classify_field(field)
        is_struct = isinstance(kind, EntityField | EntityTupleField)
        entry: dict[str, Any] = {"name": field.name, "array": kind.is_array, "nullable": _nullable(field)}
        entry["type"] = "" if is_struct else PLAIN.get(field.metadata["kafka_type"], field.metadata["kafka_type"])
        entry["tag"] = field.metadata.get("tag")
        entry["default"] = _default(field, "" if kind.is_array else entry["type"])
        if not kind.is_array and entry["type"] in {*NUMBERS, "uuid"}:
            entry["nullable"] = False  # kio says None for a time of -1, and for the id that is all zeroes
        if is_struct:
            entry["fields"] = _fields(kind.type_)
        found.append(entry)
    return found


def _nullable(field: Any) -> bool:
    return type(None) in getattr(field.type, "__args__", ())


def _default(field: Any, kafka_type: str) -> str:
    import datetime

    value = field.default
    if value is dataclasses.MISSING:
        return ""
    if value is None:
        return "" if kafka_type == "uuid" else "-1" if kafka_type in NUMBERS else "null"
    if isinstance(value, datetime.timedelta):
        value = round(value.total_seconds() * 1000)
    if isinstance(value, bool):
        return "true" if value else ""
    if isinstance(value, int | float):
        return str(int(value)) if value else ""
    return ""  # an empty text, list or struct


def merge(news: dict[str, Any], olds: dict[str, Any]) -> str:
    """The table."""
    lines = ["# Made by tests/l7proxy/kafka/tables_from_kio.py. What the columns mean: l7proxy/kafka/schema.py"]
    for key in sorted(news | olds, key=int):
        new, old = news.get(key), olds.get(key)
        name = (new or old)["name"]
        flexible = min((a["flexible"] for a in (new, old) if a and a["flexible"] is not None), default=None)
        versions = {
            kind: {int(v): f for api in (old, new) if api for v, f in api[kind].items()}
            for kind in ("request", "response")
        }
        last = max(versions["request"])
        assert sorted(versions["request"]) == list(range(last + 1)), (name, sorted(versions["request"]))
        lines.append(f"{key} {name} 0-{last} flexible {'never' if flexible is None else flexible}")
        for kind in ("request", "response"):
            lines.append(f"  {kind}")
            lines += _struct(versions[kind], last, 4)
    return "\n".join(lines) + "\n"


def _struct(versions: dict[int, list[dict[str, Any]]], last: int, indent: int) -> list[str]:
    lines = []
    for name, form, among in _order(versions):
        cases = {v: next((f for f in fs if (f["name"], _form(f)) == (name, form)), None) for v, fs in versions.items()}
        present = {v: f for v, f in cases.items() if f is not None}
        column = [name, form, _range(set(present), last)]
        nullable = {v for v, f in present.items() if f["nullable"]}
        if nullable:
            column.append("null" if nullable == set(present) else f"null:{_range(nullable, last)}")
        if among is not None:
            column.append(f"tag:{among}")
        default = present[max(present)]["default"]
        if default:
            column.append(f"={default}")
        lines.append(" " * indent + " ".join(column))
        if form in ("[]", "{}"):
            lines += _struct({v: f["fields"] for v, f in present.items()}, last, indent + 2)
    return lines


def _form(field: dict[str, Any]) -> str:
    if field["type"]:
        return ("[]" if field["array"] else "") + str(field["type"])
    return "[]" if field["array"] else "{}"


def _order(versions: dict[int, list[dict[str, Any]]]) -> list[tuple[str, str, int | None]]:
    """Every field once, newest order first; an older one behind the field that it came after."""
    found: list[tuple[str, str, int | None]] = []
    for version in sorted(versions, reverse=True):
        at = 0
        for field in versions[version]:
            entry = (field["name"], _form(field), field["tag"])
            if entry in found:
                at = found.index(entry) + 1
            else:
                found.insert(at, entry)
                at += 1
    return found


def _range(versions: set[int], last: int) -> str:
    first, end = min(versions), max(versions)
    assert versions == set(range(first, end + 1)), versions
    return f"{first}+" if end == last else f"{first}-{end}"


if __name__ == "__main__":
    if sys.argv[1] == "dump":
        json.dump(dump(), sys.stdout)
    else:
        sys.stdout.write(merge(*(json.loads(Path(name).read_text()) for name in sys.argv[2:4])))
