"""The node under test: `deflector run` as a process of its own in the galaxy's node namespace.

What it does is learnt as any user would: from `deflector status -o json`, its exit code and its log.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from conformance import netns
from conformance.errors import EnvironmentFailure, NotEnforced
from conformance.footprint import footprint, left_behind
from conformance.galaxy import NODE, Galaxy

START_PATIENCE = 30.0  # seconds until the node is ready: compiling BPF on a slow machine takes some
ENFORCE_PATIENCE = 10.0  # seconds until a saved file is enforced
STOP_PATIENCE = 10.0  # seconds from SIGTERM to the end
STATUS_PATIENCE = 10.0
POLL = 0.02  # seconds between two questions; asking takes longer than this
LOG_TAIL = 15

Status = Mapping[str, Any]

DEFLECTOR = Path(sys.executable).parent / "deflector"


class Node:
    """A node of a galaxy. `refused` are files that it may not enforce (they are no good on purpose); `flags` are those
    of its next start."""

    def __init__(self, galaxy: Galaxy, flags: tuple[str, ...] = ()) -> None:
        self.galaxy = galaxy
        self.flags = flags
        self.refused: set[str] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._untouched = footprint(galaxy)

    @property
    def log_file(self) -> Path:
        return self.galaxy.folder / "node.log"

    @property
    def hubble_socket(self) -> Path:
        return self.galaxy.run_dir / "hubble.sock"

    def log_tail(self, lines: int = LOG_TAIL) -> list[str]:
        """The end of what the node printed."""
        try:
            return self.log_file.read_text(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    async def status(self) -> dict[str, Any] | None:
        """The node's status document, or None while it does not answer."""
        if self._process is None or self._process.returncode is not None:
            code = self._process.returncode if self._process else "-"
            raise EnvironmentFailure(f"deflector run has ended with exit code {code}: {self._last_words()}")
        argv = [str(DEFLECTOR), "status", "-o", "json", "--run-dir", str(self.galaxy.run_dir)]
        asker = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(STATUS_PATIENCE):
                out, _ = await asker.communicate()
        except TimeoutError:
            asker.kill()
            await asker.wait()
            return None
        try:
            document = json.loads(out)
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises EnvironmentFailure."""
        if not DEFLECTOR.exists():
            raise EnvironmentFailure(f"{DEFLECTOR} is missing: run 'make setup'")
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "TERM", *command(self.galaxy, self.flags)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: the node is stopped in order
            )
        await self.ready()

    async def kill(self) -> None:
        """kill -9 of the agent, and of nothing else."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> list[str]:
        """SIGTERM, a bounded wait, and SIGKILL if it must be; returns what is not as it was before the node came."""
        if self._process is None or self._process.returncode is not None:
            return ["it had ended before it was stopped"]
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_PATIENCE):
                code = await self._process.wait()
        except TimeoutError:
            await self.kill()
            return [f"it has not ended {STOP_PATIENCE:.0f} s after SIGTERM"]
        ended_badly = [f"it ended with exit code {code}"] if code else []
        return ended_badly + left_behind(self._untouched, footprint(self.galaxy))

    async def ready(self) -> None:
        """Wait until the node is ready and enforces the manifests. Raises EnvironmentFailure saying what is missing."""
        why_not = await self._until(lambda status: status["ready"] and not self._unenforced(status), START_PATIENCE)
        if why_not:
            raise EnvironmentFailure(f"deflector run is not ready after {START_PATIENCE:.0f} s: {why_not}")

    async def enforced(self) -> None:
        """Wait until every manifest as it is now is enforced, and nothing that is gone still is. Raises NotEnforced."""
        why_not = await self._until(lambda status: not self._unenforced(status), ENFORCE_PATIENCE)
        if why_not:
            raise NotEnforced(f"not enforced after {ENFORCE_PATIENCE:.0f} s: {why_not}")

    async def complained(self, words: Collection[str]) -> None:
        """Wait until the status reports a problem with all these words in it. Raises NotEnforced."""

        def has_complaint(status: Status) -> bool:
            return any(all(word in problem for word in words) for problem in map(str, status["problems"]))

        why_not = await self._until(has_complaint, ENFORCE_PATIENCE)
        if why_not:
            raise NotEnforced(f"no problem with the words {', '.join(words)} is reported: {why_not}")

    async def _until(self, settled: Callable[[Status], bool], patience: float) -> str:
        """ "" as soon as the status is as wanted, or why it is not when patience ends."""
        deadline = time.monotonic() + patience
        while True:
            status = await self.status()
            if status is not None and settled(status):
                return ""
            if time.monotonic() > deadline:
                return self._why_not(status)
            await asyncio.sleep(POLL)

    def _unenforced(self, status: Status) -> list[str]:
        """Files whose state in the kernel is not that on disk."""
        wanted, enforced = self.galaxy.manifests.digests(), status["enforced_files"]
        names = (set(wanted) | set(enforced)) - self.refused
        late = sorted(name for name in names if wanted.get(name) != enforced.get(name))
        return late or (["(pending)"] if status["pending"] else [])

    def _why_not(self, status: Status | None) -> str:
        if status is None:
            return f"'deflector status' gives no answer; {self._last_words()}"
        late, problems = ", ".join(self._unenforced(status)), "; ".join(map(str, status["problems"]))
        return f"waiting for {late or 'nothing'}; problems: {problems or 'none'}"

    def _last_words(self) -> str:
        return " / ".join(self.log_tail(3)) or "it printed nothing"


def command(galaxy: Galaxy, flags: Sequence[str] = ()) -> list[str]:
    """The command line of the node, as a user could type it."""
    argv = [str(DEFLECTOR), "run", "--manifests", str(galaxy.manifests.root), "--run-dir", str(galaxy.run_dir)]
    return netns.inside(
        galaxy.namespace(NODE), [*argv, "--bpffs", str(galaxy.bpffs), "--node-name", galaxy.blueprint.name, *flags]
    )


@asynccontextmanager
async def running(galaxy: Galaxy, flags: tuple[str, ...] = ()) -> AsyncIterator[Node]:
    """A node that runs and is ready; it is stopped at the end, and ends with us, come what may."""
    node = Node(galaxy, flags)
    try:
        await node.start()
        yield node
    finally:
        await node.stop()
