"""Protobuf's wire format, as far as messages are written by hand. Pure. A tag is a field's number and kind."""

from __future__ import annotations

from typing import Final

_VARINT_ONE: Final = tuple(bytes((number,)) for number in range(128))


def varint(number: int) -> bytes:
    """An unsigned number, seven bits to a byte, the lowest first."""
    if number < 128:
        return _VARINT_ONE[number]
    made = bytearray()
    while number >= 128:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def blob(tag: bytes, content: bytes) -> bytes:
    """A field of bytes, text, or a message."""
    return tag + varint(len(content)) + content


def number(tag: bytes, value: int) -> bytes:
    """A field with a number; nothing for 0, as protobuf leaves out what is not set."""
    return tag + varint(value) if value else b""
