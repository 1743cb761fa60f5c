"""Which rules are used: per rule how often it allowed or denied, how often it nearly would have, and when last.

A rule is a clause of a policy (counted by connections, as the kernel tells of them) or an HTTP rule in one (counted by
requests, when they end). Counting starts with the agent; a rule that is edited, or takes another's place, starts anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.views.node_view import NodeView
from agent.views.reasons import Asked
from agent.views.slot_reasons import Outcome, Traced
from flows.lookups import Lookups
from flows.record import PacketRecord, Parsed
from flows.tally import Count, Use
from policies.explaining.listing import content_of, rules_of
from policies.objects import ObjectKey
from policies.rules import Policy
from policies.types import Origin


@dataclass(slots=True)
class RuleUse:
    """Numbers by outcome; Unix times in ns. `last_ns` 0: never allowed or denied anything."""

    since_ns: int
    numbers: dict[Outcome, int] = field(default_factory=dict)
    last_ns: int = 0
    last_near_ns: int = 0

    @property
    def is_used(self) -> bool:
        return bool(self.last_ns)


class Usage:
    """The book of one node; satisfies flows.tally.Ledger. `started_ns` is Unix time."""

    def __init__(self, started_ns: int) -> None:
        self.started_ns = started_ns
        self.rules: dict[Origin, RuleUse] = {}
        self.untraced: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.doubtful: set[Origin] = set()  # may have been used: requests were counted for a group of rules only
        self._policies: Mapping[ObjectKey, Policy] = {}
        self._now_ns = started_ns

    def requests(self, view: Lookups, uses: Sequence[tuple[Use, Count]]) -> None:
        """Requests that have ended under this view."""
        assert isinstance(view, NodeView)
        self.follow(view, max((count.last_ns for _, count in uses), default=0))
        for use, count in uses:
            denied, allowed = (use.leaf, "") if use.denied else (None, use.leaf)
            if use.is_told:
                traced = view.why_asked(Asked(use.slot, denied, allowed, use.method, use.host, use.path))
            else:
                traced = view.why_unsearched(use.slot, use.denied)
            self._note(traced, count)

    def packets(self, view: Lookups, records: Sequence[PacketRecord], now_ns: int) -> None:
        """Policy verdicts under this view."""
        assert isinstance(view, NodeView)
        self.follow(view, now_ns)
        for record in records:
            self._note(view.why_packet(record), Count(1, now_ns))

    def parsed(self, view: Lookups, uses: Sequence[tuple[Parsed, int]], now_ns: int) -> None:
        """Requests of DNS and Kafka under this view, each for so many that are alike."""
        assert isinstance(view, NodeView)
        self.follow(view, now_ns)
        for record, number in uses:
            self._note(view.why_parsed(record), Count(number, now_ns))

    def follow(self, view: NodeView, now_ns: int) -> None:
        """Take the policies of this view for those of now: the numbers of rules that stay are kept."""
        policies = view.policies
        if policies is self._policies:
            return
        self._now_ns = max(self._now_ns, now_ns)
        for key in sorted(self._policies.keys() | policies.keys()):
            old, new = self._policies.get(key), policies.get(key)
            if old is not new:
                self._replace(old, new)
        self._policies = policies

    def _replace(self, old: Policy | None, new: Policy | None) -> None:
        before = content_of(old) if old is not None else {}
        for listed in rules_of(new) if new is not None else ():
            if before.pop(listed.origin, None) != listed.content:
                self.rules[listed.origin] = RuleUse(self._now_ns)
                self.doubtful.discard(listed.origin)
        for origin in before:
            self.rules.pop(origin, None)
            self.doubtful.discard(origin)

    def _note(self, traced: Traced, count: Count) -> None:
        outcome = traced.outcome
        if outcome is None:
            return
        if not traced.is_traced:
            self.untraced[outcome] += count.number
            if outcome is not Outcome.NEAR_MISS:
                self.doubtful.update(origin for origin in traced.rules if origin in self.rules)
            return
        for origin in traced.rules:
            use = self.rules.get(origin)
            if use is None:  # an implicit rule, or one that is gone
                continue
            use.numbers[outcome] = use.numbers.get(outcome, 0) + count.number
            if outcome is Outcome.NEAR_MISS:
                use.last_near_ns = max(use.last_near_ns, count.last_ns)
            else:
                use.last_ns = max(use.last_ns, count.last_ns)
                self.doubtful.discard(origin)
