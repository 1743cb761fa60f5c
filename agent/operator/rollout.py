"""Every policy, and how far nodes are with it: what its status should say, and how soon that should be written. Pure.

One change of a policy is one or two writes, however many nodes there are: the first when every node has it, or after
SETTLE_SECONDS if some have not; the next when that is so, or when it is late. What is only another number of nodes
waits longer: each write is told to every node that watches policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.cluster.node_report import NodeReport, kind_of, version_of
from agent.operator.conditions import (
    ENFORCED,
    LATE_SECONDS,
    VALID,
    Condition,
    Worst,
    enforcement,
    from_raw,
    is_told,
    refused,
    to_raw,
    validity,
)
from agent.operator.fleet import Fleet, Member
from agent.operator.timeline import Timeline
from policies.advising.advice import advise
from policies.objects import POLICY_KINDS, ObjectKey, PodKey
from policies.reading.readers import Reading, read_object
from policies.rules import Policy

SETTLE_SECONDS: Final = 0.4
PROGRESS_SECONDS: Final = 5.0  # between writes of how far it is
COUNT_SECONDS: Final = 30.0  # until another number of nodes is written

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Followed:
    """A policy as it is now. `since`: moment of its kind; `noticed`: by our clock; `is_fresh`: it came to be then, and
    was not there before we looked."""

    key: ObjectKey
    uid: str
    generation: int
    version: str
    since: int
    noticed: float
    is_fresh: bool
    findings: tuple[Condition, Reading]
    conditions: Mapping[str, Raw]
    worst: Worst | None = None

    @property
    def valid(self) -> Condition:
        return self.findings[0]

    @property
    def name(self) -> str:
        return str(self.key)


class Rollout:
    """The book of all policies. Methods return policies whose status may have to be another one."""

    def __init__(self) -> None:
        self.timelines = {kind: Timeline() for kind in sorted(POLICY_KINDS)}
        self.fleet = Fleet(self.timelines)
        self._policies: dict[str, Followed] = {}
        self._open: dict[str, set[str]] = {kind: set() for kind in self.timelines}  # not everywhere yet
        self._listed: set[str] = set()
        self._differs: dict[str, float] = {}  # policies whose status says something else, and since when

    @property
    def is_complete(self) -> bool:
        """Whether every kind has been told once."""
        return len(self._listed) == len(self.timelines)

    def policies(self) -> Mapping[str, Followed]:
        return self._policies

    def get(self, name: str) -> Followed | None:
        return self._policies.get(name)

    def update(self, kind: str, at: PodKey, raw: Raw, now: float) -> str:
        """A policy is like this; its name."""
        key = ObjectKey(kind, at.namespace, at.name)
        name, meta = str(key), raw["metadata"]
        uid, generation = str(meta.get("uid") or ""), int(meta.get("generation") or 0)
        version = version_of(meta)
        conditions = {str(c.get("type")): c for c in raw.pop("status")["conditions"] if isinstance(c, dict)}
        before = self._policies.get(name)
        if before is not None and before.version == version:
            self._policies[name] = replace(before, conditions=conditions)
            return name
        self._differs.pop(name, None)
        since = self.timelines[kind].change(name, version)
        found = (key, uid, generation, version, since, now, kind in self._listed)
        self._policies[name] = Followed(*found, _judge(raw, generation), conditions)
        self._open[kind].add(name)
        self._catch_up(kind, now)
        return name

    def gone(self, kind: str, at: PodKey, now: float) -> str:
        """A policy is no more."""
        name = str(ObjectKey(kind, at.namespace, at.name))
        self._differs.pop(name, None)
        if self._policies.pop(name, None) is not None:
            self.timelines[kind].change(name, None)
            self._open[kind].discard(name)
            self._catch_up(kind, now)
        return name

    def listed(self, kind: str) -> None:
        """All policies of a kind have been told."""
        self._listed.add(kind)
        self.timelines[kind].start()
        for name, policy in self._policies.items():
            if kind_of(name) == kind and not policy.since:
                self._policies[name] = replace(policy, since=self.timelines[kind].now)
        self.fleet.told(kind)

    def report(self, report: NodeReport, now: float) -> set[str]:
        """A node has reported; policies that this may matter to at once."""
        before, member = self.fleet.take(report, now)
        touched = {fault.policy for fault in (*report.faults, *(before.report.faults if before else ()))}
        for kind, names in self._open.items():
            reached = member.moments[kind]
            had = before.moments.get(kind, 0) if before is not None else None
            touched |= {name for name in names if self._reached(name, (had, reached), member, now)}
        return touched & self._policies.keys()

    def changes_counts(self, report: NodeReport) -> bool:
        """Whether this report is one of a node that is new, or whose doubts are: numbers of all policies change."""
        member = self.fleet.members().get(report.node)
        return member is None or member.report.problems != report.problems

    def wanted(self, name: str, now: float) -> tuple[Condition, Condition]:
        """What its status should say. A policy that is enforced everywhere is looked at no more when nodes report."""
        policy = self._policies[name]
        if policy.valid.status == "False":
            self._open[policy.key.kind].discard(name)
            return policy.valid, refused(policy.generation)
        tally = self.fleet.tally(name, policy.key.kind, policy.since, now)
        if tally.nodes and tally.enforced == tally.nodes:
            self._open[policy.key.kind].discard(name)
        else:
            self._open[policy.key.kind].add(name)
        return policy.valid, enforcement(tally, policy.worst, now - policy.noticed, policy.generation)

    def due(self, name: str, now: float) -> float | None:
        """When its status has to be written, or looked at: a moment of the clock. None if it says what it should."""
        policy = self._policies.get(name)
        if policy is None or not has_status(policy.key.kind):
            return None
        valid, enforced = self.wanted(name, now)
        has = {kind: from_raw(raw) for kind, raw in policy.conditions.items()}
        if is_told(valid, has.get(VALID)) and is_told(enforced, has.get(ENFORCED)):
            self._differs.pop(name, None)
            return self.next_look(name, now)
        first = self._differs.setdefault(name, now)
        told = has.get(ENFORCED)
        if told is None or told.generation != policy.generation or not is_told(valid, has.get(VALID)):
            is_final = enforced.status == "True" or enforced.reason in ("Refused", "NoNodes")
            return first if is_final else policy.noticed + SETTLE_SECONDS
        if told.gist != enforced.gist and enforced.status != "Unknown":
            is_news = told.status != "True" or name in self.fleet.faulty()
            return first if is_news else first + COUNT_SECONDS
        return first + (COUNT_SECONDS if told.status == "True" else PROGRESS_SECONDS)

    def next_look(self, name: str, now: float) -> float | None:
        """When a policy that nodes are under way with will be late."""
        policy = self._policies[name]
        if name not in self._open[policy.key.kind] or now >= policy.noticed + LATE_SECONDS:
            return None
        return policy.noticed + LATE_SECONDS

    def raw_conditions(self, name: str, now: float, stamp: str) -> list[Raw]:
        """The conditions to write. `stamp`: the time, RFC 3339."""
        policy = self._policies[name]
        return [to_raw(made, policy.conditions.get(made.type), stamp) for made in self.wanted(name, now)]

    def confirm(self, name: str, version: str, conditions: Sequence[Raw]) -> None:
        """These conditions have been written; the watch will say the same, a moment later."""
        policy = self._policies.get(name)
        if policy is not None and policy.version == version:
            written = {str(condition["type"]): condition for condition in conditions}
            self._policies[name] = replace(policy, conditions={**policy.conditions, **written})
            self._differs.pop(name, None)

    def _reached(self, name: str, moments: tuple[int | None, int], member: Member, now: float) -> bool:
        """Whether a node has just reached this policy; notes how long that took."""
        had, reached = moments
        policy = self._policies[name]
        if not (had is None or had < policy.since) or reached < policy.since:
            return False
        if policy.is_fresh and had is not None:
            seconds = max(0.0, now - policy.noticed - member.report.held)
            if policy.worst is None or seconds > policy.worst.seconds:
                self._policies[name] = replace(policy, worst=Worst(seconds, member.report.node))
        return True

    def _catch_up(self, kind: str, now: float) -> None:
        """Nodes may have been ahead of us."""
        for node, had, reached in self.fleet.told(kind):
            member = self.fleet.members()[node]
            for name in self._open[kind]:
                self._reached(name, (had, reached), member, now)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._policies))


def has_status(kind: str) -> bool:
    """NetworkPolicies have no conditions (Kubernetes has taken them out again in 1.28): of these, events tell."""
    return kind != "NetworkPolicy"


def _judge(raw: Raw, generation: int) -> tuple[Condition, Reading]:
    reading = read_object(raw)
    warnings: Sequence[Any] = reading.warnings
    if isinstance(reading.good, Policy):
        warnings = (*warnings, *advise(reading.good))
    return validity(reading.errors, warnings, generation), reading
