"""Conditions Valid and Enforced of a policy, in words. Pure.

Valid is what `deflector policy validate` says. Enforced is True when every node that has reported enforces this
generation; Unknown while that is under way; False when a node cannot, or has not for LATE_SECONDS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.operator.fleet import Tally
from policies.errors import PolicyError

VALID: Final = "Valid"
ENFORCED: Final = "Enforced"
LATE_SECONDS: Final = 5.0
MESSAGE_MAX: Final = 1024  # characters; objects are told to every node that watches them
NOBODY: Final = "no node has reported yet: is `deflector agent` running?"
REFUSED: Final = "refused: its last valid version stays in force; where there is none, what it selects is closed"

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, without its time. `generation`: of the object that it is about."""

    type: str
    status: str
    reason: str
    message: str
    generation: int

    @property
    def gist(self) -> tuple[str, str, int]:
        """What is worth being told at once; numbers in the message may wait."""
        return (self.status, self.reason, self.generation)


@dataclass(frozen=True, slots=True)
class Worst:
    """The node that took longest: seconds from our hearing of the policy."""

    seconds: float
    node: str


def validity(errors: Sequence[PolicyError], warnings: Sequence[PolicyError], generation: int) -> Condition:
    """Whether the object is accepted, and every finding in one line each."""
    if errors:
        return Condition(VALID, "False", errors[0].reason, _lines(map(_finding, errors)), generation)
    if warnings:
        return Condition(VALID, "True", "Warnings", _lines(map(_finding, warnings)), generation)
    return Condition(VALID, "True", "Accepted", "", generation)


def enforcement(tally: Tally, worst: Worst | None, waited: float, generation: int) -> Condition:
    """How far nodes are with it. `waited`: seconds since it is as it is."""

    def said(status: str, reason: str, message: str) -> Condition:
        return Condition(ENFORCED, status, reason, message[:MESSAGE_MAX], generation)

    if not tally.nodes:
        return said("Unknown", "NoNodes", NOBODY)
    count = f"{tally.enforced} of {tally.nodes} nodes"
    if tally.enforced == tally.nodes:
        return said("True", "Enforced", count + (f", at worst after {_seconds(worst)}" if worst is not None else ""))
    if tally.faulty:
        return said("False", "Degraded", f"{count}; {_named(tally.faulty)}")
    if waited < LATE_SECONDS:
        return said("Unknown", "Progressing", count)
    return said("False", "Late", f"{count}; not yet: {_named(tally.late)}")


def refused(generation: int) -> Condition:
    """Of a policy that is not valid."""
    return Condition(ENFORCED, "False", "Refused", REFUSED, generation)


def to_raw(condition: Condition, before: Mapping[str, Any] | None, now: str) -> Raw:
    """As an object has it. `before`: the one of that type that it has; the time is of the last change of status."""
    kept = before is not None and before.get("status") == condition.status
    moved = str(before.get("lastTransitionTime") or now) if kept and before is not None else now
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": moved,
        "observedGeneration": condition.generation,
    }


def from_raw(raw: Mapping[str, Any]) -> Condition:
    """What an object has."""
    generation = raw.get("observedGeneration")
    kind, status, reason, message = (str(raw.get(name) or "") for name in ("type", "status", "reason", "message"))
    return Condition(kind, status, reason, message, generation if isinstance(generation, int) else 0)


def is_told(wanted: Condition, has: Condition | None) -> bool:
    """Whether the object says it already. One that knows more (a time, from before we were here) says it as well."""
    if has is None or has.gist != wanted.gist:
        return False
    return has.message == wanted.message or (
        wanted.status == "True" and has.message.startswith(f"{wanted.message},") and wanted.type == ENFORCED
    )


def _finding(error: PolicyError) -> str:
    """As `policy validate` has it, without the name of the object."""
    return str(replace(error, kind="", namespace="", name=""))


def _lines(findings: Iterable[str]) -> str:
    """One finding per line, as many as there is room for."""
    lines, room = list(findings), MESSAGE_MAX - 20
    shown: list[str] = []
    for line in lines:
        if shown and sum(map(len, shown)) + len(shown) + len(line) > room:
            shown.append(f"and {len(lines) - len(shown)} more")
            break
        shown.append(line[:room])
    return "\n".join(shown)


def _named(nodes: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {words}" if words else name for name, words in nodes)


def _seconds(worst: Worst) -> str:
    return f"{worst.seconds:.2f} s ({worst.node})"
