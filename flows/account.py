"""What became of every flow, in numbers that add up. Pure values.

produced = skipped + held + overwritten
of what a follower was there for: sent + passed over + lost + what it has still to look at
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReaderAccount:
    """Of one reader, or of many together."""

    sent: int = 0
    passed_over: int = 0  # by its filters, or beyond its end
    lost: int = 0  # overwritten before it could look; it was told

    def __add__(self, other: ReaderAccount) -> ReaderAccount:
        return ReaderAccount(self.sent + other.sent, self.passed_over + other.passed_over, self.lost + other.lost)


@dataclass(frozen=True, slots=True)
class RingAccount:
    """Of the ring. `denials_overwritten` are those of which nothing is left, built or not."""

    produced: int = 0
    skipped: int = 0  # never built: nobody read, and no one asked before newer ones took their place
    held: int = 0  # can be read now
    overwritten: int = 0  # were built, and had to give way
    denials: int = 0
    denials_held: int = 0
    denials_overwritten: int = 0
