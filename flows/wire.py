"""Parts of serialised messages, made by hand where building a message costs too much. Pure.

What belongs to one field is one run of bytes, and runs may be put one behind the other in any order: whoever reads
them merges messages and keeps the last of everything else
(https://protobuf.dev/programming-guides/encoding/#last-one-wins). Field numbers come from the descriptors.
"""

from __future__ import annotations

from typing import Any

_LENGTH_DELIMITED, _VARINT = 2, 0
_LAST = tuple(bytes((bits,)) for bits in range(128))
_MORE = tuple(bytes((bits | 128,)) for bits in range(128))  # seven bits, and others follow
_TWICE_MORE = tuple(low + high for high in _MORE for low in _MORE)


def varint(number: int) -> bytes:
    """An unsigned number of up to 64 bits, seven bits per byte, the lowest first."""
    head = b""
    while number > 0x3FFF:
        head += _TWICE_MORE[number & 0x3FFF]
        number >>= 14
    return head + _LAST[number] if number < 128 else head + _MORE[number & 127] + _LAST[number >> 7]


class _Known(dict[int, bytes]):
    """`VARINTS[n]` is varint(n), for whom a call is too slow: the first thousands are kept."""

    def __missing__(self, number: int) -> bytes:
        return varint(number)


VARINTS = _Known((number, varint(number)) for number in range(4096))


def tag(kind: Any, field: str) -> bytes:
    """What stands before a field of this message: its number, and whether a length or a number follows.

    For text, messages, and unsigned numbers and enums; `kind` is a message class.
    """
    found = kind.DESCRIPTOR.fields_by_name[field]
    counted = found.type in (found.TYPE_STRING, found.TYPE_MESSAGE)
    return varint(found.number << 3 | (_LENGTH_DELIMITED if counted else _VARINT))


def counted(before: bytes, content: bytes) -> bytes:
    """A field that is text or a message: tag, length, content."""
    return before + varint(len(content)) + content
