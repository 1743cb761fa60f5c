"""How readers and what comes in share one event loop: what comes in goes first. Pure; the clock is given.

A proxy whose log is not taken drops entries, and nobody knows which: a denial may be among them. A reader that gets
less time loses flows that were forwarded, and is told how many. So readers get what building leaves of the time, but
never less than a small part of it.
"""

from __future__ import annotations

from collections.abc import Callable

LEAST = 0.2  # share of time that all readers together have, however much comes in
MOST = 0.9
GIVEN_UP = 1.8  # share that they give up for each share that building takes: it may want more than it gets
WINDOW = 0.2  # seconds over which the share of building is taken


class Pace:
    """`monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._built = 0.0  # seconds of building since then
        self._share = 0.0  # ... in the window before

    def built(self, seconds: float) -> None:
        """So long was spent on what came in."""
        self._built += seconds

    def rest(self, worked: float) -> float:
        """Seconds that a reader, after so many of work by all readers, leaves to others: 0 while there is time."""
        now = self._monotonic()
        if (span := now - self._since) >= WINDOW:
            self._share, self._built, self._since = self._built / span, 0.0, now
        allowed = max(LEAST, MOST - GIVEN_UP * self._share)
        return worked * (1 / allowed - 1) if self._share else 0.0
