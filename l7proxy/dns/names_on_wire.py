"""Domain names in DNS messages (RFC 1035 3.1, 4.1.4): labels, compression, text. Pure, and hostile input is expected.

The text of a name is that of master files (RFC 1035 5.1): lower case, one trailing dot, `\\.` and `\\DDD` for what is
no host name, so a dot within a label is never taken for one between two labels.
"""

from __future__ import annotations

from typing import Final

NAME_MAX: Final = 255  # bytes of a name on the wire, with its length bytes (RFC 1035 2.3.4)
POINTERS_MAX: Final = 126  # pointers followed for one name; a name has no more labels than that
HEADER_SIZE: Final = 12
_POINTER: Final = 0xC0
_LABEL_MAX: Final = 63
# What names of hosts and services consist of: only these can match a pattern with `*` in it.
_PLAIN: Final = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_ESCAPED: Final = frozenset(b'"().;\\@$')


class WireError(Exception):
    """The message is malformed; the text says how, in a few words. The only error that reading raises."""


def read_name(message: bytes, at: int) -> tuple[str, int]:
    """The text of the name at an offset, and the offset behind it. Pointers go strictly backwards, so it ends."""
    labels: list[bytes] = []
    room, end, jumps, begin = NAME_MAX - 1, 0, 0, at
    try:
        while size := message[at]:
            if size <= _LABEL_MAX:
                label = message[at + 1 : at + 1 + size]
                room -= size + 1
                if room < 0:
                    raise WireError("name longer than 255 bytes")
                labels.append(label)
                at += size + 1
                continue
            if size < _POINTER:
                raise WireError("label of unknown type")
            target = (size & 0x3F) << 8 | message[at + 1]
            end = end or at + 2
            jumps += 1
            if not HEADER_SIZE <= target < begin or jumps > POINTERS_MAX:
                raise WireError("compression pointer that does not lead back to a name")
            at = begin = target
    except IndexError:
        raise WireError("name cut short") from None
    return _text(labels), end or at + 1


def skip_name(message: bytes, at: int) -> int:
    """The offset behind a name whose text nobody asks for; its pointer, if any, is not followed."""
    try:
        while size := message[at]:
            if size >= _POINTER:
                return at + 2
            if size > _LABEL_MAX:
                raise WireError("label of unknown type")
            at += size + 1
    except IndexError:
        raise WireError("name cut short") from None
    return at + 1


def _text(labels: list[bytes]) -> str:
    joined = b"".join(labels)
    if joined.translate(None, _PLAIN):
        return ".".join([_escape(label) for label in labels]) + "."
    return b".".join(labels).decode("ascii").lower() + "."


def _escape(label: bytes) -> str:
    return "".join([_escaped_byte(byte) for byte in label.lower()])


def _escaped_byte(byte: int) -> str:
    if byte in _ESCAPED:
        return "\\" + chr(byte)
    return chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03d}"
