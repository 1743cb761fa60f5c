"""The policy of each group of this node: rules -> what is merged -> EndpointPolicy, kept current. Pure.

Groups with the same rules share what is merged of them. A group that did not change keeps its EndpointPolicy object;
one whose clauses cannot be merged keeps its last good policy, or is denied, and no other group notices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyroaring import BitMap

from policies.compiling.decisions import RuleSets
from policies.compiling.enforcement import AllowLocalhost, Enforcement, inputs, mode_for
from policies.compiling.identity import IdentityAllocator
from policies.compiling.merge import Conflict, Inputs, MergedDirection
from policies.compiling.named_ports import NamedPorts, OwnPorts
from policies.compiling.peersets import PeerSet
from policies.compiling.rulebook import BoundRule, Rulebook
from policies.errors import PolicyError, Reason
from policies.ir import DirectionPolicy, EndpointPolicy
from policies.types import IDENTITY_UNMANAGED, RESERVED_LABELS, Direction

_NAMES_MAX = 3  # policies that an error names
_OPEN, _CLOSED = DirectionPolicy(), DirectionPolicy(enforced=True)


@dataclass(frozen=True, slots=True)
class Modes:
    """How policy is enforced on this node."""

    enforcement: Enforcement = Enforcement.DEFAULT
    localhost: AllowLocalhost = AllowLocalhost.AUTO


class _Group:
    """A group: what it is compiled from, and its policy. `merged`: by direction; None where nothing is enforced."""

    __slots__ = ("merged", "own_ports", "policy", "rules", "same")

    def __init__(self) -> None:
        self.rules: tuple[BoundRule, ...] | None = None
        self.own_ports: OwnPorts = ()
        self.merged: Mapping[Direction, MergedDirection | None] = {}
        self.policy: EndpointPolicy | None = None
        # What was merged anew, and was equal to what the group had: it keeps the object that it had.
        self.same: dict[Direction, tuple[DirectionPolicy, DirectionPolicy]] = {}


class GroupBook:
    """Policy group -> its EndpointPolicy."""

    def __init__(self, rulebook: Rulebook, names: NamedPorts, identities: IdentityAllocator, modes: Modes) -> None:
        self.errors: list[PolicyError] = []
        self._rulebook = rulebook
        self._names = names
        self._identities = identities
        self._modes = modes
        self._rule_sets = RuleSets()
        self._merged: dict[Inputs, MergedDirection] = {}
        self._groups: dict[int, _Group] = {}

    def compile(self, groups: Mapping[int, OwnPorts], changed: Mapping[PeerSet, BitMap]) -> tuple[EndpointPolicy, ...]:
        """The policies of these groups (each with the names of its own ports), sorted. `changed`: peer sets since the
        last call."""
        known = self._groups
        self._groups = {group: known.get(group) or _Group() for group in sorted(groups)}
        before = set(map(id, self._merged.values()))
        for group, state in self._groups.items():
            self._remake(group, state, groups[group])
        used = {id(merged) for state in self._groups.values() for merged in state.merged.values()}
        if not used >= {id(merged) for merged in self._merged.values()}:
            self._merged = {key: merged for key, merged in self._merged.items() if id(merged) in used}
        for merged in self._merged.values():
            if id(merged) in before:  # the others were made of the peer sets as they are now
                merged.follow(changed)
        self.errors = [error for group, state in self._groups.items() for error in self._failures(group, state)]
        return tuple(self._policy(group, state) for group, state in self._groups.items())

    def _remake(self, group: int, state: _Group, own_ports: OwnPorts) -> None:
        """Find out what the policy of the group is to be made of, if that has changed."""
        rules = self._rulebook.rules(group)
        if state.rules is not rules or state.own_ports != own_ports:
            state.rules, state.own_ports = rules, own_ports
            state.merged = {direction: self._merge(group, rules, direction, own_ports) for direction in Direction}
            state.same = {}

    def _policy(self, group: int, state: _Group) -> EndpointPolicy:
        """The policy of a group whose directions are up to date; the same object if it is the same."""
        last = state.policy
        ingress, egress = (self._direction(state, d) for d in Direction)
        if group == IDENTITY_UNMANAGED and self._modes.enforcement is not Enforcement.NEVER:
            ingress = egress = _CLOSED  # no identity was left: nothing can be known to be allowed
        if last is None or last.ingress is not ingress or last.egress is not egress:
            labels = self._identities.labels(group) or RESERVED_LABELS.get(group, ())
            state.policy = last = EndpointPolicy(group, labels, ingress, egress)
        return last

    def _direction(self, state: _Group, direction: Direction) -> DirectionPolicy:
        merged = state.merged[direction]
        last = state.policy.direction(direction) if state.policy is not None else None
        if merged is None:
            return _OPEN
        if merged.failure is not None:
            return last if last is not None else _CLOSED
        if direction not in state.same:
            is_same = last is not None and last == merged.policy
            state.same[direction] = (merged.policy, last if last is not None and is_same else merged.policy)
        found, kept = state.same[direction]
        return kept if found is merged.policy else merged.policy

    def _merge(
        self, group: int, rules: tuple[BoundRule, ...], direction: Direction, own_ports: OwnPorts
    ) -> MergedDirection | None:
        mode = mode_for(self._identities.labels(group), self._modes.enforcement)
        wanted = inputs(rules, direction, mode=mode, localhost=self._modes.localhost, own_ports=own_ports)
        if wanted is None:
            return None
        if wanted not in self._merged:
            self._merged[wanted] = MergedDirection(wanted, self._names, self._rule_sets)
        return self._merged[wanted]

    def _failures(self, group: int, state: _Group) -> list[PolicyError]:
        found = []
        for direction, merged in state.merged.items():
            if merged is not None and merged.failure is not None:
                keys = dict.fromkeys(str(rule.key) for rule in state.rules or () if rule.clauses(direction))
                names = ", ".join([*list(keys)[:_NAMES_MAX], *(["..."] if len(keys) > _NAMES_MAX else [])])
                message = f"{merged.failure} (it is under {names}); what held before holds, or else it is denied"
                found.append(PolicyError("Group", "", str(group), direction, Reason.TOO_MANY, message))
            for conflict in merged.conflicts if merged is not None else ():
                found += _of_clauses(conflict)
        return found


def _of_clauses(conflict: Conflict) -> Iterator[PolicyError]:
    """Said of each clause, whatever group it is: in_order leaves one of equal ones."""
    for parser, clauses in conflict.clauses.items():
        others = [f"{o} ({p.value} rules)" for p, some in conflict.clauses.items() if p is not parser for o in some]
        named = ", ".join([*others[:_NAMES_MAX], *(["..."] if len(others) > _NAMES_MAX else [])])
        where = f"{conflict.ports}/{conflict.protocol.name}"
        words = f"{parser.value} rules, while {named} asks for others on {where}: peers that both choose are denied"
        for clause in clauses:
            about = (clause.kind, clause.namespace, clause.name, clause.path)
            yield PolicyError(*about, Reason.CONFLICT, words)
