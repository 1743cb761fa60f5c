"""What becomes of objects at an API server, one at a time: what a watch of it yields, as a watch of a folder yields
FileEvents. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from policies.objects import ObjectKey
from policies.reading.readers import Reading


@dataclass(frozen=True, slots=True)
class Updated:
    """The object is there and reads like this. `version` changes when what is asked for changes."""

    key: ObjectKey
    reading: Reading
    version: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object is gone."""

    key: ObjectKey


@dataclass(frozen=True, slots=True)
class Failed:
    """What comes from `source` cannot be read for now: what was read of it stays in force. "": it can again."""

    source: str
    message: str


ObjectEvent = Updated | Deleted | Failed
