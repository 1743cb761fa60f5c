"""Messages -> JSON exactly as Hubble's tools write it: proto names, fields in the order of declaration. Pure.

google.protobuf.json_format sorts by field number and spaces differently, so its lines could not be compared with
those of `hubble observe -o json`. Rules: https://protobuf.dev/programming-guides/json/, and Go's encoder, which
writes <, >, & and the line separators as \\u escapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring
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
REPEATING = frozenset(f"flow.{kind}" for kind in ("Endpoint", "Emitter", "IP", "Policy", "Service", "CiliumEventType"))
KEPT = 4096  # different ones of a kind that are remembered; beyond that all are forgotten
ESCAPED = re.compile("[<>&\u2028\u2029]")
ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_json(message: Message) -> str:
    """One line of JSON, without the line end."""
    return _encoder(message.DESCRIPTOR)(message)


Encode = Callable[[Any], str]


class _Fields:
    """Encodes messages of one type: a table made once, and a look at the fields that are set."""

    def __init__(self, descriptor: Any) -> None:
        self._fields = {field.number: (field.index, f'"{field.name}":', _field(field)) for field in descriptor.fields}

    def __call__(self, message: Any) -> str:
        fields = self._fields
        parts = []
        for field, value in message.ListFields():
            index, name, encode = fields[field.number]
            parts.append((index, name + encode(value)))
        parts.sort()
        return "{" + ",".join([text for _, text in parts]) + "}"


class _Remembering:
    """Encodes messages of which there are few different ones, though many: who lives where, which policy it was."""

    def __init__(self, descriptor: Any) -> None:
        self._encode = _Fields(descriptor)
        self._known: dict[bytes, str] = {}

    def __call__(self, message: Any) -> str:
        wire = message.SerializePartialToString()
        known = self._known.get(wire)
        if known is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            known = self._known[wire] = self._encode(message)
        return known


class _Later:
    """The encoder of a message type, looked for when it is needed: types may hold themselves."""

    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor

    def __call__(self, message: Any) -> str:
        return _encoder(self._descriptor)(message)


@lru_cache(maxsize=256)
def _encoder(descriptor: Any) -> Encode:
    name = descriptor.full_name
    if name == "google.protobuf.Timestamp":
        return _timestamp
    if name in WRAPPERS:
        scalar = _scalar(descriptor.fields_by_name["value"])
        return lambda message: scalar(message.value)
    if name.startswith("google.protobuf."):
        return lambda message: _escaped(
            json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)
        )
    return _Remembering(descriptor) if name in REPEATING else _Fields(descriptor)


def _field(field: Any) -> Encode:
    one = _Later(field.message_type) if field.message_type is not None else _scalar(field)
    if not field.is_repeated:
        return one
    return lambda values: f"[{','.join(map(one, values))}]"


def _scalar(field: Any) -> Encode:
    if field.enum_type is not None:
        names = {value.number: quote(value.name) for value in field.enum_type.values}
        return lambda value: names.get(value) or str(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return lambda value: "true" if value else "false"
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return quote
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _double
    return (lambda value: f'"{value}"') if field.cpp_type in WIDE else str


def quote(text: str) -> str:
    """A JSON string as Go writes it into HTML-safe JSON."""
    return _escaped(encode_basestring(text))


def _escaped(text: str) -> str:
    return text.translate(ESCAPES) if ESCAPED.search(text) else text


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
    fraction = f".{time.nanos:09d}".removesuffix("000").removesuffix("000").removesuffix(".000")
    return f'"{_second(time.seconds)}{fraction}Z"'


@lru_cache(maxsize=KEPT)
def _second(seconds: int) -> str:
    moment = EPOCH + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(19, "0")
