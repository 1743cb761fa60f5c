"""The rules of a policy object, one by one: each clause, and each L7 rule in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policies.errors import one_line
from policies.explaining.differences import rule_in_words
from policies.explaining.near_clauses import clause_in_words
from policies.ir import L7Rule
from policies.rules import Clause, Policy
from policies.types import Direction, Origin


@dataclass(frozen=True, slots=True)
class Listed:
    """One rule: a clause, or an entry of its L7 rules (two rules, where a name and a pattern are in one). `content` is
    what it says, without where it stands: to be compared only."""

    origin: Origin
    direction: Direction
    clause: Clause
    l7: tuple[L7Rule, ...]
    content: object

    @property
    def words(self) -> str:
        """What it says, for people."""
        return " or ".join(map(rule_in_words, self.l7)) or one_line(clause_in_words(self.clause))


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
    yield Listed(clause.origin, direction, clause, (), (clause.action, *says))
    for entry in clause.to_ports:
        entries: dict[Origin, list[L7Rule]] = {}
        for rule in entry.l7:
            for origin in rule.origins:
                entries.setdefault(origin, []).append(rule)
        for origin in sorted(entries, key=lambda origin: (len(origin.path), origin.path)):  # [9] before [10]
            rules = tuple(entries[origin])
            content = (subject, clause.peers, entry.ports, *(rule.match_key for rule in rules))
            yield Listed(origin, direction, clause, rules, content)
