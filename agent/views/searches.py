"""Rule sets, ready to be asked which of their rules a request matches or nearly matches; remembered, and within bounds.

A search takes microseconds in most rule sets, and milliseconds in the worst. A flood of denials that are all different
would cost the node more than it tells anybody: so searches get a share of the time, and what goes beyond is told less.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Final, Generic, NamedTuple, TypeVar

from agent.views.allowance import Allowance
from policies.dns_patterns import Dialect, NameSet
from policies.explaining.differences import Nearest
from policies.explaining.near_kafka import NearKafka
from policies.explaining.near_names import NearNames
from policies.explaining.nearest import NearMisses
from policies.ir import DnsRule, HttpRule, RuleSet, TlsRule
from policies.judging.requests import Request
from xds.rbac_tree import rule_name

SHARE: Final = 0.1  # of one core, for all searches together ...
BURST_NS: Final = 50_000_000  # ... and what they may take at once when there were none for a while
RULES_MAX: Final = 50_000  # rules of all rule sets that are kept ready (1 kB each); who was not asked for longest goes
KEPT: Final = 4096  # answers of one kind that are remembered; beyond that all are forgotten
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Found(NamedTuple, Generic[T]):
    """The outcome of a search, which may be None: where there was none, this itself is None."""

    what: T


class RuleIndex:
    """One rule set. Answers are remembered by what was asked for, without headers."""

    def __init__(self, rules: RuleSet, allowance: Allowance) -> None:
        self.rules = rules
        self._allowance = allowance
        self._nearest: dict[Request, Found[Nearest | None]] = {}
        self._matching: dict[Request, Found[tuple[HttpRule, ...]]] = {}

    @cached_property
    def allows_all(self) -> bool:
        """Whether it lets every request pass."""
        return self.rules.allows_all

    @cached_property
    def leaves(self) -> dict[str, tuple[HttpRule, ...]]:
        """The rules by the name that the proxy has for each: rules that match alike have one name."""
        named: dict[str, list[HttpRule]] = {}
        for rule in self.rules.http:
            named.setdefault(rule_name(rule), []).append(rule)
        return {name: tuple(rules) for name, rules in named.items()}

    @cached_property
    def names(self) -> NameSet:
        """The names that its DNS rules allow, or its TLS rules."""
        rules: tuple[DnsRule | TlsRule, ...] = self.rules.dns or self.rules.tls
        dialect = Dialect.TO_FQDNS if self.rules.tls else Dialect.DNS_RULE
        named = [rule.name for rule in rules if not rule.pattern]
        return NameSet(named, (rule.pattern for rule in rules if rule.pattern), dialect)

    @cached_property
    def near_names(self) -> NearNames:
        """Its DNS or TLS rules, to be asked which came nearest; within the allowance."""
        return NearNames(self.rules)

    @cached_property
    def near_kafka(self) -> NearKafka:
        """Its Kafka rules, likewise."""
        return NearKafka(self.rules)

    def matching(self, request: Request) -> Found[tuple[HttpRule, ...]] | None:
        """The rules that match; None if that is not searched for now."""
        known = self._matching.get(request)
        if known is None:
            known = self._allowance.run(lambda: Found(self._misses.matching(request)))
        return _keep(self._matching, request, known)

    def nearest(self, request: Request) -> Found[Nearest | None] | None:
        """What came nearest, fit to be shown to anybody; None if that is not searched for now."""
        known = self._nearest.get(request)
        if known is None:
            known = self._allowance.run(lambda: self._search(request))
        return _keep(self._nearest, request, known)

    def _search(self, request: Request) -> Found[Nearest | None]:
        nearest = self._misses.nearest(request)
        return Found(nearest.redacted() if nearest is not None else None)

    @cached_property
    def _misses(self) -> NearMisses:
        return NearMisses(self.rules)


class Searches:
    """The indexes of a node's rule sets, which outlive the views that ask them. `now_ns` is monotonic."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.allowance = Allowance(now_ns, SHARE, BURST_NS)
        self._indexes: OrderedDict[int, RuleIndex] = OrderedDict()
        self._rules = 0

    def index(self, rules: RuleSet) -> RuleIndex:
        """The index of this very object: rule sets that do not change stay the same (policies.compiling.decisions)."""
        found = self._indexes.get(id(rules))
        if found is None:  # an index keeps its rule set, so that no other can have its id
            found = self._indexes[id(rules)] = RuleIndex(rules, self.allowance)
            self._rules += _weight(rules)
            while self._rules > RULES_MAX and len(self._indexes) > 1:
                _, gone = self._indexes.popitem(last=False)
                self._rules -= _weight(gone.rules)
        self._indexes.move_to_end(id(rules))
        return found


def _weight(rules: RuleSet) -> int:
    return 100 + len(rules.rules)


def _keep(kept: dict[K, V], key: K, value: V | None) -> V | None:
    if value is not None and key not in kept:
        if len(kept) >= KEPT:
            kept.clear()
        kept[key] = value
    return value
