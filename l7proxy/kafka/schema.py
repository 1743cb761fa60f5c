"""Kafka's messages as data: which fields each version of a request or response has. Pure; the table is messages.txt.

    KEY NAME 0-LAST flexible FIRST     an API, its versions, and the first with compact types and tagged fields
      request | response
        NAME TYPE VERSIONS [null[:VERSIONS]] [tag:NUMBER] [=DEFAULT]

Types are those of the protocol; `[]type` is an array, `[]` an array of structs and `{}` a struct, whose fields follow,
indented. `null`: may be null in these versions (all, if none are named). Versions are FIRST+ or FIRST-LAST.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

NEWEST: Final = 32767  # above every version
ARRAY: Final = "[]"
STRUCT: Final = "{}"
_INDENT: Final = 2


class Versions(NamedTuple):
    """First to last, both included."""

    first: int
    last: int

    def __contains__(self, version: object) -> bool:
        return isinstance(version, int) and self.first <= version <= self.last


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    type: str
    versions: Versions
    null: Versions | None
    tag: int | None
    default: Any
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Api:
    """One API: its rows, and what versions there are."""

    key: int
    name: str
    last: int
    flexible: int  # first flexible version; above `last` if there is none
    request: tuple[Row, ...]
    response: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A field in one version. `struct` is that of a struct, or of the elements of an array of structs."""

    name: str
    type: str
    nullable: bool
    default: Any
    struct: Struct | None = None


@dataclass(frozen=True, slots=True)
class Struct:
    """Fields in one version, in their order; tagged ones by their numbers."""

    flexible: bool
    fields: tuple[Field, ...]
    tagged: dict[int, Field]

    def field(self, name: str) -> Field | None:
        """The untagged field of that name, if this version has it."""
        return next((field for field in self.fields if field.name == name), None)


def apis() -> dict[int, Api]:
    """Every API that is known, by its key."""
    return _APIS


def api(key: int) -> Api | None:
    """The API of that key, if it is known."""
    return _APIS.get(key)


def is_known(key: int, version: int) -> bool:
    """Whether there is a table for that version."""
    found = _APIS.get(key)
    return found is not None and 0 <= version <= found.last


def is_flexible(key: int, version: int) -> bool:
    """Whether the version has compact types and tagged fields. KeyError for an unknown API."""
    return version >= _APIS[key].flexible


@lru_cache(1024)
def request(key: int, version: int) -> Struct:
    """The body of a request. KeyError for what is not known."""
    return _struct(_known(key, version).request, version, is_flexible(key, version))


@lru_cache(1024)
def response(key: int, version: int) -> Struct:
    """The body of a response. KeyError for what is not known."""
    return _struct(_known(key, version).response, version, is_flexible(key, version))


def _known(key: int, version: int) -> Api:
    if not is_known(key, version):
        raise KeyError((key, version))
    return _APIS[key]


def _struct(rows: tuple[Row, ...], version: int, flexible: bool) -> Struct:
    fields: list[Field] = []
    tagged: dict[int, Field] = {}
    for row in rows:
        if version not in row.versions:
            continue
        inner = _struct(row.rows, version, flexible) if row.type in (ARRAY, STRUCT) else None
        nullable = row.null is not None and version in row.null
        field = Field(row.name, row.type, nullable, _default(row, inner, nullable), inner)
        if row.tag is None:
            fields.append(field)
        else:
            tagged[row.tag] = field
    return Struct(flexible, tuple(fields), dict(sorted(tagged.items())))


_EMPTY: Final[dict[str, Any]] = {
    "string": "", "bytes": b"", "records": b"", "bool": False, "uuid": bytes(16), "float64": 0.0
}  # fmt: skip


def _default(row: Row, inner: Struct | None, nullable: bool) -> Any:
    if row.default == "null":
        return None if nullable else _EMPTY.get(row.type)
    if row.type.startswith(ARRAY):
        return ()
    if row.type == STRUCT:
        return {field.name: field.default for field in inner.fields} if inner else {}
    if row.default == "true":
        return True
    return int(row.default) if row.default else _EMPTY.get(row.type, 0)


def _read(text: str) -> dict[int, Api]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found, at = {}, 0
    while at < len(lines):
        key, name, versions, _, flexible = lines[at].split()
        last = _versions(versions).last
        answer_at = _end(lines, at + 2, 2 * _INDENT)
        end = _end(lines, answer_at + 1, 2 * _INDENT)
        found[int(key)] = Api(
            int(key),
            name,
            last,
            NEWEST if flexible == "never" else int(flexible),
            tuple(_rows(lines[at + 2 : answer_at], 2 * _INDENT)),
            tuple(_rows(lines[answer_at + 1 : end], 2 * _INDENT)),
        )
        at = end
    return found


def _rows(lines: list[str], indent: int) -> Iterator[Row]:
    at = 0
    while at < len(lines):
        end = _end(lines, at + 1, indent + _INDENT)
        name, kind, versions, *more = lines[at].split()
        null = next((word for word in more if word.startswith("null")), None)
        tag = next((int(word[4:]) for word in more if word.startswith("tag:")), None)
        default = next((word[1:] for word in more if word.startswith("=")), "")
        among = _versions(versions)
        yield Row(
            name,
            kind,
            among,
            None if null is None else _versions(null[5:]) if null[5:] else among,
            tag,
            default,
            tuple(_rows(lines[at + 1 : end], indent + _INDENT)),
        )
        at = end


def _end(lines: list[str], at: int, indent: int) -> int:
    """The first line from there on that is indented less."""
    while at < len(lines) and lines[at].startswith(" " * indent):
        at += 1
    return at


def _versions(text: str) -> Versions:
    first, _, last = text.partition("-")
    return Versions(int(first), int(last)) if last else Versions(int(text.removesuffix("+")), NEWEST)


_APIS: Final = _read(Path(__file__).with_name("messages.txt").read_text())
