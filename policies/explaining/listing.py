"""The rules of a policy object, one by one: each clause, and each HTTP rule in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policies.errors import one_line
from policies.explaining.differences import rule_in_words
from policies.explaining.near_clauses import clause_in_words
from policies.rules import Action, Clause, Policy
from policies.types import Direction, Origin


@dataclass(frozen=True, slots=True)
class Listed:
    """One rule. `content` is what it says, without where it stands: to be compared only."""

    origin: Origin
    direction: Direction
    action: Action
    is_http: bool
    words: str
    content: object


def rules_of(policy: Policy) -> Iterator[Listed]:
    """Every rule that says something, clauses before what is in them."""
    for rule in policy.rules if policy.valid else ():
        for direction in Direction:
            for clause in rule.clauses(direction):
                if clause.peers != () and (clause.peers or clause.to_ports):
                    yield from _of_clause(rule.subject, clause, direction)


def content_of(policy: Policy) -> dict[Origin, object]:
    """What each rule says, by where it stands."""
    return {listed.origin: listed.content for listed in rules_of(policy)}


def _of_clause(subject: object, clause: Clause, direction: Direction) -> Iterator[Listed]:
    says = (subject, clause.peers, tuple(entry.ports for entry in clause.to_ports))
    words = one_line(clause_in_words(clause))
    yield Listed(clause.origin, direction, clause.action, False, words, (clause.action, *says))
    for entry in clause.to_ports:
        placed = ((origin, http) for http in entry.http for origin in http.origins)
        for origin, http in sorted(placed, key=lambda pair: (len(pair[0].path), pair[0].path)):  # [9] before [10]
            content = (subject, clause.peers, entry.ports, http.match_key)
            yield Listed(origin, direction, clause.action, True, rule_in_words(http), content)
