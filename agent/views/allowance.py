"""A share of the time for work that can be done without: what costs more waits, or is left out. Clock injected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Allowance:
    """`share` of the time (0..1), of which `burst_ns` can be saved up. `now_ns` only ever increases."""

    def __init__(self, now_ns: Callable[[], int], share: float, burst_ns: int) -> None:
        self._now_ns, self._share, self._burst_ns = now_ns, share, burst_ns
        self._saved = float(burst_ns)
        self._since = now_ns()
        self.refused = 0

    def run(self, work: Callable[[], T]) -> T | None:
        """Do it now and pay for it; None if nothing is left. Work that takes longer than what is left is finished, and
        paid for by what comes later."""
        began = self._now_ns()
        self._saved = min(self._saved + (began - self._since) * self._share, self._burst_ns)
        self._since = began
        if self._saved <= 0:
            self.refused += 1
            return None
        try:
            return work()
        finally:
            self._saved -= self._now_ns() - began
