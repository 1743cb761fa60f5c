"""Which rules are used, as plain data: the form of `deflector policy usage -o json`, and its lines for people. Pure.

Rules of policies that select a pod of this node; the others cannot be used here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from agent.usage.book import RuleUse, Usage
from agent.views.slot_reasons import Outcome
from policies.errors import one_line
from policies.explaining.differences import origin_to_dict
from policies.explaining.listing import Listed, rules_of
from policies.objects import ObjectKey
from policies.rules import Policy
from policies.selectors import label_map
from policies.types import Direction, Origin

SECOND = 1_000_000_000  # ns


def usage_document(
    usage: Usage, policies: Mapping[ObjectKey, Policy], groups: Iterable[tuple[str, ...]]
) -> dict[str, Any]:
    """`groups`: the labels of the pods of this node. Times are Unix seconds, null for never."""
    pods = [label_map(labels) for labels in groups]
    rules = [
        _rule(listed, usage)
        for _, policy in sorted(policies.items())
        if any(rule.subject.matches(labels) for rule in policy.rules for labels in pods)
        for listed in rules_of(policy)
    ]
    return {
        "since": usage.started_ns / SECOND,
        "rules": rules,
        "untraced": {outcome.value: number for outcome, number in sorted(usage.untraced.items())},
    }


def _rule(listed: Listed, usage: Usage) -> dict[str, Any]:
    use = usage.rules.get(listed.origin) or RuleUse(usage.started_ns)
    maybe = listed.origin in usage.doubtful and not use.is_used
    return {
        **origin_to_dict(listed.origin),
        "direction": listed.direction.value,
        "action": listed.clause.action.value,
        "parser": listed.l7[0].parser.value if listed.l7 else None,
        "words": listed.words,
        "used": None if maybe else use.is_used,
        **{_key(outcome): use.numbers.get(outcome, 0) for outcome in Outcome},
        "last_hit": use.last_ns / SECOND or None,
        "last_near_miss": use.last_near_ns / SECOND or None,
        "since": use.since_ns / SECOND,
    }


def _key(outcome: Outcome) -> str:
    return outcome.value.replace("-", "_")


def unused(rules: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that nothing has used, as far as that is known."""
    return [rule for rule in rules if rule["used"] is False]


def usage_table(rules: Sequence[Mapping[str, Any]]) -> Table:
    """One line per rule."""
    table = Table(box=None, pad_edge=False)
    for heading in ("RULE", "SAYS", "ALLOWED", "DENIED", "NEAR MISSES", "LAST HIT"):
        table.add_column(heading, no_wrap=True, overflow="ignore")
    for rule in rules:
        origin = Origin(rule["kind"], rule["namespace"], rule["name"], rule["path"])
        verb = rule["action"] if rule["action"] == "deny" else "allow"
        preposition = "to" if rule["direction"] == Direction.EGRESS.value else "from"
        words = rule["words"] if rule["parser"] else rule["words"].replace(" with ", f" {preposition} ", 1)
        numbers = (str(rule[_key(outcome)] or "-") for outcome in Outcome)
        style = "" if rule["used"] else "yellow"
        table.add_row(Text(one_line(str(origin)), style), one_line(f"{verb} {words}"), *numbers, _last(rule))
    return table


def usage_summary(document: Mapping[str, Any]) -> Iterator[Text]:
    """How many are unused, since when; and what is not known."""
    rules = document["rules"]
    idle, maybe = len(unused(rules)), sum(rule["used"] is None for rule in rules)
    since = _time(document["since"])
    style = "yellow" if idle else "green"
    yield Text(f"{idle} of {len(rules)} rules unused since {since}", style=style)
    if maybe:
        yield Text(f"{maybe} may have been used: too many different requests at once to tell", style="yellow")


def _last(rule: Mapping[str, Any]) -> str:
    if rule["last_hit"] is not None:
        return _time(rule["last_hit"])
    return "perhaps" if rule["used"] is None else f"not since {_time(rule['since'])}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
