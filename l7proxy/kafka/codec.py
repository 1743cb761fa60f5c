"""Reads and writes messages by the tables of `schema`: one interpreter for all of them. Pure.

A message is a dict by the names of its fields; a uuid is 16 bytes, records and bytes are views of what was read. Tagged
fields that are not known are kept, under UNKNOWN, and written again. Depth is that of the tables, not of the message.
"""

from __future__ import annotations

from struct import error as NumberError
from typing import Any, Final

from l7proxy.kafka.schema import ARRAY, STRUCT, Field, Struct
from l7proxy.kafka.wire import INT16, INT32, NUMBERS, Cursor, WireError, length, varint

UNKNOWN: Final = "?"  # no field is called so
UUID_SIZE: Final = 16

Message = dict[str, Any]


def decode(struct: Struct, content: memoryview | bytes) -> Message:
    """The message whose body is exactly this. WireError for anything else."""
    cursor = Cursor(content)
    found = read(struct, cursor)
    cursor.finish()
    return found


def encode(struct: Struct, message: Message) -> bytes:
    """The body of a message; fields that it does not have are written with their defaults."""
    out: list[bytes | memoryview] = []
    write(struct, message, out)
    return b"".join(out)


def read(struct: Struct, cursor: Cursor) -> Message:
    """The struct that begins at the cursor."""
    found = {field.name: _value(field, struct.flexible, cursor) for field in struct.fields}
    if struct.flexible:
        _read_tagged(struct, cursor, found)
    return found


def _read_tagged(struct: Struct, cursor: Cursor, found: Message) -> None:
    before = -1
    for _ in range(cursor.varint()):
        tag = cursor.varint()
        if tag <= before:
            raise WireError("tagged fields out of order")
        before = tag
        content = cursor.take(cursor.varint())
        field = struct.tagged.get(tag)
        if field is None:
            found.setdefault(UNKNOWN, []).append((tag, bytes(content)))
            continue
        inner = Cursor(content)
        found[field.name] = _value(field, True, inner)
        inner.finish()


def _value(field: Field, flexible: bool, cursor: Cursor) -> Any:
    kind = field.type
    if (layout := NUMBERS.get(kind)) is not None:
        return cursor.number(layout)
    if kind == STRUCT:
        return _read_struct(field, cursor)
    if kind.startswith(ARRAY):
        return _read_array(field, flexible, cursor)
    if kind == "uuid":
        return bytes(cursor.take(UUID_SIZE))
    if kind == "bool":
        return bool(cursor.take(1)[0])
    size = cursor.length(INT16 if kind == "string" else INT32, flexible)
    if size < 0:
        return _null(field)
    return cursor.text(size) if kind == "string" else cursor.take(size)


def _read_struct(field: Field, cursor: Cursor) -> Message | None:
    assert field.struct is not None
    if field.nullable and cursor.number(NUMBERS["int8"]) < 0:
        return None
    return read(field.struct, cursor)


def _read_array(field: Field, flexible: bool, cursor: Cursor) -> list[Any] | None:
    count = cursor.length(INT32, flexible)
    if count < 0:
        _null(field)
        return None
    if count > cursor.end - cursor.at:
        raise WireError("array is longer than the message")
    if field.struct is not None:
        struct = field.struct
        return [read(struct, cursor) for _ in range(count)]
    element = Field(field.name, field.type[len(ARRAY) :], False, None)
    return [_value(element, flexible, cursor) for _ in range(count)]


def _null(field: Field) -> None:
    if not field.nullable:
        raise WireError(f"{field.name} is null")


def write(struct: Struct, message: Message, out: list[bytes | memoryview]) -> None:
    """Append the struct."""
    for field in struct.fields:
        _write_value(field, struct.flexible, message.get(field.name, field.default), out)
    if struct.flexible:
        _write_tagged(struct, message, out)


def _write_tagged(struct: Struct, message: Message, out: list[bytes | memoryview]) -> None:
    tagged: list[tuple[int, bytes]] = list(message.get(UNKNOWN, ()))
    for tag, field in struct.tagged.items():
        value = message.get(field.name, field.default)
        if value == field.default:
            continue
        content: list[bytes | memoryview] = []
        _write_value(field, True, value, content)
        tagged.append((tag, b"".join(content)))
    out.append(varint(len(tagged)))
    for tag, written in sorted(tagged):
        out += (varint(tag), varint(len(written)), written)


def _write_value(field: Field, flexible: bool, value: Any, out: list[bytes | memoryview]) -> None:
    kind = field.type
    if (layout := NUMBERS.get(kind)) is not None:
        try:
            out.append(layout.pack(value))
        except NumberError:
            raise WireError(f"{field.name} does not fit into {kind}") from None
    elif kind == STRUCT:
        _write_struct(field, value, out)
    elif kind.startswith(ARRAY):
        _write_array(field, flexible, value, out)
    elif kind == "uuid":
        out.append(value)
    elif kind == "bool":
        out.append(b"\1" if value else b"\0")
    else:
        sized = INT16 if kind == "string" else INT32
        if value is None:
            _null(field)
            out.append(length(-1, sized, flexible))
            return
        content = value.encode() if kind == "string" else value
        if kind == "string" and len(content) > 0x7FFF:
            raise WireError(f"{field.name} is too long")
        out += (length(len(content), sized, flexible), content)


def _write_struct(field: Field, value: Any, out: list[bytes | memoryview]) -> None:
    assert field.struct is not None
    if field.nullable:
        out.append(b"\xff" if value is None else b"\1")
    if value is not None:
        write(field.struct, value, out)


def _write_array(field: Field, flexible: bool, value: Any, out: list[bytes | memoryview]) -> None:
    if value is None:
        _null(field)
        out.append(length(-1, INT32, flexible))
        return
    out.append(length(len(value), INT32, flexible))
    if field.struct is not None:
        for entry in value:
            write(field.struct, entry, out)
        return
    element = Field(field.name, field.type[len(ARRAY) :], False, None)
    for entry in value:
        _write_value(element, flexible, entry, out)
