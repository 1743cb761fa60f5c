"""A Lease (coordination.k8s.io/v1) as a ballot: who leads, for how long, and whether we may take it. Pure.

The rules are those of Kubernetes' own elections (client-go, tools/leaderelection): nobody's clock is compared with
another's. Who does not lead notes when the record has changed last, by its own clock, and may take the lease when that
is longer ago than the lease lasts. Who leads stops before that: `renew` is shorter than `duration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

Raw = dict[str, Any]
RELEASED_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `duration`: how long others wait for a silent leader; `renew`: when a leader that cannot renew stops;
    `retry`: between looks."""

    duration: float = 15.0
    renew: float = 10.0
    retry: float = 2.0

    def fault(self) -> str:
        """Why that cannot work, "" if it can."""
        if not self.retry > 0:
            return "the retry period must be more than 0 s"
        if not self.retry * 1.2 < self.renew < self.duration:
            return "the lease must last longer than the renew deadline, and that longer than 1.2 retry periods"
        return ""


@dataclass(frozen=True, slots=True)
class Ballot:
    """The record as it is at the server."""

    holder: str = ""
    renewed: str = ""
    transitions: int = 0
    acquired: str = ""
    version: str = ""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Ballot:
        spec = raw.get("spec") or {}
        transitions = spec.get("leaseTransitions")
        return cls(
            str(spec.get("holderIdentity") or ""),
            str(spec.get("renewTime") or ""),
            transitions if isinstance(transitions, int) else 0,
            str(spec.get("acquireTime") or ""),
            str(raw["metadata"].get("resourceVersion") or ""),
        )


@dataclass(slots=True)
class Observer:
    """Watches the record from outside. `free_at` is a moment of our clock."""

    duration: float
    _seen: Ballot | None = None
    _since: float = 0.0

    def may_take(self, ballot: Ballot, identity: str, now: float) -> bool:
        """Whether it is nobody's, ours, or of somebody who has not been heard of for too long."""
        if self._seen is None or (ballot.holder, ballot.renewed) != (self._seen.holder, self._seen.renewed):
            self._seen, self._since = ballot, now
        return ballot.holder in ("", identity) or now - self._since >= self.duration


def taken(before: Ballot | None, identity: str, timing: Timing, now: datetime) -> Raw:
    """The body of a lease that we hold from now on, or go on holding."""
    stamp = microtime(now)
    goes_on = before is not None and before.holder == identity
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": max(1, round(timing.duration)),
        "renewTime": stamp,
        "acquireTime": before.acquired if goes_on and before is not None and before.acquired else stamp,
        "leaseTransitions": 0 if before is None else before.transitions + (not goes_on),
    }
    return _body(before, spec)


def released(before: Ballot, now: datetime) -> Raw:
    """The body of a lease that we give back: whoever looks next may have it."""
    stamp = microtime(now)
    spec = {
        "holderIdentity": "",
        "leaseDurationSeconds": RELEASED_SECONDS,
        "renewTime": stamp,
        "acquireTime": stamp,
        "leaseTransitions": before.transitions,
    }
    return _body(before, spec)


def microtime(now: datetime) -> str:
    """As the type MicroTime wants it."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _body(before: Ballot | None, spec: Raw) -> Raw:
    """With the version that was seen: of two that take it at once, one is told that it came too late."""
    return {"metadata": {"resourceVersion": before.version} if before is not None else {}, "spec": spec}
