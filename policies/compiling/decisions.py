"""What becomes of a peer that some clauses cover: deny, allow, or which requests. Pure.

Deny beats every allow, whatever is more specific (facts 3.3). Requests are judged only where no allow without L7 covers
the same peer and port; where one does, the proxy only watches, but does what rules say about headers (facts 3.6).
Nobody can judge requests of two parsers on one port: then the peers that both cover are denied, and nobody else is
(Cilium stops at that, and leaves the whole endpoint on what it had: facts 3.5).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from policies.compiling.shapes import Shape
from policies.ir import L7Parser, L7Rule, RuleSet, Verdict
from policies.types import Origin

# What a denial names, beside the clauses that cannot hold together.
PARSER_CONFLICT: Final = Origin("deflector", "", "parser-conflict", "")

# Kept rule sets; a node has at most some hundreds of slots.
_RULE_SETS_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict for whoever is covered by the same clauses, and whose clauses these are: of a denial those that
    deny."""

    verdict: Verdict
    origins: tuple[Origin, ...]
    rule_set: RuleSet | None = None


class RuleSets:
    """Rule sets by what they are made of: a policy of ten thousand rules is merged once, not at each new pod."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Shape, ...], RuleSet] = OrderedDict()

    def of(self, shapes: tuple[Shape, ...]) -> RuleSet:
        """The rule set of these shapes, of which at least one says which requests."""
        found = self._known.get(shapes)
        if found is None:
            found = self._known[shapes] = _rule_set(shapes)
            if len(self._known) > _RULE_SETS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(shapes)
        return found


def decide(shapes: tuple[Shape, ...], rule_sets: RuleSets) -> Decision:
    """What the clauses of these shapes (one at least) decide together."""
    if any(shape.denies for shape in shapes):
        return Decision(Verdict.DENY, _origins(shape for shape in shapes if shape.denies))
    parsers = {shape.parser for shape in shapes} - {None}
    if not parsers:
        return Decision(Verdict.ALLOW, _origins(shapes))
    if len(parsers) > 1:
        return Decision(Verdict.DENY, (*_origins(shape for shape in shapes if shape.l7), PARSER_CONFLICT))
    return Decision(Verdict.REDIRECT, _origins(shapes), rule_sets.of(shapes))


def conflicting(shapes: Iterable[Shape]) -> dict[L7Parser, tuple[Origin, ...]]:
    """The clauses of each parser, where there are two parsers or more; none where the shapes get on."""
    found: dict[L7Parser, set[Origin]] = {}
    for shape in shapes:
        if shape.denies:
            return {}
        if shape.parser is not None:
            found.setdefault(shape.parser, set()).add(shape.origin)
    return {parser: tuple(sorted(found[parser])) for parser in sorted(found)} if len(found) > 1 else {}


def _origins(shapes: Iterable[Shape]) -> tuple[Origin, ...]:
    found = {shape.origin for shape in shapes}
    return tuple(sorted(found, key=_origin_key)) if len(found) > 1 else tuple(found)


def _origin_key(origin: Origin) -> tuple[str, str, str, str]:
    return (origin.kind, origin.namespace, origin.name, origin.path)


def _rule_set(shapes: tuple[Shape, ...]) -> RuleSet:
    plain = {shape.origin for shape in shapes if not shape.l7}
    wildcard = tuple(sorted(plain | {shape.pardon for shape in shapes if shape.pardon is not None}))
    lists = [shape.l7 for shape in shapes if shape.l7]
    if len(lists) == 1:
        return RuleSet.of(lists[0], wildcard)
    union: dict[object, L7Rule] = {}
    for rule in (rule for rules in lists for rule in rules):
        known = union.get(rule.match_key)
        if known is not None and known.origins != rule.origins:
            rule = replace(rule, origins=tuple(sorted({*known.origins, *rule.origins})))
        union[rule.match_key] = rule
    return RuleSet.of(sorted(union.values(), key=lambda rule: rule.match_key), wildcard)
