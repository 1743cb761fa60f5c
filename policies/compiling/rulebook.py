"""Which rules hold for which policy group, followed from one set of policies to the next. Pure.

A policy is bound to living peer sets when it comes and released when it goes; only groups that an old or new version of
it selects are touched. Labels of an identity never change, so neither does whether a selector chooses it. Whom a rule
is about is asked of the groups of this node alone: the ten thousand other identities of the cluster are only peers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from pyroaring import BitMap

from policies.compiling.by_name import split
from policies.compiling.peers import Places, is_settled
from policies.compiling.peersets import PeerSets
from policies.compiling.selections import SelectorCache
from policies.compiling.shapes import BoundClause, bind
from policies.ir import PolicyLog
from policies.labels import is_of_names
from policies.objects import ObjectKey
from policies.rules import Clause, Policy, Rule
from policies.selectors import Selector
from policies.types import Direction

Labels = tuple[str, ...]
Clauses = tuple[tuple[Clause, ...], ...]  # of each direction


class BoundRule:
    """A rule with living peers. Compared by being the same object."""

    __slots__ = ("_clauses", "found", "key", "names", "rule", "subject")

    def __init__(self, key: ObjectKey, rule: Rule, found: Clauses, books: tuple[SelectorCache, PeerSets]) -> None:
        subjects, sets = books
        self.key = key
        self.rule = rule
        self.found = found
        self.subject = subjects.acquire(rule.subject)
        self.names = _names(found)
        self._clauses = {
            direction: tuple(bind(clause, sets, is_enforcing=direction in rule.enforces) for clause in clauses)
            for direction, clauses in zip(Direction, found, strict=True)
        }

    def clauses(self, direction: Direction) -> tuple[BoundClause, ...]:
        return self._clauses[direction]

    def release(self, subjects: SelectorCache, sets: PeerSets) -> None:
        """The policy is gone."""
        subjects.release(self.subject)
        for clause in (clause for clauses in self._clauses.values() for clause in clauses):
            if clause.peers is not None:
                sets.release(clause.peers)


class Rulebook:
    """Policy group -> its rules, in the order of policy names."""

    def __init__(self, sets: PeerSets) -> None:
        self._subjects = SelectorCache({})
        self._sets = sets
        self._places = Places()
        self._policies: Mapping[ObjectKey, Policy] = {}
        self._bound: dict[ObjectKey, tuple[BoundRule, ...]] = {}
        self._unsettled: set[ObjectKey] = set()
        self._by_group: dict[int, dict[ObjectKey, tuple[BoundRule, ...]]] = {}
        self._in_order: dict[int, tuple[BoundRule, ...]] = {}
        self._logs: dict[ObjectKey, tuple[PolicyLog, ...]] = {}
        self.names: Counter[str] = Counter()  # keys of names' selectors, by how many rules of groups have them
        self.names_version = 0
        self.logs: tuple[PolicyLog, ...] = ()

    def rules(self, group: int) -> tuple[BoundRule, ...]:
        """The rules that select this group; the same tuple until they change."""
        known = self._in_order.get(group)
        if known is None:
            by_policy = self._by_group[group]
            known = self._in_order[group] = tuple(rule for key in sorted(by_policy) for rule in by_policy[key])
        return known

    def take(self, policies: Mapping[ObjectKey, Policy], places: Places, groups: Mapping[int, Labels]) -> None:
        """Follow the policies of the world, the places where their peers are looked up, and the groups of the node."""
        touched = self._resettled(places)
        self._places = places
        if policies is not self._policies:
            keys = self._policies.keys() | policies.keys()
            touched |= {key for key in keys if self._policies.get(key) is not policies.get(key)}
            self._policies = policies
        for key in sorted(touched):
            self._rebind(key, policies.get(key))
        if touched:
            self.logs = tuple(sorted(log for logs in self._logs.values() for log in logs))
        self._regroup(groups)

    def _resettled(self, places: Places) -> set[ObjectKey]:
        """Policies that mean something else now that groups, services or secrets have changed."""
        if places is self._places:
            return set()
        return {
            key
            for key in self._unsettled
            if any(_found(rule.rule, places) != rule.found for rule in self._bound.get(key, ()))
        }

    def _rebind(self, key: ObjectKey, policy: Policy | None) -> None:
        old = self._bound.pop(key, ())
        self._unsettled.discard(key)
        # Bound before the old version is released: selections in both versions stay.
        rules = policy.rules if policy is not None else ()
        books = (self._subjects, self._sets)
        new = tuple(BoundRule(key, rule, _found(rule, self._places), books) for rule in rules)
        for rule in old:
            rule.release(self._subjects, self._sets)
        if new:
            self._bound[key] = new
            if not all(is_settled(clause) for rule in rules for clause in _clauses(rule)):
                self._unsettled.add(key)
        self._logs.pop(key, None)
        if logs := tuple(PolicyLog(c.origin, rule.log) for rule in rules if rule.log for c in _clauses(rule)):
            self._logs[key] = logs
        for group in self._by_group:
            self._choose(group, key)

    def _regroup(self, groups: Mapping[int, Labels]) -> None:
        for group in self._by_group.keys() - groups.keys():
            for rules in self._by_group.pop(group).values():
                self._mention(rules, -1)
            self._in_order.pop(group, None)
            self._subjects.remove(group)
        new = BitMap(groups.keys() - self._by_group.keys())
        for group in new:
            self._subjects.add(group, groups[group])
            self._by_group[group] = {}
        self._subjects.drain()  # a group keeps its labels: nothing changes for those that were there
        for key, rules in self._bound.items() if new else ():
            for group in BitMap.union(*(rule.subject.members for rule in rules)) & new:
                self._choose(group, key)

    def _choose(self, group: int, key: ObjectKey) -> None:
        """Whether, and with which of its rules, this policy is about this group."""
        chosen = tuple(rule for rule in self._bound.get(key, ()) if group in rule.subject.members)
        by_policy = self._by_group[group]
        before = by_policy.pop(key, ())
        if before or chosen:
            self._in_order.pop(group, None)
        if chosen:
            by_policy[key] = chosen
        self._mention(chosen, 1)
        self._mention(before, -1)

    def _mention(self, rules: Iterable[BoundRule], times: int) -> None:
        for name in (name for rule in rules for name in rule.names):
            self.names[name] += times
            if self.names[name] == max(times, 0):
                self.names_version += 1
            if not self.names[name]:
                del self.names[name]


def _clauses(rule: Rule) -> Iterator[Clause]:
    return (clause for direction in Direction for clause in rule.clauses(direction))


def _names(found: Clauses) -> tuple[str, ...]:
    """Keys of the names' selectors that a rule has, each once."""
    peers = (peer for clauses in found for clause in clauses for peer in clause.peers or ())
    selectors = (peer for peer in peers if isinstance(peer, Selector))
    return tuple(sorted({r.key for selector in selectors for r in selector.requirements if is_of_names(r.key)}))


def _found(rule: Rule, places: Places) -> Clauses:
    return tuple(
        tuple(places.looked_up(part) for clause in rule.clauses(direction) for part in split(clause, places.names))
        for direction in Direction
    )
