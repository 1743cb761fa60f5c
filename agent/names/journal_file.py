"""The file of the journal of learned names. Thin; the only file access.

What was written is kept by the kernel when the process is killed, so nothing waits for the disk: after a crash of the
machine there are no pods whose names could matter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent.names import journal
from agent.names.book import Holding

COMPACT_AT: Final = 4 << 20  # bytes of changes after which a snapshot is written instead
JOURNAL_MAX: Final = 1 << 30  # bytes; a file above that is not read


class JournalFile:
    """The journal of learned names. One writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._grown = 0  # bytes since the snapshot
        self._compact = 0  # bytes of the snapshot
        self.trouble = ""  # why not all that is held is in the file; until the next snapshot

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def open(self) -> journal.Replay:
        """Read what is there, cut off what is torn, and be ready to append. OSError where that fails."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        content = self._path.read_bytes() if size <= JOURNAL_MAX else b""
        found = journal.replay(content)
        found.lost = size - found.valid
        os.ftruncate(self._fd, found.valid)
        self._grown = found.valid
        return found

    def keep(self, holdings: Iterable[Holding]) -> None:
        """These are held from now on, or for longer."""
        self._append(journal.kept(holdings))

    def drop(self, holdings: Iterable[Holding]) -> None:
        """These are held no more."""
        self._append(journal.dropped(holdings))

    @property
    def is_due(self) -> bool:
        """Whether `snapshot` should be called."""
        return bool(self.trouble) or self._grown >= max(COMPACT_AT, self._compact)

    def snapshot(self, holdings: Iterable[Holding]) -> None:
        """Replace the journal by what is held now. OSError where that fails: it is as it was."""
        content = journal.kept(holdings)
        _replace(self._path, content)
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._grown, self._compact, self.trouble = 0, len(content), ""

    def close(self) -> None:
        """Write no more. Harmless the second time."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, lines: bytes) -> None:
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            self.trouble = error.strerror or "it cannot be written"
            with contextlib.suppress(OSError):  # of what would follow half a line, nothing would be believed
                os.ftruncate(self._fd, self._compact + self._grown)
            raise
        self._grown += len(lines)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_bytes(content)
        beside.chmod(0o600)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)  # it may be what fills the disk
        raise
