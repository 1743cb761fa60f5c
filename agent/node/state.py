"""What a new agent must agree on with the maps that the old one left pinned: identities, slots, proxy ports.

One JSON file, replaced whole, written before the effects it describes: after a crash it knows at least as much as the
kernel does. A file that cannot be read counts as absent, with a warning: then everything is programmed anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class NodeState:
    """Plain data of the three books, in the form their own to_dict gives."""

    identities: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, Any] = field(default_factory=dict)
    ports: Mapping[str, Any] = field(default_factory=dict)


def load(path: Path) -> tuple[NodeState | None, str | None]:
    """The stored state, or None and, where there was a file, the reason why it is not used."""
    try:
        stored = json.loads(path.read_text())
        if stored["version"] != STATE_VERSION:
            return None, f"{path} has version {stored['version']}, this agent writes {STATE_VERSION}: starting afresh"
        return NodeState(dict(stored["identities"]), dict(stored["slots"]), dict(stored["ports"])), None
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"{path} cannot be read ({error}): starting afresh"


def save(path: Path, state: NodeState) -> None:
    """Replace the file in one step; it is either the old or the new state, never half of one."""
    text = json.dumps(
        {"version": STATE_VERSION, "identities": state.identities, "slots": state.slots, "ports": state.ports}
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
