"""Which of many rules could go without any effect, because wherever they take part others do the same. Pure.

Of rules that make each other needless the first stays: what is called needless can all be removed at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policies.ir import HttpRule, RuleSet
from policies.judging.pattern_index import PatternIndex
from policies.types import Origin

CANDIDATES_MAX = 64  # rules that are looked at to find one that covers another


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
    """HTTP rules that others of every rule set in which they are make needless. Sets with a wildcard judge nothing."""
    beside: dict[Origin, list[frozenset[Origin]]] = {}
    for rules in rule_sets:
        if rules.wildcard:
            continue
        for rule, wider in _covered(rules.http):
            for origin in rule.origins:
                others = frozenset(rule.origins) - {origin} | {o for other in wider for o in other.origins}
                beside.setdefault(origin, []).append(others)
    return needless(beside)


def _covered(rules: Sequence[HttpRule]) -> Iterator[tuple[HttpRule, list[HttpRule]]]:
    """Each rule with those that match all that it matches. Rules that act on headers, or wait for a secret, stand
    apart."""
    plain = [rule for rule in rules if not rule.header_actions and not rule.unavailable]
    indexes = {name: PatternIndex([getattr(rule, name) for rule in plain]) for name in ("method", "path", "host")}
    for i, rule in enumerate(plain):
        wider = indexes["method"].covering(rule.method)
        for name in ("path", "host"):
            wider &= indexes[name].covering(getattr(rule, name))
        wider.discard(i)
        near = [plain[j] for j in wider[:CANDIDATES_MAX]]
        yield rule, [other for other in near if set(other.headers) <= set(rule.headers)]
    for rule in rules:
        if rule.header_actions or rule.unavailable:
            yield rule, []
