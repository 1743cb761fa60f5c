"""A configuration file that is looked at again and again: kubelets swap links, which no notification tells reliably."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

TEXT_MAX = 1 << 20  # bytes; a ConfigMap holds no more


class DynamicFile:
    """`apply` takes the file as read from YAML (None: empty or absent) and raises ValueError if it cannot be used.

    A file that cannot be read or used changes nothing; `complain` gets one line for each new way of being bad.
    """

    def __init__(self, path: Path, apply: Callable[[Any], None], complain: Callable[[str], None]) -> None:
        self._path, self._apply, self._complain = path, apply, complain
        self._known: str | None = None
        self._complaint = ""

    async def follow(self, seconds: float) -> None:
        """Look now and every so many seconds. Never ends."""
        while True:
            self.look(await asyncio.to_thread(self.read))
            await asyncio.sleep(seconds)

    def read(self) -> str | OSError | ValueError:
        """The text of the file, or why there is none."""
        try:
            with self._path.open("rb") as file:
                content = file.read(TEXT_MAX + 1)
            if len(content) > TEXT_MAX:
                return ValueError(f"is larger than {TEXT_MAX} bytes")
            return content.decode()
        except (OSError, UnicodeDecodeError) as error:
            return error

    def look(self, found: str | OSError | ValueError) -> None:
        """Apply what was found, if it is new."""
        if isinstance(found, OSError):
            self._refuse(f"cannot be read: {found.strerror or found}")
        elif isinstance(found, ValueError):
            self._refuse(str(found))
        elif found != self._known:
            self._known = found
            try:
                self._apply(yaml.load(found, Loader=yaml.CSafeLoader))
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                self._refuse(" ".join(str(error).split()))
            else:
                self._complaint = ""

    def _refuse(self, why: str) -> None:
        if why != self._complaint:
            self._complaint = why
            self._complain(f"{self._path}: {why}; what was in force stays")
