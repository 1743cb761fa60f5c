"""Holds answers until their addresses are in force, for a bounded time: then the pod's first packet is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from l7proxy.dns.answers import Learned


class LearnedSink(Protocol):
    """Opens addresses before the pod hears of them. Whoever wires the proxy satisfies it."""

    def learned(self, pod: str, names: tuple[Learned, ...]) -> asyncio.Future[bool] | None:
        """The pod with this address was answered. None: nothing to wait for. Otherwise the answer is held: True, its
        addresses are in force; False (or an exception): they will not be, and the answer is withheld. Cancelled by the
        proxy when its time is over."""


class Held:
    """One answer that waits. `then` is called once: True, in force; False, never; None, not in time."""

    def __init__(self, waiting: asyncio.Future[bool], limit: float, then: Callable[[bool | None], None]) -> None:
        self._waiting = waiting
        self._then: Callable[[bool | None], None] | None = then
        self._timer = waiting.get_loop().call_later(limit, self._expired)
        waiting.add_done_callback(self._done)

    def _done(self, waiting: asyncio.Future[bool]) -> None:
        self._timer.cancel()
        self._end(not waiting.cancelled() and waiting.exception() is None and waiting.result())

    def _expired(self) -> None:
        self._end(None)
        self._waiting.cancel()

    def _end(self, outcome: bool | None) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(outcome)
