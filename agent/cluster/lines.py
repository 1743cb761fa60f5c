"""Bytes of a watch -> lines, one event each. Sans-io: bytes in, lines out; bounded."""

from __future__ import annotations

from typing import Final

# An object is at most 1.5 MiB in etcd, and JSON of it with all that the server adds stays below this.
LINE_MAX: Final = 16 << 20


class LineTooLong(Exception):
    """More bytes without an end than any event has."""


class Lines:
    """Feed it what comes; each call gives the lines that are whole by then, without their ends; no empty ones."""

    def __init__(self, limit: int = LINE_MAX) -> None:
        self._limit = limit
        self._rest: list[bytes] = []  # what is no whole line yet
        self._held = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Raises LineTooLong."""
        head, end, tail = piece.rpartition(b"\n")
        if not end:
            self._keep(tail)
            return []
        whole = b"".join((*self._rest, head))
        self._rest, self._held = [], 0
        self._keep(tail)
        return [line for line in whole.split(b"\n") if line.strip()]

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._rest.append(piece)
            self._held += len(piece)
        if self._held > self._limit:
            raise LineTooLong(f"an event of more than {self._limit >> 20} MiB")
