"""A value of the event loop's, for a thread: taken in the loop, so that nobody sees half a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from typing import Final, Generic, TypeVar

ANSWER_WAIT: Final = 2.0  # seconds that a thread waits for the loop
T = TypeVar("T")


class FromLoop(Generic[T]):
    """`look` is called in the loop in which this was made. A loop that does not answer in time has said what it said
    last, or `initial`."""

    def __init__(self, look: Callable[[], T], initial: T) -> None:
        self._look, self._last = look, initial
        self._loop = asyncio.get_running_loop()

    def ask(self) -> T:
        """In any other thread."""
        answer: Future[T] = Future()
        try:
            self._loop.call_soon_threadsafe(self._answer, answer)
            self._last = answer.result(ANSWER_WAIT)
        except (RuntimeError, NoAnswer):  # the loop is closed, or busy
            pass
        return self._last

    def _answer(self, into: Future[T]) -> None:
        try:
            into.set_result(self._look())
        except Exception as error:
            into.set_exception(error)
