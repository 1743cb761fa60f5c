"""Watch a folder of manifests: the only I/O of this package. Yields what changed, never a state that is not there.

A change is found by looking at the folder again, not by believing the notification: editors rename, kubelets swap the
`..data` link of a ConfigMap, and links point out of the folder. What looks like a loss (a file gone, or empty) is
looked at twice: taking a policy out of force opens what it closes. An empty folder in the place of the one that was
read is no loss of files but of the folder: a mount that is gone shows what is below it.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from watchfiles import awatch

from policies.reading.manifests import SUFFIXES, TEXT_MAX, FileEvent

__all__ = ["FileEvent", "read_folder", "watch_folder"]

LOSS_GRACE_MS: Final = 150  # editors that write in place leave a file empty, or away, for some milliseconds
RESCAN_MS: Final = 1000  # links that point out of the folder give no notification, and a folder may be replaced
REPLACED: Final = "is another one now, and empty: is its mount gone? What was in it stays in force until it has files"
HOLD_OFF: Final = 10  # a folder that never becomes quiet is looked at after so many quiet times


def read_folder(folder: Path) -> tuple[FileEvent, ...]:
    """Every manifest of the folder as it is now, sorted: what `watch_folder` yields first."""
    return _View(folder).look()


async def watch_folder(folder: Path, quiet_ms: int, *, had_files: bool = False) -> AsyncIterator[tuple[FileEvent, ...]]:
    """First every manifest there is, sorted (perhaps none), then changes, once they have been quiet for `quiet_ms`.

    Never ends. A folder that is missing, unreadable or replaced by an empty one is an event of the folder itself, with
    an error, and what was read from it before stays; it is watched again as soon as it is there and something is in it.
    `had_files`: an earlier agent read some, so an empty folder is another one already at the start.
    """
    view = _View(folder, had_files)
    yield await asyncio.to_thread(view.look)
    while True:
        watched = _inode(folder)
        async for events in _settled(view):  # what changed while nothing was watching
            yield events
        if watched is None:
            await asyncio.sleep(RESCAN_MS / 1000)
            continue
        async with aclosing(_notifications(folder, quiet_ms)) as notifications:
            async for _ in notifications:
                async for events in _settled(view):
                    yield events
                if _inode(folder) != watched:
                    break


async def _notifications(folder: Path, quiet_ms: int) -> AsyncGenerator[None, None]:
    """One for each burst of changes, and one each RESCAN_MS."""
    quiet_ms = max(quiet_ms, 1)
    try:
        async for _ in awatch(
            folder,
            watch_filter=None,
            debounce=quiet_ms * HOLD_OFF,
            step=quiet_ms,
            rust_timeout=RESCAN_MS,
            yield_on_timeout=True,
            recursive=False,
        ):
            yield
    except FileNotFoundError:
        return  # gone between two looks


async def _settled(view: _View) -> AsyncIterator[tuple[FileEvent, ...]]:
    """What changed now, and, after a moment of grace, what is still lost."""
    events = await asyncio.to_thread(view.look)
    if events:
        yield events
    if view.has_losses:
        await asyncio.sleep(LOSS_GRACE_MS / 1000)
        events = await asyncio.to_thread(view.look, accept_losses=True)
        if events:
            yield events


@dataclass(slots=True)
class _View:
    """The folder as it was told last."""

    folder: Path
    had_files: bool = False
    has_losses: bool = False
    _home: tuple[int, int] | None = None  # device and inode of the folder that had the files
    _stamps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _told: dict[str, FileEvent] = field(default_factory=dict)

    def look(self, accept_losses: bool = False) -> tuple[FileEvent, ...]:
        """Compare the folder with what was told. A loss is told only if it was seen before and is to be accepted."""
        accept = accept_losses and self.has_losses
        self.has_losses = False
        here = str(self.folder)
        try:
            home, names = _list(self.folder)
        except OSError as error:
            return self._tell([FileEvent(here, None, f"the folder of manifests: {_words(error)}")])
        if not names and home != self._home and (self._told.keys() - {here} or (self.had_files and not self._home)):
            return self._tell([FileEvent(here, None, f"the folder of manifests {REPLACED}")])
        self._home = home
        found = {str(self.folder / name): self._read(str(self.folder / name)) for name in names}
        events = [FileEvent(here, None)] if here in self._told else []
        for path, event in found.items():
            if event is not None and (accept or not self._is_loss(path, event)):
                events.append(event)
        for path in self._told.keys() - found.keys() - {here}:
            if accept:
                events.append(FileEvent(path, None))
            else:
                self.has_losses = True
        return self._tell(events)

    def _is_loss(self, path: str, event: FileEvent) -> bool:
        before = self._told.get(path)
        is_loss = before is not None and bool(before.text) and event.text is not None and not event.text.strip()
        if is_loss:
            self.has_losses = True
            self._stamps.pop(path, None)
        return is_loss

    def _tell(self, events: list[FileEvent]) -> tuple[FileEvent, ...]:
        """Keep and return what is news; removals first, so that an object that moved is never in two files."""
        news = [event for event in events if self._told.get(event.path) != event]
        for event in news:
            if event.text is None and not event.error:
                self._told.pop(event.path, None)
                self._stamps.pop(event.path, None)
            else:
                self._told[event.path] = event
        return tuple(sorted(news, key=lambda event: (event.text is not None or bool(event.error), event.path)))

    def _read(self, path: str) -> FileEvent | None:
        """The file as it is; None if it is as it was."""
        try:
            found = os.stat(path)
            if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its writer
                return FileEvent(path, None, "is not a regular file")
            stamp = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
            if self._stamps.get(path) == stamp:
                return None
            if found.st_size > TEXT_MAX:
                return FileEvent(path, None, f"is larger than {TEXT_MAX >> 20} MiB")
            text = Path(path).read_bytes().decode()
        except UnicodeDecodeError as error:
            return FileEvent(path, None, f"is not UTF-8: byte {error.start}")
        except OSError as error:
            return FileEvent(path, None, _words(error))
        self._stamps[path] = stamp
        return FileEvent(path, text)


def _list(folder: Path) -> tuple[tuple[int, int], list[str]]:
    """Device and inode of the folder, and the names of its manifests; both of the same folder, whoever swaps it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        with os.scandir(fd) as entries:
            names = sorted(e.name for e in entries if e.name.endswith(SUFFIXES) and not e.name.startswith("."))
    finally:
        os.close(fd)
    return (found.st_dev, found.st_ino), names


def _inode(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
