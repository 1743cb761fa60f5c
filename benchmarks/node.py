"""Deflector as a user runs it: `deflector run` on the node of a galaxy, asked through `deflector status`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.child import Child
from benchmarks.errors import NotMeasured
from conformance.galaxy import NODE, Galaxy

COMMAND = Path(sys.executable).with_name("deflector")
READY = 60.0  # seconds from start to ready, the first compilation of the kernel programs included
STATUS_TIMEOUT = 10.0
PAUSE = 0.05  # seconds between two looks


def ask_status(run_dir: Path) -> dict[str, Any] | None:
    """What `deflector status -o json` says; None as long as nobody answers."""
    argv = [str(COMMAND), "status", "--run-dir", str(run_dir), "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=STATUS_TIMEOUT, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Node:
    """A running node. It can die and come back: `child` is the agent of the moment."""

    def __init__(self, galaxy: Galaxy) -> None:
        self._galaxy = galaxy
        self.child = self._spawn()

    @property
    def agent_pid(self) -> int:
        return self.child.pid

    @property
    def envoy_pid(self) -> int:
        """Process id of its Envoy. Raises NotMeasured if there is none."""
        status = self.status()
        pid = (status or {}).get("envoy", {}).get("pid")
        if not pid:
            raise NotMeasured("deflector status names no Envoy")
        return int(pid)

    @property
    def hubble_socket(self) -> Path:
        return self._galaxy.run_dir / "hubble.sock"

    def status(self) -> dict[str, Any] | None:
        """What `deflector status -o json` says; None as long as nobody answers."""
        return ask_status(self._galaxy.run_dir)

    def await_ready(self) -> None:
        """Wait until the node says that it is ready."""
        self.await_status(lambda status: bool(status["ready"] and not status["pending"]), "ready", READY)

    def await_status(self, good: Callable[[dict[str, Any]], bool], what: str, timeout: float) -> None:
        """Wait until the status is as wanted; `what` says so in words. Raises NotMeasured."""
        deadline = time.monotonic() + timeout
        seen: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            self.child.check()
            seen = self.status()
            if seen is not None and good(seen):
                return
            time.sleep(PAUSE)
        problems = "; ".join(seen["problems"]) if seen else "it does not answer"
        raise NotMeasured(f"Deflector is not {what} after {timeout:.0f} s: {problems or 'it names no problem'}")

    def respawn(self) -> None:
        """Start the agent again after its death."""
        self.child = self._spawn()

    def _spawn(self) -> Child:
        made = self._galaxy
        argv = [str(COMMAND), "run", "--manifests", str(made.manifests.root), "--run-dir", str(made.run_dir)]
        argv += ["--bpffs", str(made.bpffs), "--node-name", "node", "--concurrency", "1"]
        return Child("deflector run", made.namespace(NODE), argv, made.folder / "deflector.log")


@contextmanager
def deflector(galaxy: Galaxy) -> Iterator[Node]:
    """A node that is ready, for the length of the block; ended as by Ctrl-C."""
    node = Node(galaxy)
    try:
        node.await_ready()
        yield node
    finally:
        node.child.stop(signal.SIGINT)
