"""What becomes of a DNS query: the name that it asks for, whatever its type (facts 6.2). Pure.

The oracle of DNS rules; the proxy's judge, which asks the same grammar (policies.dns_patterns), must say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from policies.dns_patterns import Dialect, NameSet, canonical
from policies.ir import DnsRule, RuleSet
from policies.types import Origin


class NameQuery(NamedTuple):
    """A question by its name, as anybody would write it."""

    name: str


@dataclass(frozen=True, slots=True)
class NameDecision:
    """`rule` is one that allows the name, that of the name itself before patterns; `wildcard` are the allows without L7
    that void the rules."""

    allowed: bool
    rule: DnsRule | None = None
    wildcard: tuple[Origin, ...] = ()


def decide_name(rules: RuleSet, query: NameQuery) -> NameDecision:
    """The verdict on a query."""
    name = canonical(query.name)
    by_name = sorted(rules.dns, key=lambda rule: bool(rule.pattern))
    rule = next((rule for rule in by_name if name in selected(rule.name, rule.pattern)), None)
    return NameDecision(bool(rules.wildcard) or rule is not None, rule, rules.wildcard)


@lru_cache(maxsize=4096)
def selected(name: str, pattern: str) -> NameSet:
    """The names that one rule allows."""
    return NameSet((), (pattern,), Dialect.DNS_RULE) if pattern else NameSet((name,), (), Dialect.DNS_RULE)
