"""Messages by kio, an independent library: any request or response of any version, as its entity, bytes and plain form.

    python -m tests.l7proxy.kafka.kio_messages > tests/l7proxy/kafka/testdata/removed.txt     under kio 0.6.1

writes messages of the versions that Kafka 4.0 removed, and newer releases of kio with it.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import io
import random
import types
import typing
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

import kio.schema
from kio.schema.index import api_key_map
from kio.serial import entity_writer

# The last versions that Kafka 4.0 removed, by key: the current kio begins after them.
REMOVED = {0: 2, 1: 3, 2: 0, 4: 7, 5: 4, 6: 8, 7: 3, 8: 1, 9: 0, 19: 1, 20: 0, 23: 1, 27: 0, 29: 0, 30: 0, 31: 0, 32: 0}
REMOVED |= {34: 0, 35: 0, 38: 0, 39: 0, 40: 0, 41: 0, 56: 1, 76: 0, 77: 0, 78: 0, 79: 0}
KINDS = ("request", "response")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_WORDS = ("", "a", "empire-announce", "deathstar-plans", "größe", "x" * 130, "0.0.0.0")
_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


@lru_cache(1024)
def entity(key: int, version: int, kind: str) -> Any:
    """kio's class."""
    name = api_key_map[key]
    module = importlib.import_module(f"kio.schema.{name}.v{version}.{kind}")
    return getattr(module, "".join(word.capitalize() for word in name.split("_")) + kind.capitalize())


def versions(key: int) -> list[int]:
    """Those that this release of kio has."""
    root = Path(next(iter(kio.schema.__path__))) / api_key_map[key]
    return sorted(int(path.name[1:]) for path in root.glob("v*"))


def every() -> list[tuple[int, int, str]]:
    """Key, version and kind of everything that this release of kio has."""
    return [(key, version, kind) for key in sorted(api_key_map) for version in versions(key) for kind in KINDS]


def wire(made: Any) -> bytes:
    """Its bytes, by kio."""
    buffer = io.BytesIO()
    entity_writer(type(made))(buffer, made)
    return buffer.getvalue()


def anything(source: random.Random, kind: Any) -> Any:
    """An instance of the class with any values."""
    return kind(**{f.name: _any_field(source, f) for f in dataclasses.fields(kind)})


def _any_field(source: random.Random, field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING and source.random() < 0.3:
        return field.default
    kind, nullable = _stripped(field.type)
    if nullable and source.random() < 0.25:
        return None
    if typing.get_origin(kind) is tuple:
        element, _ = _stripped(typing.get_args(kind)[0])
        return tuple(_any_value(source, element, field) for _ in range(source.choice((0, 1, 1, 2, 3))))
    return _any_value(source, kind, field)


def _any_value(source: random.Random, kind: Any, field: dataclasses.Field[Any]) -> Any:
    if dataclasses.is_dataclass(kind):
        return anything(source, kind)
    wanted = str(field.metadata["kafka_type"])
    if wanted in _BITS:
        most = 1 << (_BITS[wanted] - 1)
        return kind(source.choice((0, 1, -1, most - 1, -most, source.randrange(-most, most))))
    return _MAKERS[wanted](source, kind)


_MAKERS: dict[str, Any] = {
    "string": lambda source, kind: kind(source.choice(_WORDS)),
    "bytes": lambda source, kind: source.randbytes(source.choice((0, 1, 40, 200))),
    "records": lambda source, kind: kind(source.randbytes(source.choice((0, 1, 40, 200)))),
    "bool": lambda source, kind: source.random() < 0.5,
    "uuid": lambda source, kind: uuid.UUID(bytes=source.randbytes(16)),
    "uint16": lambda source, kind: kind(source.randrange(1 << 16)),
    "float64": lambda source, kind: kind(source.choice((0.0, 1.5, -(2.0**70)))),
    "error_code": lambda source, kind: source.choice(list(kind)),
    "timedelta_i32": lambda source, kind: datetime.timedelta(milliseconds=source.randrange(1 << 31)),
    "timedelta_i64": lambda source, kind: datetime.timedelta(milliseconds=source.randrange(1 << 40)),
    "datetime_i64": lambda source, kind: _EPOCH + datetime.timedelta(seconds=source.randrange(1 << 30)),
}


def _stripped(kind: Any) -> tuple[Any, bool]:
    """The type without its None."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return kind, False
    (inner,) = (arg for arg in typing.get_args(kind) if arg is not types.NoneType)
    return inner, True


def plain(made: Any) -> dict[str, Any]:
    """Its fields as our codec has them."""
    return {f.name: _plain(getattr(made, f.name), f) for f in dataclasses.fields(made)}


def _plain(value: Any, field: dataclasses.Field[Any]) -> Any:
    kind = field.metadata.get("kafka_type", "")
    if isinstance(value, tuple):
        return [_plain(one, field) for one in value]
    if dataclasses.is_dataclass(value):
        return plain(value)
    if value is None:
        is_array = "tuple" in str(field.type)
        return None if is_array else {"uuid": bytes(16), "datetime_i64": -1}.get(kind)
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, datetime.timedelta):
        return value // datetime.timedelta(milliseconds=1)
    if isinstance(value, datetime.datetime):
        return (value - _EPOCH) // datetime.timedelta(milliseconds=1)
    return int(value.value) if kind == "error_code" else value


def main() -> None:
    for key, last in sorted(REMOVED.items()):
        for version in range(last + 1):
            for kind in KINDS:
                source = random.Random(f"{key} {version} {kind}")
                for _ in range(3):
                    print(key, version, kind, wire(anything(source, entity(key, version, kind))).hex() or "-")


if __name__ == "__main__":
    main()
