"""A TCP connection that carries messages of DNS, with bounds on what it buffers."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from l7proxy.dns.framing import Frames, frame
from l7proxy.dns.names_on_wire import WireError
from l7proxy.poller import READ, WRITE, Poller

CHUNK: Final = 65536  # bytes per read
OUT_FULL: Final = 128 << 10  # bytes that a peer has not taken yet; then nothing more should be fetched for it
OUT_MAX: Final = 8 << 20  # more, and it is given up: what was held or on its way when it was full is less


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a stream: of messages, of the peer's saying that there will be none any more, of its having taken
    everything, and of the end, once, also when the stream is closed from this side."""

    message: Callable[[bytes], None]
    silent: Callable[[], None]
    drained: Callable[[], None]
    ended: Callable[[], None]


class Stream:
    """One connection, accepted or (still) connecting."""

    def __init__(self, poller: Poller, connection: socket.socket, listener: Listener) -> None:
        self._poller = poller
        self._socket: socket.socket | None = connection
        self._listener = listener
        self._frames = Frames()
        self._out = bytearray()
        self._events = READ | WRITE  # writable: connected
        self._inbox: deque[bytes] = deque()
        self._deaf = self._ended = self._finishing = False
        self.active = monotonic()
        poller.watch(connection.fileno(), self._events, self._ready)

    @property
    def is_full(self) -> bool:
        """Whether the peer is slower than what is sent to it."""
        return len(self._out) >= OUT_FULL

    def send(self, message: bytes) -> None:
        """Send a message, as soon as the peer takes it."""
        if self._socket is None:
            return
        self.active = monotonic()
        self._out += frame(message)
        if self._events & WRITE:
            return  # sent when it is writable
        self._flush()

    def pause(self) -> None:
        """Give no more messages for now: the peer has enough open queries."""
        self._deaf = True
        self._listen()

    def resume(self) -> None:
        """Give messages again, first what was read before the pause. Nothing if there was none: a message that is given
        may cause this call, and must not cause the next one to be given within it."""
        if not self._deaf or self._finishing:
            return
        self._deaf = False
        self._give()
        self._listen()

    def finish(self) -> None:
        """Close when all is sent; nothing is read any more."""
        self._finishing = True
        self.pause()
        if not self._out:
            self.close()

    def close(self) -> None:
        """Close at once. Harmless the second time."""
        connection, self._socket = self._socket, None
        if connection is not None:
            self._poller.forget(connection.fileno())
            connection.close()
            self._listener.ended()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ:
            self._read()
        elif events & ~WRITE:
            self.close()  # an error, or nobody is there any more

    def _read(self) -> None:
        if self._socket is None or self._deaf:
            return
        try:
            content = self._socket.recv(CHUNK)
            self._inbox.extend(self._frames.feed(content))
        except BlockingIOError:
            return
        except (OSError, WireError):
            self.close()
            return
        self.active = monotonic()
        self._give()
        if not content:
            self._ended = True
            self._listen()
            self._listener.silent()

    def _give(self) -> None:
        while self._inbox and not self._deaf and self._socket is not None:
            self._listener.message(self._inbox.popleft())

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            if self._out:
                del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if len(self._out) > OUT_MAX or (self._finishing and not self._out):
            self.close()
            return
        self._listen()
        if not self._out:
            self._listener.drained()

    def _listen(self) -> None:
        if self._socket is None:
            return
        events = (0 if self._deaf or self._ended else READ) | (WRITE if self._out else 0)
        if events != self._events:
            self._events = events
            self._poller.change(self._socket.fileno(), events)
