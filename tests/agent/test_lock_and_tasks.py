"""One agent per run directory and network namespace; and no task of it fails unseen."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.errors import EnvironmentProblem
from agent.node import lock
from agent.node.lock import HostLock, NodeLock
from agent.supervise import Tasks


def test_the_second_agent_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    first, second = NodeLock(tmp_path / "agent.lock"), NodeLock(tmp_path / "agent.lock")
    first.acquire()
    with pytest.raises(EnvironmentProblem, match=f"process {os.getpid()}.*--run-dir"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    assert not (tmp_path / "agent.lock").exists()


def test_the_second_agent_is_told_who_holds_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two run directories do not make two helper devices: the second agent would take the first one's away."""
    monkeypatch.setattr(lock, "NAME", f"\0deflector-test-{os.getpid()}")
    first, second = HostLock(), HostLock()
    first.acquire()
    for _ in range(20):  # also when it has been asked more often than it has room for
        with pytest.raises(EnvironmentProblem, match="another deflector"):
            second.acquire()
    first.release()
    second.acquire()
    second.release()


async def test_the_first_failure_is_reported_with_the_name_of_its_task() -> None:
    async def breaks() -> None:
        raise OSError("broken")

    async def lasts() -> None:
        await asyncio.Event().wait()

    tasks = Tasks()
    tasks.start("lasting", lasts())
    tasks.start("breaking", breaks())
    failure = await asyncio.wait_for(tasks.failed(), 5)
    assert str(failure) == "broken"
    assert failure.__notes__ == ["in task breaking"]
    await tasks.stop()


async def test_stopping_ends_all_and_is_no_failure() -> None:
    ended = asyncio.Event()

    async def lasts() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tasks = Tasks()
    tasks.start("lasting", lasts())
    await asyncio.wait_for(_until_started(), 5)
    await tasks.stop()
    assert ended.is_set()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tasks.failed(), 0.01)


async def _until_started() -> None:
    for _ in range(3):
        await asyncio.sleep(0)
