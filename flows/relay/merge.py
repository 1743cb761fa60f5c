"""Streams of several nodes, each in order, become one in order of time. Pure; the clock is an argument.

An event is let out when every stream that is still open has shown a later one, or when it has waited for `WINDOW`
seconds: a node that is silent holds up the others no longer than that. Nor do more than `WAITING_MAX` wait: then the
first go. Events of one time keep the order in which they came.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import Final

WINDOW: Final = 1.0  # seconds, as in Hubble's relay
WAITING_MAX: Final = 4096  # events


class Merger:
    """`streams`: names of those that are open at first."""

    def __init__(self, streams: frozenset[str] = frozenset()) -> None:
        self._open = set(streams)
        self._heap: list[tuple[int, int, str, float, bytes]] = []  # time, number, stream, when it came, event
        self._waiting: Counter[str] = Counter()  # events in the heap by stream
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def open(self, stream: str) -> None:
        """One more stream: its first event is waited for."""
        self._open.add(stream)

    def close(self, stream: str) -> None:
        """Nothing more comes from this stream."""
        self._open.discard(stream)

    def push(self, stream: str, time_ns: int, event: bytes, now: float) -> None:
        """An event came at `now` (seconds, monotonic). `time_ns` orders events."""
        self._number += 1
        self._waiting[stream] += 1
        heapq.heappush(self._heap, (time_ns, self._number, stream, now, event))

    def ready(self, now: float) -> Iterator[bytes]:
        """The events that need wait for nothing any more, in order."""
        while self._heap and (self._is_complete() or self._is_full() or self._heap[0][3] + WINDOW <= now):
            _, _, stream, _, event = heapq.heappop(self._heap)
            self._waiting[stream] -= 1
            yield event

    def wait(self, now: float) -> float | None:
        """Seconds until the first event has waited long enough; None if none waits."""
        return max(0.0, self._heap[0][3] + WINDOW - now) if self._heap else None

    def _is_full(self) -> bool:
        return len(self._heap) > WAITING_MAX

    def _is_complete(self) -> bool:
        return all(self._waiting[stream] for stream in self._open)
