"""An epoll set of our own, which an event loop watches as one descriptor.

Each query has a socket of its own for as long as it is open. To put one in and out of asyncio's set costs 5 us more
than here, a tenth of what a query costs in all (docs/dns.md). So the loop is woken once for all that is ready.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
ERROR: Final = select.EPOLLERR  # due whether or not it is waited for
EVENTS_PER_TURN: Final = 256  # then whatever else the loop has to do gets its turn

Handler = Callable[[int], None]


class Poller:
    """Calls whoever waits for a descriptor with the events that are due."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._fresh: set[int] = set()  # came in this turn: what is due for the number was the last socket's

    def fileno(self) -> int:
        """Readable while `turn` has something to do."""
        return self._epoll.fileno()

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call the handler whenever one of the events is due (errors always are)."""
        self._epoll.register(fd, events)
        self._fresh.add(fd)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Other events from now on."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Right before the descriptor is closed, which is what takes it out of the set."""
        self._handlers.pop(fd, None)

    def turn(self) -> None:
        """Handle what is due now; never waits."""
        self._fresh.clear()
        for fd, events in self._epoll.poll(0, EVENTS_PER_TURN):
            handler = self._handlers.get(fd)
            if handler is not None and fd not in self._fresh:
                handler(events)

    def close(self) -> None:
        """Watch nothing any more."""
        self._handlers.clear()
        self._epoll.close()
