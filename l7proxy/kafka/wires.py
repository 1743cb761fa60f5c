"""One TCP connection, of a client or to a server: bytes in as they come, bytes out as they are taken.

What is received lies in one buffer that all share, and is good until the next is received: whoever hears of it sends it
on at once, and what the peer does not take at once is copied.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Final

from l7proxy.poller import ERROR, READ, WRITE, Poller

BUFFER: Final = 256 << 10  # bytes per read
READS_PER_TURN: Final = 4  # then others get their turn
SLICE: Final = 0.002  # seconds that what was read may cost, else less is read: small requests cost 1 s per megabyte
LEAST: Final = 4 << 10  # bytes per read, of a peer whose bytes cost most
OUT_FULL: Final = 512 << 10  # bytes that a peer has not taken; then nothing more is read for it
GATHERED: Final = 64  # pieces in one send
LINGER: Final = 3.0  # seconds in which a peer may take our last words, before it is closed

Piece = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a wire: of bytes, of the peer's saying that there will be none any more, of its having taken enough,
    and (once, unless it is closed from this side) of its end."""

    received: Callable[[memoryview], None]
    silent: Callable[[], None]
    drained: Callable[[], None]
    lost: Callable[[], None]


class Wire:
    """Connected, or (still) connecting."""

    def __init__(
        self, poller: Poller, connection: socket.socket, buffer: memoryview, listener: Listener, *, connected: bool
    ) -> None:
        self._poller = poller
        self._socket: socket.socket | None = connection
        self._buffer = self._share = buffer
        self._listener = listener
        self._out: deque[Piece] = deque()
        self.waiting = 0  # bytes that the peer has not taken
        self._is_connected = connected
        self._hears = True
        self._is_silent = self._is_last = self._is_shut = False
        self._ends_at = 0.0
        self._events = READ if connected else READ | WRITE
        poller.watch(connection.fileno(), self._events, self._ready)

    @property
    def is_full(self) -> bool:
        """Whether the peer is slower than what is sent to it."""
        return self.waiting >= OUT_FULL

    @property
    def was_connected(self) -> bool:
        """Whether there ever was somebody."""
        return self._is_connected

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self._socket is None

    def send(self, pieces: Iterable[Piece]) -> None:
        """Send, in this order, as soon as the peer takes it."""
        if self._socket is None:
            return
        if self._out or not self._is_connected:
            self._keep(pieces)
            return
        self._out.extend(pieces)
        if self._flush() and self._out:
            left, self._out = self._out, deque()
            self._keep(left)
        self._watch()

    def hear(self, wanted: bool) -> None:
        """Read on, or do not for now."""
        if wanted != self._hears:
            self._hears = wanted
            self._watch()

    def finish(self) -> None:
        """Say that there will be no more, when all is sent. The peer may go on."""
        if not self._is_last:
            self._is_last = True
            self._shut()

    def leave(self) -> None:
        """Finish, hear no more, and close when the peer has, or after LINGER: a connection that is closed with bytes
        unread loses those that the peer has not read (RFC 1122 4.2.2.13)."""
        if not self._ends_at:
            self._ends_at = monotonic() + LINGER
            self._hears = True
            self.finish()
            if self._is_silent:
                self._close_when_sent()
            self._watch()

    def expire(self, now: float) -> None:
        """Close, if its time is over."""
        if self._ends_at and now >= self._ends_at:
            self.close()

    def close(self) -> None:
        """Close at once. Harmless the second time."""
        connection, self._socket = self._socket, None
        if connection is not None:
            self._poller.forget(connection.fileno())
            connection.close()
            self._out.clear()
            self.waiting = 0

    def _ready(self, events: int) -> None:
        if events & WRITE and not self._written():
            return
        if events & READ:
            self._read()
        elif events & ERROR:
            self._lose()
        elif (
            events & ~WRITE
        ):  # both sides have ended: what is still to be read is the last, and is no more than a buffer
            self._hears = True
            self._read()

    def _written(self) -> bool:
        """Go on sending; False if the wire is lost."""
        if not self._is_connected:
            if self._socket is None or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._lose()
                return False
            self._is_connected = True
        was_full = self.is_full
        if not self._flush():
            return False
        self._watch()
        if was_full and not self.is_full and not self._ends_at:
            self._listener.drained()
        return True

    def _read(self) -> None:
        began = monotonic()
        for _ in range(READS_PER_TURN):
            if self._socket is None or not self._hears or self._is_silent:
                return
            share = self._share
            try:
                size = self._socket.recv_into(share)
            except BlockingIOError:
                return
            except OSError:
                self._lose()
                return
            if not size:
                self._end()
                return
            if not self._ends_at:
                self._listener.received(share[:size])
            if (now := monotonic()) - began > SLICE:
                self._share = self._buffer[: max(size // 2, LEAST)]
                return
            if size < len(share):
                return
            self._share = self._buffer[: 2 * len(share)]
            began = now

    def _end(self) -> None:
        self._is_silent = True
        self._watch()
        if self._ends_at:
            self._close_when_sent()
        else:
            self._listener.silent()

    def _flush(self) -> bool:
        """Send what the peer takes; False if the wire is lost."""
        out = self._out
        while out and self._socket is not None:
            pieces = list(islice(out, GATHERED))
            try:
                sent = self._socket.sendmsg(pieces) if len(pieces) > 1 else self._socket.send(pieces[0])
            except BlockingIOError:
                break
            except OSError:
                self._lose()
                return False
            for piece in pieces:
                if sent < len(piece):
                    break
                sent -= len(piece)
                out.popleft()
            else:
                continue
            out[0] = memoryview(out[0])[sent:]
            break
        self.waiting = sum(map(len, out)) if out else 0
        self._shut()
        if self._ends_at and self._is_silent:
            self._close_when_sent()
        return self._socket is not None

    def _keep(self, pieces: Iterable[Piece]) -> None:
        """Send them later. They are copied: they may lie in the buffer."""
        for piece in pieces:
            kept = bytes(piece) if isinstance(piece, memoryview) else piece
            self._out.append(kept)
            self.waiting += len(kept)

    def _shut(self) -> None:
        if self._is_last and not self._is_shut and not self._out and self._socket is not None and self._is_connected:
            self._is_shut = True
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise

    def _close_when_sent(self) -> None:
        if not self._out:
            self.close()

    def _lose(self) -> None:
        if self._socket is not None:
            self.close()
            if not self._ends_at:
                self._listener.lost()

    def _watch(self) -> None:
        if self._socket is None:
            return
        events = READ if self._hears and not self._is_silent else 0
        if self._out or not self._is_connected:
            events |= WRITE
        if events != self._events:
            self._events = events
            self._poller.change(self._socket.fileno(), events)
