"""Messages -> JSON exactly as Hubble's tools write it: proto names, fields in the order of declaration. Pure.

google.protobuf.json_format sorts by field number and spaces differently, so its lines could not be compared with
those of `hubble observe -o json`. Rules: https://protobuf.dev/programming-guides/json/, and Go's encoder, which
writes <, >, & and the line separators as \\u escapes.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

WIDE = frozenset(
    (
        *(FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64),  # as strings: JSON numbers are doubles
    )
)
WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)
ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_json(message: Message) -> str:
    """One line of JSON, without the line end."""
    return _message(message)


def _message(message: Any) -> str:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        return _timestamp(message)
    if name in WRAPPERS:
        return _scalar(message.DESCRIPTOR.fields_by_name["value"], message.value)
    if name.startswith("google.protobuf."):
        return _string_free(json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None))
    parts = []
    for field in _declared(message.DESCRIPTOR):
        value = getattr(message, field.name)
        if field.is_repeated:
            if value:
                parts.append(f'"{field.name}":[{",".join(_value(field, item) for item in value)}]')
        elif message.HasField(field.name) if field.has_presence else value:
            parts.append(f'"{field.name}":{_value(field, value)}')
    return "{" + ",".join(parts) + "}"


@lru_cache(maxsize=256)
def _declared(descriptor: Any) -> tuple[Any, ...]:
    return tuple(sorted(descriptor.fields, key=lambda field: field.index))


def _value(field: Any, value: Any) -> str:
    return _message(value) if field.message_type is not None else _scalar(field, value)


def _scalar(field: Any, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return quote(named.name) if named else str(value)
    if isinstance(value, float):
        return _double(value)
    return f'"{value}"' if field.cpp_type in WIDE else str(value)


def quote(text: str) -> str:
    """A JSON string as Go writes it into HTML-safe JSON."""
    return json.dumps(text, ensure_ascii=False).translate(ESCAPES)


def _string_free(text: str) -> str:
    return text.translate(ESCAPES)


def _double(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return '"NaN"' if math.isnan(value) else ('"Infinity"' if value > 0 else '"-Infinity"')
    if value and not 1e-6 <= abs(value) < 1e21:
        mantissa, _, exponent = repr(value).partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}".replace("e-0", "e-")
    text = f"{value:.17f}".rstrip("0").rstrip(".") if "e" in repr(value) else repr(value).removesuffix(".0")
    return text if float(text) == value else repr(value)


def _timestamp(time: Any) -> str:
    """RFC 3339 in UTC with 0, 3, 6 or 9 digits of a second."""
    moment = EPOCH + timedelta(seconds=time.seconds)
    text = f"{moment:%Y-%m-%dT%H:%M:%S}"
    fraction = f".{time.nanos:09d}".removesuffix("000").removesuffix("000").removesuffix(".000")
    return f'"{text.rjust(19, "0")}{fraction}Z"'
