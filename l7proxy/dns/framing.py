"""DNS over TCP: messages behind a length of two bytes (RFC 1035 4.2.2, RFC 7766 8). Pure."""

from __future__ import annotations

from l7proxy.dns.names_on_wire import HEADER_SIZE, WireError


def frame(message: bytes) -> bytes:
    """The message with its length before it."""
    return len(message).to_bytes(2, "big") + message


class Frames:
    """Takes bytes as they come, gives whole messages. Holds one message at most, beside what one read has brought."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, content: bytes) -> list[bytes]:
        """Messages that are complete now. WireError where a length leaves no room for a header: nothing that follows
        can be found any more."""
        self._buffer += content
        found, at = [], 0
        while len(self._buffer) - at >= 2:
            size = self._buffer[at] << 8 | self._buffer[at + 1]
            if size < HEADER_SIZE:
                raise WireError("message of impossible size")
            if len(self._buffer) - at - 2 < size:
                break
            found.append(bytes(self._buffer[at + 2 : at + 2 + size]))
            at += 2 + size
        del self._buffer[:at]
        return found
