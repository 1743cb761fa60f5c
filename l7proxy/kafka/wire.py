"""Bytes of Kafka's protocol: a cursor without unchecked reads, and the writers that belong to it. Pure.

Compact lengths are varints, one more than they say, so that 0 can be null; others are 2 or 4 bytes with -1 for null
(https://kafka.apache.org/protocol#protocol_types). Whatever is wrong with a message is a WireError, and nothing else.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Final

VARINT_BYTES: Final = 5  # lengths, counts and tags are below 2**31


class WireError(ValueError):
    """The bytes are no message of the protocol."""


INT16: Final = Layout(">h")
INT32: Final = Layout(">i")
NUMBERS: Final = {
    "int8": Layout(">b"),
    "int16": INT16,
    "uint16": Layout(">H"),
    "int32": INT32,
    "int64": Layout(">q"),
    "float64": Layout(">d"),
}


class Cursor:
    """Reads a message from its start. Bytes that it gives are views of the message, not copies."""

    __slots__ = ("at", "end", "view")

    def __init__(self, view: memoryview | bytes, at: int = 0) -> None:
        self.view = memoryview(view)
        self.at = at
        self.end = len(self.view)

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        at = self.at
        if size < 0 or size > self.end - at:
            raise WireError("message ends within a field")
        self.at = at + size
        return self.view[at : self.at]

    def number(self, layout: Layout) -> int:
        """A number of fixed size."""
        at = self.at
        if layout.size > self.end - at:
            raise WireError("message ends within a number")
        self.at = at + layout.size
        value: int = layout.unpack_from(self.view, at)[0]
        return value

    def varint(self) -> int:
        """An unsigned number of 31 bits at most."""
        value = shift = 0
        for _ in range(VARINT_BYTES):
            if self.at >= self.end:
                raise WireError("message ends within a number")
            byte = self.view[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > 0x7FFFFFFF:
                    break
                return value
            shift += 7
        raise WireError("number of more than 31 bits")

    def length(self, layout: Layout, flexible: bool) -> int:
        """A length or count; -1 is null."""
        size = self.varint() - 1 if flexible else self.number(layout)
        if size < -1:
            raise WireError("negative length")
        return size

    def text(self, size: int) -> str:
        """UTF-8."""
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError:
            raise WireError("text is not UTF-8") from None

    def finish(self) -> None:
        """WireError unless everything was read."""
        if self.at != self.end:
            raise WireError("message goes on after its last field")


def varint(value: int) -> bytes:
    """As `Cursor.varint` reads it."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length(size: int, layout: Layout, flexible: bool) -> bytes:
    """As `Cursor.length` reads it; -1 is null."""
    return varint(size + 1) if flexible else layout.pack(size)
