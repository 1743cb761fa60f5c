"""Once a minute: names that have expired and carry no connection are closed, in pieces, while queries go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from typing import Final, TypeVar

from agent.names.book import Rest, Sharing, Sweep
from agent.names.learning import Learning

PERIOD: Final = 60.0  # seconds
PIECE: Final = 500  # names between which others have their turn
OVERHEARD_REST: Final = Rest(linger=3600.0)  # of names that no policy selects, for flows
T = TypeVar("T")

Connected = Callable[[Collection[bytes]], Mapping[bytes, Set[int]]]
"""Which of these addresses pods have connections to. OSError where that cannot be told now. Called in a thread."""

log = logging.getLogger("deflector.names")


class Collecting:
    """The rounds. `now`: Unix time."""

    def __init__(self, learning: Learning, connected: Connected, now: Callable[[], float]) -> None:
        self._learning = learning
        self._connected = connected
        self._now = now

    async def round(self) -> None:
        """Close what may be closed now."""
        names, at = self._learning.names, self._now()
        book, due = names.book, []
        for piece in pieces(book.names()):
            due += [name for name in piece if book.has_expired(name, at - names.options.rest.linger)]
            await asyncio.sleep(0)
        if due:
            addresses = {address for name in due for address in book.addresses(name)}
            try:
                alive = await asyncio.to_thread(self._connected, addresses)
            except OSError as error:
                log.warning("nothing is known of connections, so all names stay: %s", error)
                return
            for piece in pieces(due):
                self._learning.close(*names.collect(piece, Sweep(at, alive)))
                await asyncio.sleep(0)
        for piece in pieces(names.overheard.names()):
            names.overheard.collect(piece, Sweep(at, {}), OVERHEARD_REST, Sharing.NODE)
            await asyncio.sleep(0)


def pieces(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Of a size between which others have their turn."""
    return (items[at : at + PIECE] for at in range(0, len(items), PIECE))
