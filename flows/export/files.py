"""A file of lines that never grows beyond its bounds: rotated by size, old ones compressed and removed.

Names are lumberjack's, which Hubble uses: `events.log` is written to, `events-2026-01-14T10-11-12.345.log[.gz]` are
the ones before. Blocking: belongs into a thread.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Final, Protocol

from flows.export.config import STDOUT, FileSpec

_STAMP: Final = "%Y-%m-%dT%H-%M-%S"
_STAMPED: Final = r"-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}(-\d+)?"


class Sink(Protocol):
    """Where lines go."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Take whole lines, each with its line end. Raises OSError; then none, or some, of them are written."""

    def close(self) -> None:
        """No more lines come."""


def open_sink(spec: FileSpec, now: Callable[[], datetime]) -> Sink:
    """The sink of this specification. Raises OSError."""
    return StdoutSink() if spec.path == STDOUT else RotatingFile(spec, now)


class StdoutSink:
    """The standard output, as long as it is there."""

    def write(self, lines: Sequence[bytes]) -> None:
        sys.stdout.buffer.write(b"".join(lines))
        sys.stdout.buffer.flush()

    def close(self) -> None:
        """It belongs to others too."""


class RotatingFile:
    """`now` gives the time in UTC, for the names of rotated files."""

    def __init__(self, spec: FileSpec, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._spec, self._now = spec, now
        self._path = Path(spec.path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: FileIO | None = None
        self._size = 0
        self._open()

    def write(self, lines: Sequence[bytes]) -> None:
        content = b"".join(lines)
        limit = self._spec.max_bytes
        if limit and self._size and self._size + len(content) > limit:
            self._rotate()
        elif self._file is not None and not self._is_there():
            self.close()  # logrotate, or a predecessor's last rotation, has moved it away
        if self._file is None:
            self._open()
        assert self._file is not None
        try:
            rest = memoryview(content)
            while rest:  # a disk that becomes full takes a part, and says so at the next try
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._cut_off()
            raise
        self._size += len(content)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be flushed was told as an error when it was written
                self._file.close()
            self._file = None

    def _open(self) -> None:
        # Owner and group may read: flows say who talks to whom.
        number = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._file = FileIO(number, "ab")
        self._size = os.fstat(number).st_size

    def _is_there(self) -> bool:
        assert self._file is not None
        try:
            named, opened = self._path.stat(), os.fstat(self._file.fileno())
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)

    def _cut_off(self) -> None:
        """A full disk may have taken a part of a line: readers of the file must not see it."""
        assert self._file is not None
        with contextlib.suppress(OSError):
            self._file.truncate(self._size)

    def _rotate(self) -> None:
        self.close()
        target = self._free_name()
        self._path.rename(target)
        self._open()
        if self._spec.compress:
            _compress(target)
        self._prune()

    def _free_name(self) -> Path:
        now = self._now()
        stamp = f"{now:{_STAMP}}.{now.microsecond // 1000:03d}"
        name, number = f"{self._path.stem}-{stamp}", 0
        while True:
            tail = f"-{number}" if number else ""
            target = self._path.with_name(f"{name}{tail}{self._path.suffix}")
            if not target.exists() and not target.with_name(f"{target.name}.gz").exists():
                return target
            number += 1

    def _prune(self) -> None:
        """Remove the oldest beyond `backups` (0: keep all). Names sort by time."""
        if not self._spec.backups:
            return
        form = re.compile(rf"{re.escape(self._path.stem)}{_STAMPED}{re.escape(self._path.suffix)}(\.gz)?")
        rotated = sorted(p for p in self._path.parent.iterdir() if form.fullmatch(p.name))
        for path in rotated[: -self._spec.backups]:
            path.unlink(missing_ok=True)


def _compress(path: Path) -> None:
    target = path.with_name(f"{path.name}.gz")
    with path.open("rb") as plain, gzip.open(target, "wb") as packed:
        shutil.copyfileobj(plain, packed)
    target.chmod(0o640)
    path.unlink()
