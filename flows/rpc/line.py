"""Streams of a connection that wait to send: they take turns, so that a small window is shared by all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Line:
    """Whoever has waited longest, of those whose window is open, goes next."""

    def __init__(self) -> None:
        self._turns: dict[int, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._turns)

    async def turn(self, stream: int) -> None:
        """Wait at the end of the line. Who was called calls the next one when it has sent its share, or gives up.

        Nothing may be awaited between a look at the window and this: the call that it brings about would be missed.
        """
        turn = self._turns[stream] = asyncio.get_running_loop().create_future()
        await turn

    def leave(self, stream: int) -> None:
        """Wait no longer."""
        self._turns.pop(stream, None)

    def call_next(self, window: Callable[[int], int]) -> bool:
        """Call the first whose window (bytes that it may send) is open; whether there was one."""
        for stream, turn in self._turns.items():
            if window(stream) > 0:
                del self._turns[stream]
                if not turn.done():  # or it was cancelled, and leaves
                    turn.set_result(None)
                return True
        return False
