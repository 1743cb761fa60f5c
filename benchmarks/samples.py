"""Statistics of measurements, and the order in which legs take turns. Pure.

A noisy machine drifts: two things are compared only within one round of legs that took turns, and of the rounds the
median counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

Leg = TypeVar("Leg", bound=Hashable)


def median(values: Iterable[float]) -> float:
    """The middle value. Raises ValueError if there is none."""
    kept = list(values)
    if not kept:
        raise ValueError("no samples")
    return statistics.median(kept)


def percentile(values: Iterable[float], share: float) -> float:
    """Nearest rank: the smallest sample that at least `share` (0 < share <= 1) of all samples do not exceed."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no samples")
    if not 0 < share <= 1:
        raise ValueError(f"share {share} is not within 0..1")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median over the rounds of numerator/denominator, each pair taken in the same round."""
    return median(n / d for n, d in zip(numerators, denominators, strict=True))


def in_turns(legs: Sequence[Leg], rounds: int) -> Iterator[tuple[int, Leg]]:
    """A B C, C B A, A B C ...: every leg once per round, and none always first. Rounds count from 0."""
    for number in range(rounds):
        for leg in legs if number % 2 == 0 else reversed(legs):
            yield number, leg


def medians(by_leg: Mapping[Leg, Sequence[float]]) -> dict[Leg, float]:
    """Leg -> median of its samples."""
    return {leg: median(samples) for leg, samples in by_leg.items()}
