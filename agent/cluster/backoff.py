"""How long to wait after a failure: twice as long each time, and never all at the same moment. Pure: chance is an
argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Seconds to wait. `chance()` gives 0..1: each delay is spread over its upper half, so that five hundred nodes that
    lost the same server do not come back in one moment."""

    chance: Callable[[], float]
    first: float = 0.2
    last: float = 30.0
    _failures: int = 0

    def reset(self) -> None:
        """It went well."""
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many there were in a row."""
        return self._failures

    def next(self, at_least: float = 0.0) -> float:
        """The delay after one more failure. `at_least`: what the server asked for."""
        delay: float = min(self.first * 2.0 ** min(self._failures, 30), self.last)
        self._failures += 1
        if delay < at_least:
            return at_least + delay * self.chance()
        return max(at_least, delay * (1 - self.chance() / 2))
