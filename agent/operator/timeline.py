"""States that the policies of one kind have been in, in order; a state that a node reports is a moment of it. Pure.

Every watch of a kind tells of its changes in one and the same order, so the states that nodes go through are states
that were seen here: each node may leave some out. A node that is ahead reports a state that comes here later.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from agent.cluster.node_report import token, written

STATES_MAX: Final = 20_000  # that are remembered; a node that is further behind than that counts as unknown


class Timeline:
    """Moments count from 1. `start` is called when all that there is has been told once."""

    def __init__(self) -> None:
        self.now = 0
        self._sum = 0
        self._versions: dict[str, str] = {}
        self._moments: dict[str, int] = {}  # of a state, the latest
        self._order: deque[tuple[int, str]] = deque()

    @property
    def state(self) -> str:
        """What a node that is up to date reports; a kind of which there are none is not reported."""
        return written(self._sum) if self._versions else ""

    @property
    def versions(self) -> int:
        return len(self._versions)

    def start(self) -> None:
        """What has been told is a state that nodes may be in."""
        if not self.now:
            self._note()

    def change(self, name: str, version: str | None) -> int:
        """This policy is in this version now, or gone; the moment of that."""
        before = self._versions.pop(name, None)
        if before is not None:
            self._sum -= token(name, before)
        if version is not None:
            self._versions[name] = version
            self._sum += token(name, version)
        if self.now and before != version:
            self._note()
        return self.now

    def moment(self, state: str) -> int | None:
        """When this was the state last; None if it never was, or is forgotten."""
        return self._moments.get(state)

    def _note(self) -> None:
        self.now += 1
        self._moments[self.state] = self.now
        self._order.append((self.now, self.state))
        if len(self._order) > STATES_MAX:
            moment, state = self._order.popleft()
            if self._moments.get(state) == moment:
                del self._moments[state]
