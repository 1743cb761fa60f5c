"""Which of many rules could go without any effect, because wherever they take part others do the same. Pure.

Of rules that make each other needless the first stays: what is called needless can all be removed at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policies.advising.wider import with_wider
from policies.ir import RuleSet
from policies.types import Origin


@dataclass(frozen=True, slots=True)
class Needless:
    """`origin` does nothing that `by` do not do."""

    origin: Origin
    by: tuple[Origin, ...]


def needless(beside: Mapping[Origin, Sequence[frozenset[Origin]]]) -> list[Needless]:
    """`beside`: for each rule, what else does the same, at each place where it takes part."""
    gone: set[Origin] = set()
    found = []
    for origin in sorted(beside, reverse=True):
        left = [others - gone for others in beside[origin]]
        if all(left):
            gone.add(origin)
            common = frozenset.intersection(*left)
            found.append(Needless(origin, tuple(sorted(common or frozenset().union(*left)))))
    return found[::-1]


def needless_rules(rule_sets: Iterable[RuleSet]) -> list[Needless]:
    """L7 rules that others of every rule set in which they are make needless. Sets with a wildcard judge nothing."""
    beside: dict[Origin, list[frozenset[Origin]]] = {}
    for rules in rule_sets:
        if rules.wildcard:
            continue
        for rule, wider in with_wider(rules.rules):
            for origin in rule.origins:
                others = frozenset(rule.origins) - {origin} | {o for other in wider for o in other.origins}
                beside.setdefault(origin, []).append(others)
    return needless(beside)
