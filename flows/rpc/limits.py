"""How much a client may ask of a server. Pure; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server; what goes beyond is refused or ended, with a reason. Those who come by a Unix socket, as root
    does, have the same for themselves: nobody from elsewhere shuts them out."""

    connections: int = 64
    calls: int = 256  # open at once, of all connections together; beyond that, who has the most gives way
    streams: int = 100  # open at once, of one connection; clients are told, and others wait
    stall: float = 300.0  # seconds in which a caller takes nothing of what is there for it
    idle_frames: int = 1000  # frames at once that ask for nothing but cost work (RFC 9113 10.5)
    idle_frames_rate: float = 100.0  # and as many of them per second after that


class Allowance:
    """So much at once, and so much per second after that."""

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst, self._rate = burst, rate
        self._left, self._since = float(burst), now

    def spend(self, now: float) -> bool:
        """Take one; False if none is left."""
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
        self._left -= 1
        return self._left >= 0
