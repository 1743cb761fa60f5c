"""Which rules hold for which policy group, followed from one set of policies to the next. Pure.

A policy is bound to selections when it comes and released when it goes; only groups that an old or new version of it
selects are touched. Labels of an identity never change, so neither does whether a selector chooses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policies.merge import BoundClause
from policies.objects import ObjectKey
from policies.rules import Clause, Policy, Rule
from policies.selectors import Selector, SelectorCache
from policies.types import Direction


class BoundRule:
    """A rule with living selections. Compared by being the same object."""

    __slots__ = ("_seen", "_version", "clauses", "key", "rule", "subject")

    def __init__(self, key: ObjectKey, rule: Rule, selectors: SelectorCache) -> None:
        self.key = key
        self.rule = rule
        self.subject = selectors.acquire(rule.subject)
        self.clauses = {d: tuple(_bind(clause, selectors) for clause in rule.clauses(d)) for d in Direction}
        self._seen = -1
        self._version = 0

    def version(self, seen: int) -> int:
        """Rises whenever the peers of some clause change. `seen`: version of the selector cache, summed up but once."""
        if seen != self._seen:
            self._version = sum(clause.version for clauses in self.clauses.values() for clause in clauses)
            self._seen = seen
        return self._version

    def release(self, selectors: SelectorCache) -> None:
        """The policy is gone."""
        selectors.release(self.subject)
        for clauses in self.clauses.values():
            for selection in (s for clause in clauses for s in clause.selections or ()):
                selectors.release(selection)


class Rulebook:
    """Policy group -> its rules, in the order of policy names."""

    def __init__(self, selectors: SelectorCache) -> None:
        self._selectors = selectors
        self._policies: Mapping[ObjectKey, Policy] = {}
        self._bound: dict[ObjectKey, tuple[BoundRule, ...]] = {}
        self._by_group: dict[int, dict[ObjectKey, tuple[BoundRule, ...]]] = {}
        self._in_order: dict[int, tuple[BoundRule, ...]] = {}

    def rules(self, group: int) -> tuple[BoundRule, ...]:
        """The rules that select this group; the same tuple until they change."""
        known = self._in_order.get(group)
        if known is None:
            by_policy = self._by_group[group]
            known = self._in_order[group] = tuple(rule for key in sorted(by_policy) for rule in by_policy[key])
        return known

    def take(self, policies: Mapping[ObjectKey, Policy], groups: Iterable[int]) -> None:
        """Follow the policies of the world and the groups of the node."""
        if policies is not self._policies:
            keys = self._policies.keys() | policies.keys()
            for key in [k for k in keys if self._policies.get(k) is not policies.get(k)]:
                self._rebind(key, policies.get(key))
            self._policies = policies
        groups = set(groups)
        for group in self._by_group.keys() - groups:
            del self._by_group[group]
            self._in_order.pop(group, None)
        for group in groups - self._by_group.keys():
            chosen = {key: _selecting(rules, group) for key, rules in self._bound.items()}
            self._by_group[group] = {key: rules for key, rules in chosen.items() if rules}

    def _rebind(self, key: ObjectKey, policy: Policy | None) -> None:
        old = self._bound.pop(key, ())
        # Bound before the old version is released: selections in both versions stay.
        new = tuple(BoundRule(key, rule, self._selectors) for rule in policy.rules) if policy is not None else ()
        for rule in old:
            rule.release(self._selectors)
        if new:
            self._bound[key] = new
        for group, by_policy in self._by_group.items():
            chosen = _selecting(new, group)
            if by_policy.pop(key, ()) or chosen:
                self._in_order.pop(group, None)
            if chosen:
                by_policy[key] = chosen


def _bind(clause: Clause, selectors: SelectorCache) -> BoundClause:
    if clause.peers is None:
        return BoundClause(clause, None)
    return BoundClause(clause, tuple(selectors.acquire(peer) for peer in clause.peers if isinstance(peer, Selector)))


def _selecting(rules: Iterable[BoundRule], group: int) -> tuple[BoundRule, ...]:
    return tuple(rule for rule in rules if group in rule.subject.members)
