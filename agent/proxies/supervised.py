"""A process of its own session that the agent keeps alive: started, adopted after the agent's death, restarted after
its own, stopped.

It runs without a death signal, so that `kill -9` of the agent fails no request (law 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RESTART_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0)  # seconds; the last one repeats
STOP_TIMEOUT = 5.0  # seconds between SIGTERM and SIGKILL
HEALTHY_AFTER = 30.0  # seconds of life after which a crash counts as the first again


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same number: pid and start time (clock ticks)."""

    pid: int
    started: int

    @staticmethod
    def of(pid: int) -> ProcessId | None:
        """The living process with this pid; None if there is none or it is a zombie."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else ProcessId(pid, int(fields[19]))  # proc(5): state is 3rd, starttime 22nd

    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self


@dataclass(frozen=True, slots=True)
class Program:
    """What is run, and its files. `name` is for people; `leftovers` are removed when it has been stopped."""

    name: str
    pid_file: Path
    log: Path
    command: Callable[[], Sequence[str]]
    leftovers: tuple[Path, ...] = ()


class Supervised:
    """One process of one node. `on_change` is called with a sentence whenever it starts, dies or is adopted."""

    def __init__(self, program: Program, on_change: Callable[[str], None]) -> None:
        self._program = program
        self._on_change = on_change
        self._process: ProcessId | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.alive() else None

    async def run(self) -> None:
        """Keep one alive until cancelled. Cancelling leaves it running: `stop` ends it."""
        self.adopt()
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            why = await self._live()
            if asyncio.get_running_loop().time() - began > HEALTHY_AFTER:
                failures = 0
            delay = RESTART_DELAYS[min(failures, len(RESTART_DELAYS) - 1)]
            failures += 1
            self.restarts += 1
            self._on_change(f"{self._program.name} ended ({why}); restarting in {delay:g} s")
            self._process = None
            await asyncio.sleep(delay)

    def adopt(self) -> None:
        """Take over the one that an earlier agent has started, if it lives."""
        recorded = _recorded(self._program.pid_file)
        if self._process is None and recorded is not None and recorded.alive():
            self._process = recorded
            self._on_change(f"adopted {self._program.name}, which was running already as process {recorded.pid}")

    async def stop(self) -> None:
        """End it, also one that an earlier agent left behind."""
        process = self._process or _recorded(self._program.pid_file)
        self._process = None
        if process is not None and process.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(ended(process), STOP_TIMEOUT)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                await ended(process)
        for path in (self._program.pid_file, *self._program.leftovers):
            path.unlink(missing_ok=True)

    async def _live(self) -> str:
        """One life; why it ended, or could not begin (no disk space, no memory, no binary any more)."""
        try:
            if self._process is None:
                self._start()
        except OSError as error:
            return f"cannot start: {error.strerror}"
        assert self._process is not None
        await ended(self._process)
        return f"last words: {_last_line(self._program.log)}"

    def _start(self) -> None:
        program = self._program
        command = list(program.command())
        with program.log.open("wb") as log:
            pid = os.posix_spawn(
                command[0],
                command,
                {"PATH": os.environ.get("PATH", "")},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
            )
        process = ProcessId.of(pid) or ProcessId(pid, 0)
        try:
            program.pid_file.write_text(json.dumps({"pid": pid, "started": process.started}))
        except OSError:  # one that the next agent would not find must not live
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._process = process
        self._on_change(f"started {program.name}, process {pid}")


def _recorded(path: Path) -> ProcessId | None:
    try:
        stored = json.loads(path.read_text())
        return ProcessId(int(stored["pid"]), int(stored["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def ended(process: ProcessId) -> None:
    """Wait until the process has ended; works for children and for adopted ones alike (pidfd)."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if process.alive():
            loop = asyncio.get_running_loop()
            done = asyncio.Event()
            loop.add_reader(fd, done.set)
            try:
                await done.wait()
            finally:
                loop.remove_reader(fd)
    finally:
        os.close(fd)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # noqa: ASYNC222 - does not wait: reaps what has ended


def _last_line(path: Path) -> str:
    """The last line of the log, shortened: a process says there why it could not start."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1][-300:] if lines else "no word in its log"
