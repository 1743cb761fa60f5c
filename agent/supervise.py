"""Tasks that are kept, named and reported. The only place where asyncio tasks are made (ruff bans it elsewhere).

A bare task may be garbage collected with its exception unseen; here the first failure of any task ends `failed()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """A set of long-running tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: asyncio.Future[BaseException] | None = None

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` until it ends or `stop()`; an exception other than cancellation is reported by `failed()`."""
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - this is the place
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def failed(self) -> BaseException:
        """Wait for the first task that fails and return its exception."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        if self._failure is None:
            self._failure = task.get_loop().create_future()
        if not self._failure.done():
            failure = task.exception()
            assert failure is not None
            failure.add_note(f"in task {task.get_name()}")
            self._failure.set_result(failure)
