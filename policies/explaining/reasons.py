"""Why a verdict is what it is, in words: the same for `deflector policy explain` and for flows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from policies.errors import one_line
from policies.explaining.differences import Nearest, rule_in_words
from policies.ir import HttpRule, L7Parser, L7Rule, RuleSet
from policies.types import Origin

BY_MAX: Final = 10  # clauses that are listed in one line; a port may be open by a thousand

NO_ENDPOINT: Final = "not a pod of this node: nothing is enforced here"
NOT_ENFORCED: Final = "not enforced: no policy selects it in this direction"
ALLOWED: Final = "a rule allows it"
DENIED: Final = "a rule denies it"
NO_L7_RULE: Final = "no L7 rule allows it"
DEFAULT_DENY: Final = "default deny: no rule allows it"
NO_BACKEND: Final = "the service has no backend, or backends of different identities"
CONFLICT: Final = "policies ask for different parsers here: denied until one of them is gone"
_PARSERS: Final = {L7Parser.HTTP: "HTTP", L7Parser.DNS: "DNS", L7Parser.KAFKA: "Kafka", L7Parser.TLS: "TLS"}
# What only a running proxy has to say.
RETIRED: Final = "its rules are gone, and with them the connection: a new one is judged by those of now"
UNDELIVERED: Final = "the proxy has not been given its rules yet"
OUTDATED: Final = "the rules have changed since"
NO_SERVER_NAME: Final = "it names no server: it is no TLS, or its ClientHello is without SNI"
NOT_SEARCHED: Final = "nearest rule not searched for: too many different denials at once"


def none_matches(rules: RuleSet) -> str:
    """No HTTP rule of the set matches the request."""
    return f"none of {counted(rules)} matches: 403"


def none_allows(rules: RuleSet) -> str:
    """No DNS, Kafka or TLS rule of the set allows what was asked for."""
    return f"none of {counted(rules)} allows it" if rules.rules else "no rule allows anything here"


def foreign(rules: RuleSet) -> str:
    """What was asked is of another protocol than the rules."""
    verb = "judges" if len(rules.rules) == 1 else "judge"
    return f"{counted(rules)} {verb} here: what is not {_PARSERS[rules.parser]} does not pass"


def l7_allowed(rules: RuleSet) -> str:
    """Some rule of the set allows it."""
    return f"{'an' if rules.parser is L7Parser.HTTP else 'a'} {_PARSERS[rules.parser]} rule allows it"


def filtered(rules: RuleSet) -> str:
    """All topics were asked for, and some are allowed."""
    return f"allowed, its answer filtered: it has the topics of {counted(rules)} at most"


def read_differently(fault: str) -> str:
    """No rule was asked, since servers may read the request in different ways."""
    return f"servers may read it differently, {fault}: 403"


def counted(rules: RuleSet) -> str:
    """How many there are, and of what: `3 DNS rules`."""
    number = len(rules.rules)
    return f"{number} {_PARSERS[rules.parser]} rule{'s' if number != 1 else ''}"


def all_pass(rules: RuleSet) -> str:
    """An allow without L7 makes L7 rules void."""
    return f"all requests pass, for an allow without L7 covers it too (it voids {counted(rules)})"


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
