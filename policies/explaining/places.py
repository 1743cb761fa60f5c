"""Where a clause stands in the files that were read: origin -> file and line. Pure; files are read by others.

Asked for a few clauses of an answer, never for all: a file is looked at only if it names the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policies.errors import PolicyErrors
from policies.objects import ObjectKey
from policies.reading.manifests import Chunk, Document, Locator, read_chunk, split
from policies.reading.readers import identify
from policies.types import Origin


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class _Written:
    """An object in its chunk."""

    document: Document
    chunk: Chunk
    locator: Locator


class Places:
    """The files of a folder by name. Of an object that stands in two, the first is in force, and is named."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._known: dict[str, dict[ObjectKey, _Written]] = {}

    def of(self, origin: Origin) -> Place | None:
        """The line of the field that the origin names, or of the nearest thing around it; None if nobody wrote it."""
        key = ObjectKey(origin.kind, origin.namespace, origin.name)
        for name, text in self._files.items():
            if origin.name in text and (written := self._objects(name, text).get(key)) is not None:
                return Place(name, _line(written, origin.path))
        return None

    def _objects(self, name: str, text: str) -> dict[ObjectKey, _Written]:
        if name not in self._known:
            self._known[name] = dict(_read(text))
        return self._known[name]


def _line(written: _Written, path: str) -> int:
    prefix = written.document.prefix
    found = written.locator.line(f"{prefix}.{path}" if prefix and path else prefix or path)
    return written.chunk.line - 1 + (found or written.document.line)


def _read(text: str) -> list[tuple[ObjectKey, _Written]]:
    """The objects of a file, the first of each key last, so that it stays."""
    found = []
    try:
        for chunk in split(text):
            locator = Locator(chunk.text)
            for document in read_chunk(chunk):
                key = identify(document.raw)
                if key is not None:
                    found.append((key, _Written(document, chunk, locator)))
    except PolicyErrors:
        return []  # what of it is in force comes from an older text
    return found[::-1]
