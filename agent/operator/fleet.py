"""Which node has realised what, as far as nodes have reported: moments of timelines, faults, silence. Pure.

A tally is asked for of every policy whenever nodes come or go, so it does not look at each node: moments are sorted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.cluster.node_report import NodeReport
from agent.operator.timeline import Timeline

SILENT_SECONDS: Final = 200.0  # three signs of life that did not come
NAMED_MAX: Final = 3  # nodes that a message names
UNKNOWN: Final = 0  # a state that we have never seen: of before our time, or of what we are yet to be told


@dataclass(slots=True)
class Member:
    """A node that has reported. `moments` by kind; `heard`: when, by our clock."""

    report: NodeReport
    heard: float
    moments: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tally:
    """What nodes say of one policy. `late` and `faulty` name some of those, at most NAMED_MAX, with what they say."""

    nodes: int = 0
    enforced: int = 0
    late: tuple[tuple[str, str], ...] = ()
    faulty: tuple[tuple[str, str], ...] = ()


class Fleet:
    """`timelines` are read here and written elsewhere."""

    def __init__(self, timelines: Mapping[str, Timeline]) -> None:
        self._timelines = timelines
        self._members: dict[str, Member] = {}
        self._sorted: dict[str, list[int]] = {}
        self._faults: dict[str, dict[str, str]] = {}  # by policy and node
        self._doubtful: dict[str, str] = {}  # nodes with problems of their own, that are about no policy

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> Mapping[str, Member]:
        return self._members

    def take(self, report: NodeReport, now: float) -> tuple[Member | None, Member]:
        """A node has reported: as it was before, and as it is now."""
        before = self._members.get(report.node)
        member = Member(report, now)
        for kind, timeline in self._timelines.items():
            found = timeline.moment(report.states.get(kind, ""))
            # Never back: what was reported in a state that we do not know came after one that we do.
            known = before.moments.get(kind, UNKNOWN) if before is not None else UNKNOWN
            member.moments[kind] = found if found is not None else known
        self._forget_faults(report.node)
        self._members[report.node] = member
        for fault in report.faults:
            self._faults.setdefault(fault.policy, {})[report.node] = fault.words
        if report.problems and not report.faults:
            self._doubtful[report.node] = report.problems[0]
        self._sorted.clear()
        return before, member

    def remove(self, node: str) -> bool:
        """A node is no more."""
        if self._members.pop(node, None) is None:
            return False
        self._forget_faults(node)
        self._sorted.clear()
        return True

    def told(self, kind: str) -> list[tuple[str, int, int]]:
        """The timeline of a kind has moved on: nodes that were ahead of us, and their moments before and now."""
        timeline, found = self._timelines[kind], []
        for name, member in self._members.items():
            moment = timeline.moment(member.report.states.get(kind, ""))
            before = member.moments.get(kind, UNKNOWN)
            if moment is not None and moment > before:
                member.moments[kind] = moment
                found.append((name, before, moment))
        if found:
            self._sorted.pop(kind, None)
        return found

    def faulty(self) -> set[str]:
        """Policies that some node has a fault of."""
        return set(self._faults)

    def tally(self, policy: str, kind: str, since: int, now: float) -> Tally:
        """What nodes say of a policy that is as it is since that moment of its kind."""
        moments = self._moments(kind)
        behind = bisect_left(moments, since)
        faults = {**self._doubtful, **self._faults.get(policy, {})}
        if not behind and not faults:
            return Tally(len(moments), len(moments))
        reached = {n for n in faults if self._members[n].moments.get(kind, UNKNOWN) >= since}
        enforced = len(moments) - behind - len(reached)
        late = tuple(self._late(kind, since, now)) if behind else ()
        return Tally(len(moments), enforced, late, tuple(sorted(faults.items())[:NAMED_MAX]))

    def silent(self, now: float) -> list[str]:
        """Nodes that give no sign of life."""
        return sorted(n for n, member in self._members.items() if now - member.heard > SILENT_SECONDS)

    def _late(self, kind: str, since: int, now: float) -> Iterator[tuple[str, str]]:
        late = sorted(n for n, member in self._members.items() if member.moments.get(kind, UNKNOWN) < since)
        for name in late[:NAMED_MAX]:
            member = self._members[name]
            quiet = now - member.heard
            if quiet > SILENT_SECONDS:
                yield name, f"its agent is silent for {round(quiet / 60)} min"
            else:
                yield name, member.report.problems[0] if member.report.problems else ""

    def _moments(self, kind: str) -> list[int]:
        found = self._sorted.get(kind)
        if found is None:
            found = sorted(member.moments.get(kind, UNKNOWN) for member in self._members.values())
            self._sorted[kind] = found
        return found

    def _forget_faults(self, node: str) -> None:
        self._doubtful.pop(node, None)
        for policy in [policy for policy, by_node in self._faults.items() if node in by_node]:
            del self._faults[policy][node]
            if not self._faults[policy]:
                del self._faults[policy]
