"""Why a verdict is what it is, in words: the same for `deflector policy explain` and for flows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from policies.errors import one_line
from policies.explaining.differences import L7Rule, Nearest, rule_in_words
from policies.ir import HttpRule, RuleSet
from policies.types import Origin

BY_MAX: Final = 10  # clauses that are listed in one line; a port may be open by a thousand

NO_ENDPOINT: Final = "not a pod of this node: nothing is enforced here"
NOT_ENFORCED: Final = "not enforced: no policy selects it in this direction"
ALLOWED: Final = "a rule allows it"
DENIED: Final = "a rule denies it"
NO_HTTP_RULE: Final = "no HTTP rule allows it"
DEFAULT_DENY: Final = "default deny: no rule allows it"
NO_BACKEND: Final = "the service has no backend, or backends of different identities"
HTTP_ALLOWED: Final = "an HTTP rule allows it"
# What only a running proxy has to say.
RETIRED: Final = "its rules are gone, and with them the connection: a new one is judged by those of now"
UNDELIVERED: Final = "the proxy has not been given its rules yet"
OUTDATED: Final = "the rules have changed since"
NOT_SEARCHED: Final = "nearest rule not searched for: too many different denials at once"


def none_matches(rules: RuleSet) -> str:
    """No rule of the set matches the request."""
    return f"none of {http_rules(rules)} matches: 403"


def none_allows(rules: RuleSet) -> str:
    """No DNS or Kafka rule of the set allows what was asked for."""
    for number, what in ((len(rules.dns), "DNS"), (len(rules.kafka), "Kafka")):
        if number:
            return f"none of {number} {what} rule{'s' if number != 1 else ''} allows it"
    return "no rule allows anything here"


def read_differently(fault: str) -> str:
    """No rule was asked, since servers may read the request in different ways."""
    return f"servers may read it differently, {fault}: 403"


def http_rules(rules: RuleSet) -> str:
    """How many there are."""
    return f"{len(rules.http)} HTTP rule{'s' if len(rules.http) != 1 else ''}"


def all_pass(rules: RuleSet) -> str:
    """An allow without L7 makes HTTP rules void."""
    return f"all requests pass, for an allow without L7 covers it too (it voids {http_rules(rules)})"


def allowed_by(origins: Iterable[Origin], rule: L7Rule | None = None) -> str:
    """Who allowed it, and by which L7 rule."""
    return _line("allowed by", _names(origins) + (f" ({rule_in_words(rule)})" if rule is not None else ""))


def one_of(rules: Iterable[HttpRule]) -> str:
    """Who may have allowed it, where that cannot be told."""
    some = tuple(rules)
    names = _names(dict.fromkeys(origin for rule in some for origin in rule.origins))
    return _line("allowed by", f"one of {len(some)} rules: {names}")


def denied_by(origins: Iterable[Origin]) -> str:
    """Which clauses deny it."""
    return _line("denied by", _names(origins))


def enforced_by(origins: Iterable[Origin]) -> str:
    """Which clauses, or specs, make that what is not allowed is denied."""
    return _line("enforced by", _names(origins))


def nearest(found: Nearest) -> str:
    """What came nearest to allowing it."""
    return _line("nearest", str(found))


def _names(origins: Iterable[Origin]) -> str:
    some = list(origins)
    more = f" and {len(some) - BY_MAX} more" if len(some) > BY_MAX else ""
    return ", ".join(map(str, some[:BY_MAX])) + more


def _line(label: str, words: str) -> str:
    return one_line(f"{label} {words}")
