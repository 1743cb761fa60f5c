"""Child processes of the bench: started in sessions of their own, ended by their own id, whatever happens.

They do not get the terminal's Ctrl-C: the bench does, and ends them in order.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.errors import NotMeasured
from conformance import netns

STOP_TIMEOUT = 15.0  # seconds between the polite signal and SIGKILL
LAST_LINES = 3


class Child:
    """A process inside a network namespace, with its output in a file."""

    def __init__(self, name: str, namespace: str, argv: Sequence[str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                netns.inside(namespace, argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """nsenter becomes the program it is told to run, so this is the program's own id."""
        return self._process.pid

    def check(self) -> None:
        """Raise NotMeasured, with the last words of the process, if it has ended."""
        code = self._process.poll()
        if code is not None:
            words = " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:])
            raise NotMeasured(f"{self.name} ended with code {code}: {words or 'it said nothing'}")

    def wait(self) -> None:
        """Until it has ended of itself, but not for ever."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self, polite: signal.Signals = signal.SIGTERM) -> None:
        """End it in peace, or else by force."""
        if self._process.poll() is None:
            self._process.send_signal(polite)
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def running(name: str, namespace: str, argv: Sequence[str], log: Path) -> Iterator[Child]:
    """A child for the length of the block."""
    child = Child(name, namespace, argv, log)
    try:
        yield child
    finally:
        child.stop()
