"""Envoy lives its own life: restarted after a crash, adopted by a second agent, stopped by its own id."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.config import RunDir
from agent.errors import EnvironmentProblem
from agent.proxies.envoy import Envoy, find_envoy
from agent.supervise import Tasks


async def until(condition: Callable[[], bool], what: str, bound: float = 20.0) -> None:
    """Wait until something is true; fail with its name after `bound` seconds."""
    try:
        async with asyncio.timeout(bound):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {bound} s: {what}")


@asynccontextmanager
async def supervised(folder: Path, words: list[str]) -> AsyncIterator[Envoy]:
    files = RunDir(folder)
    files.envoy_bootstrap.write_text("{}")
    envoy = Envoy(find_envoy(None), files, 1, words.append)
    tasks = Tasks()
    tasks.start("envoy", envoy.run())
    try:
        await until(lambda: envoy.pid is not None, "Envoy started")
        yield envoy
    finally:
        await tasks.stop()


async def test_a_crashed_envoy_comes_back(tmp_path: Path) -> None:
    words: list[str] = []
    async with supervised(tmp_path, words) as envoy:
        first = envoy.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: envoy.pid not in (None, first), "a new Envoy")
        assert envoy.restarts == 1
        await envoy.stop()
    assert any("restarting in" in word for word in words)


async def test_a_second_agent_adopts_it_and_ends_it_cleanly(tmp_path: Path) -> None:
    words: list[str] = []
    async with supervised(tmp_path, words) as envoy:
        pid = envoy.pid
    assert pid is not None
    async with supervised(tmp_path, words) as adopted:
        assert adopted.pid == pid
        await adopted.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["envoy.log"]


async def test_one_that_cannot_be_recorded_does_not_live_and_is_tried_again(tmp_path: Path) -> None:
    """A full disk, here a folder in the place of the file: the agent goes on, and no Envoy is left that none adopts."""
    files = RunDir(tmp_path)
    files.envoy_bootstrap.write_text("{}")
    files.envoy_pid.mkdir()
    words: list[str] = []
    envoy, tasks = Envoy(find_envoy(None), files, 1, words.append), Tasks()
    tasks.start("envoy", envoy.run())
    await until(lambda: any("cannot start: Is a directory" in word for word in words), "the reason")
    assert envoy.pid is None
    files.envoy_pid.rmdir()
    await until(lambda: envoy.pid is not None, "Envoy started")
    await tasks.stop()
    await envoy.stop()


def test_a_missing_binary_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="give another --envoy"):
        find_envoy(tmp_path / "no-such-envoy")
