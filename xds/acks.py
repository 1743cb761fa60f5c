"""The book of what the proxy has acknowledged, and the reading of what it complains about.

Pure: nobody waits here (xds.server does, bounded). One book per proxy; it is emptied when the proxy opens a new
stream, since nobody knows then what it still holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from xds.resources import FILTER, LISTENER, Key

# Envoy's text names listeners and clusters, and nothing in it is longer than a line that a person can read.
MAX_MESSAGE = 2000


@dataclass(frozen=True, slots=True)
class AckResult:
    """What became of the resources that were asked about. `missing` have neither been accepted nor refused (yet)."""

    acked: frozenset[Key] = frozenset()
    nacked: Mapping[Key, str] = field(default_factory=dict)
    missing: frozenset[Key] = frozenset()

    @property
    def is_complete(self) -> bool:
        """Whether every resource has been accepted."""
        return not self.nacked and not self.missing


class AckBook:
    """Which version of each resource the proxy has accepted on its present stream."""

    def __init__(self) -> None:
        self._held: dict[Key, str] = {}
        self._answered: set[str] = set()  # types of which some response has been accepted

    def reset(self) -> None:
        """A stream has begun or ended: nothing is known."""
        self._held.clear()
        self._answered.clear()

    def held(self, key: Key) -> str | None:
        return self._held.get(key)

    def acked(self, type_url: str, versions: Mapping[Key, str], removed: Iterable[Key]) -> None:
        """A response of this type has been accepted."""
        self._answered.add(type_url)
        self._held.update(versions)
        for key in removed:
            self._held.pop(key, None)

    def forget(self, keys: Iterable[Key]) -> None:
        """What the proxy holds of these is unknown: it was NACKed with them (Envoy applies a response resource by
        resource, envoy PR 6024), or it has asked for them anew."""
        for key in keys:
            self._held.pop(key, None)

    def judge(self, served: Mapping[Key, str | None], refused: Mapping[Key, str]) -> AckResult:
        """Compare with what is served (None: absent, and its absence is to be acknowledged)."""
        nacked = {key: message for key, message in sorted(refused.items()) if key in served}
        acked = {key for key, version in served.items() if key not in nacked and self.is_accepted(key, version)}
        return AckResult(frozenset(acked), nacked, frozenset(served.keys() - acked - nacked.keys()))

    def is_accepted(self, key: Key, version: str | None) -> bool:
        """What is absent is known to be gone once the proxy has accepted a world without it. Filters are asked for by
        name: they are gone with their listeners."""
        if version is None and (LISTENER if key.type_url == FILTER else key.type_url) not in self._answered:
            return False
        return self._held.get(key) == version


def offenders(message: str, keys: Collection[Key]) -> frozenset[Key]:
    """The resources that an error names; all of them when it names none (so none is taken for good by mistake)."""
    named = frozenset(key for key in keys if _names(message, key.name))
    return named or frozenset(keys)


def _names(message: str, name: str) -> bool:
    """Whether the name stands in the message as a whole: `ingress:1:80` is not named by `ingress:1:8080`."""
    return re.search(rf"(?<![\w.:/-]){re.escape(name)}(?![\w/-]|[.:][\w])", message) is not None


def one_line(message: str) -> str:
    """Envoy's message on one line, not longer than a person reads."""
    text = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."
