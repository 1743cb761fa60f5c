"""The table of values in docs/install.md, made of the comments in values.yaml: `# --` above a value says what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z0-9]+):")
ABOUT = re.compile(r"^ *# -- (?P<text>.+)$")


@dataclass(frozen=True, slots=True)
class Row:
    """A value: where it is, what it is for, and its default."""

    path: str
    about: str
    default: Any


def value_at(values: Any, path: str) -> Any:
    """The value at `a.b.c`."""
    for name in path.split("."):
        values = values[name]
    return values


def rows(file: Path) -> Iterator[Row]:
    """Each value that has a comment, in the order of the file."""
    text = file.read_text()
    values, folders, about = yaml.safe_load(text), [""], ""
    for line in text.splitlines():
        if found := ABOUT.match(line):
            about = found["text"]
        elif found := KEY.match(line):
            folders = [*folders[: len(found["indent"]) // 2], found["name"]]
            if about:
                path = ".".join(folders)
                yield Row(path, about, value_at(values, path))
            about = ""


def table(file: Path) -> str:
    """In Markdown."""
    lines = ["| value | default | |", "|---|---|---|"]
    lines += [f"| `{row.path}` | {_shown(row.default)} | {row.about} |" for row in rows(file)]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"`{json.dumps(value)}`" if value not in ("", [], {}) else "none"
