"""Why the kernel let a connection pass or did not: the clauses that decided, or what came nearest. Of one view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from agent.views.policy_refs import PolicyRefs
from agent.views.searches import Searches
from agent.views.slot_reasons import UNKNOWN, Outcome, Traced
from flows.record import PacketKind, PacketRecord, PacketVerdict
from policies.explaining import reasons
from policies.explaining.near_clauses import InForce, Tried, in_force, nearest_clause
from policies.ir import EndpointPolicy, NodePolicy, PeerRule, Verdict
from policies.judging.evaluate import find_rule
from policies.types import Direction, Origin, Protocol
from policies.world import World

KEPT: Final = 8192  # reasons that are remembered; beyond that all are forgotten
UNSEARCHED: Final = Traced((), (reasons.DEFAULT_DENY, reasons.NOT_SEARCHED), Outcome.NEAR_MISS, is_traced=False)
NO_RULE, DENY_RULE = 133, 181  # flow.DropReason POLICY_DENIED, POLICY_DENY


class Attempt(NamedTuple):
    """A connection as one direction of a policy group sees it. `reason` 0: it was let through."""

    direction: Direction
    group: int
    peer: int
    peer_name: str
    protocol: int
    port: int
    reason: int


class PacketReasons:
    """The reasons of one view."""

    def __init__(self, node: NodePolicy, world: World, refs: PolicyRefs, searches: Searches) -> None:
        self._policies = {policy.group: policy for policy in node.policies}
        self._labels: Mapping[int, tuple[str, ...]] = {policy.group: policy.labels for policy in node.policies}
        self._world = world
        self._refs = refs
        self._searches = searches
        self._known: dict[Attempt, Traced] = {}
        self._in_force: dict[tuple[int, Direction], tuple[InForce, ...]] = {}

    def of(self, attempt: Attempt, labels: tuple[str, ...]) -> Traced:
        """Why this became of it; `labels` are the peer's."""
        known = self._known.get(attempt)
        if known is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            known = self._decided(attempt, labels)
            if known.is_traced:  # what was not searched for now may be next time
                self._known[attempt] = known
        return known

    def _decided(self, attempt: Attempt, labels: tuple[str, ...]) -> Traced:
        policy = self._policies.get(attempt.group)
        if policy is None or attempt.reason not in (0, NO_RULE, DENY_RULE):
            return UNKNOWN
        rule = find_rule(policy.direction(attempt.direction), attempt.peer, attempt.protocol, attempt.port)
        if attempt.reason == NO_RULE:
            return self._refused(attempt, policy, labels) if rule is None else UNKNOWN
        if rule is None or (rule.verdict is Verdict.DENY) != (attempt.reason == DENY_RULE):
            return UNKNOWN  # the rules have changed since
        policies = self._refs.of(_origins(rule))
        if attempt.reason:
            return Traced(policies, (reasons.denied_by(rule.origins),), Outcome.DENIED, rule.origins)
        return Traced(policies, (reasons.allowed_by(rule.origins),), Outcome.ALLOWED, rule.origins)

    def _refused(self, attempt: Attempt, policy: EndpointPolicy, labels: tuple[str, ...]) -> Traced:
        """No rule allows it."""
        found = self._searches.allowance.run(lambda: self._search(attempt, policy, labels))
        if found is None:
            return UNSEARCHED
        return found

    def _search(self, attempt: Attempt, policy: EndpointPolicy, labels: tuple[str, ...]) -> Traced:
        key = (attempt.group, attempt.direction)
        active = self._in_force.get(key)
        if active is None:
            active = self._in_force[key] = in_force(self._world.policies, policy.labels, attempt.direction)
        said = [reasons.DEFAULT_DENY]
        if active:
            said.append(reasons.enforced_by(dict.fromkeys(item.origin for item in active)))
        if attempt.protocol not in set(Protocol):
            return Traced((), tuple(said))
        tried = Tried(attempt.peer, labels, attempt.peer_name, Protocol(attempt.protocol), attempt.port)
        nearest = nearest_clause(policy.direction(attempt.direction), active, attempt.direction, tried)
        if nearest is None:
            return Traced((), tuple(said))
        return Traced((), (*said, reasons.nearest(nearest)), Outcome.NEAR_MISS, nearest.origins)


def drop_reason(record: PacketRecord) -> int:
    """0 for what was let through; of a drop that no policy is to blame for, its own reason."""
    return record.drop_reason if record.verdict is PacketVerdict.DROPPED else 0


def is_verdict(record: PacketRecord) -> bool:
    """Whether a policy was asked: of a verdict, and of a drop by policy."""
    by_policy = record.kind is PacketKind.DROP and record.drop_reason in (NO_RULE, DENY_RULE)
    return record.direction is not None and (by_policy or record.kind is PacketKind.POLICY_VERDICT)


def _origins(rule: PeerRule) -> tuple[Origin, ...]:
    return (*rule.origins, *(rule.rule_set.origins if rule.rule_set else ()))
