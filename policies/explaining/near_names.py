"""The DNS or TLS rule that came nearest to allowing a denied name: its name or pattern ends most alike. Pure."""

from __future__ import annotations

from bisect import bisect_left

from policies.explaining.differences import Difference, Nearest, name_of
from policies.ir import DnsRule, RuleSet, TlsRule


class NearNames:
    """The DNS or TLS rules of a rule set, ready to be asked. Making it looks at each: keep it as long as the set."""

    def __init__(self, rules: RuleSet) -> None:
        some: tuple[DnsRule | TlsRule, ...] = rules.dns or rules.tls
        self._rules = sorted(some, key=lambda rule: (_backwards(name_of(rule)), rule.match_key))
        self._names = [_backwards(name_of(rule)) for rule in self._rules]

    def nearest(self, name: str) -> Nearest | None:
        """The nearest rule to a name that none allows, in lower case; None if there are no rules."""
        asked = _backwards(name)
        here = bisect_left(self._names, asked)  # names that end alike stand together
        beside = [i for i in (here, here - 1) if 0 <= i < len(self._names)]
        if not beside:
            return None
        best = max(beside, key=lambda i: _common(self._names[i], asked))
        rule = self._rules[best]
        return Nearest(rule.origins, (Difference("name", name_of(rule), asked[::-1]),), rule, len(self._rules) - 1)


def _backwards(name: str) -> str:
    """From the end on, without the trailing dot; the root is a dot."""
    return (name.rstrip(".") or ".")[::-1]


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
