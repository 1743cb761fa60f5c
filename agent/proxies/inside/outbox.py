"""What waits to be told of records: packed by the hundreds, bounded by the flows that they become. Pure.

While the agent is away, or slow, what is oldest gives way; denials last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from xds.protos.deflector.l7.v1.reports_pb2 import Records

FLOWS_MAX: Final = 65_536  # some 10 MB


@dataclass
class Outbox:
    """`denials_of` takes everything but denials out of packed records."""

    denials_of: Callable[[bytes], bytes]
    lost: int = 0  # flows
    _waiting: deque[Records] = field(default_factory=deque)
    _thinned: deque[Records] = field(default_factory=deque)  # denials only, and older than what waits
    _flows: int = 0

    def put(self, records: Records) -> None:
        """The newest."""
        self._waiting.append(records)
        self._flows += records.flows
        while self._flows > FLOWS_MAX:
            self._give_way()

    def take(self) -> Records | None:
        """The oldest; None if there are none."""
        queue = self._thinned or self._waiting
        if not queue:
            return None
        records = queue.popleft()
        self._flows -= records.flows
        return records

    def _give_way(self) -> None:
        if not self._waiting:
            gone = self._thinned.popleft()
            self._flows -= gone.flows
            self.lost += gone.flows
            return
        oldest = self._waiting.popleft()
        self._flows -= oldest.flows - oldest.denials
        self.lost += oldest.flows - oldest.denials
        if oldest.denials:
            packed = self.denials_of(oldest.packed)
            self._thinned.append(
                Records(
                    packed=packed,
                    flows=oldest.denials,
                    denials=oldest.denials,
                    requests=oldest.requests,
                    counts=oldest.counts,
                )
            )
