"""WebSocket frames (RFC 6455) as far as an echo needs them: one text frame there, the same one back. Pure."""

from __future__ import annotations

import base64
import hashlib

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
TEXT = 0x1
CLOSE = 0x8
FINAL, MASKED = 0x80, 0x80
PAYLOAD_MAX = 125  # what fits without an extended length; nobody here sends more


class FrameError(Exception):
    """Not a frame that is spoken here."""


def accept_key(key: str) -> str:
    """The answer to Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + MAGIC).digest()).decode()


def encode_frame(payload: bytes, mask: bytes = b"", opcode: int = TEXT) -> bytes:
    """One final frame; clients mask with four bytes, servers do not mask (RFC 6455 5.1). Raises FrameError."""
    if len(payload) > PAYLOAD_MAX:
        raise FrameError(f"a payload of {len(payload)} bytes is more than {PAYLOAD_MAX}")
    head = bytes([FINAL | opcode, (MASKED if mask else 0) | len(payload)])
    return head + mask + _masked(payload, mask)


class FrameReader:
    """Collects frames from bytes as they come."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete now, as (opcode, payload). Raises FrameError."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 2:
            return None
        first, second = self._buffer[:2]
        if not first & FINAL or second & 0x7F > PAYLOAD_MAX:
            raise FrameError("fragments and long frames are not spoken here")
        masked = bool(second & MASKED)
        begin = 6 if masked else 2
        end = begin + (second & 0x7F)
        if len(self._buffer) < end:
            return None
        payload = _masked(self._buffer[begin:end], self._buffer[2:begin])
        self._buffer = self._buffer[end:]
        return first & 0x0F, payload


def _masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)) if mask else payload
