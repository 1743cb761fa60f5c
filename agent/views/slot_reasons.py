"""What is said of a slot whatever was asked of it: which clauses send their peers there, and what passes by no rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.views.policy_refs import PolicyRefs
from flows.lookups import Reason
from policies.compiling.slots import NOT_ENFORCED
from policies.explaining import reasons
from policies.ir import EndpointPolicy, NodePolicy, Slot
from policies.types import Origin


class Outcome(StrEnum):
    """What a rule had to do with a request or a connection."""

    ALLOWED = "allowed"
    DENIED = "denied"  # by a clause that denies
    NEAR_MISS = "near-miss"  # denied, and this rule came nearest to allowing it


@dataclass(frozen=True, slots=True, eq=False)
class Traced(Reason):
    """A reason, and what it is to be counted for. Not `is_traced`: some rule was used, and it is not known which."""

    outcome: Outcome | None = None
    rules: tuple[Origin, ...] = ()
    is_traced: bool = True


UNKNOWN: Final = Traced()


class SlotReasons:
    """The slots of one view."""

    def __init__(self, node: NodePolicy, refs: PolicyRefs) -> None:
        self.refs = refs
        self._slots = {slot.name: slot for slot in node.slots}
        self._policies = {policy.group: policy for policy in node.policies}
        self._enforcing: dict[str, tuple[str, ...]] = {}  # by slot

    def get(self, name: str) -> Slot | None:
        """The slot, if it still is one."""
        return self._slots.get(name)

    def passed(self, clauses: Iterable[Origin]) -> Traced:
        """By clauses without L7 rules: the connection is counted for these, its requests are not."""
        some = tuple(clauses)
        if NOT_ENFORCED in some:
            return Traced(log=(reasons.NOT_ENFORCED,))
        return Traced(self.refs.of(some), (reasons.allowed_by(some),))

    def enforced_by(self, slot: Slot | None) -> tuple[str, ...]:
        """The clauses that send their peers to this slot."""
        if slot is None:
            return ()
        if slot.name not in self._enforcing:
            origins = _clauses(self._policies.get(slot.group), slot) or slot.rule_set.origins
            self._enforcing[slot.name] = (reasons.enforced_by(origins),) if origins else ()
        return self._enforcing[slot.name]


def _clauses(policy: EndpointPolicy | None, slot: Slot) -> tuple[Origin, ...]:
    if policy is None:
        return ()
    peers = (rule for ports in policy.direction(slot.direction).ports for rule in ports.peers)
    return next((rule.origins for rule in peers if rule.slot == slot.name), ())
