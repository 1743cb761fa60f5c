"""Why a request was allowed or denied: the rule by its leaf in the proxy's matcher tree, the nearest rule by a search.

Made for one view and as immutable; what it has said once it says again at the cost of a look-up. The proxy names the
leaf that let a request pass; where many regular expressions are joined in one leaf, the rule is found by the path.
A request is known from the log only: its headers were not seen, but those that it must have had to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from agent.views.searches import Searches
from agent.views.slot_reasons import UNKNOWN, Outcome, SlotReasons, Traced
from policies.errors import one_line
from policies.explaining import reasons
from policies.ir import HttpRule, RuleSet, Slot
from policies.judging.evaluate import ambiguity
from policies.judging.requests import Request
from xds import denial

KEPT: Final = 8192  # reasons of single requests that are remembered; beyond that all are forgotten


class Asked(NamedTuple):
    """A request on a slot, as the log tells of it. `denied`: the name by which the proxy refused it; None: allowed."""

    slot: str
    denied: str | None
    allowed: str  # the name of the leaf
    method: str = ""
    host: str = ""
    path: str = ""

    @property
    def request(self) -> Request:
        return Request(self.method, self.path, self.host, is_whole=False)


class RequestReasons:
    """The reasons of one view."""

    def __init__(self, slots: SlotReasons, searches: Searches) -> None:
        self._slots = slots
        self._refs = slots.refs
        self._searches = searches
        self._leaves: dict[tuple[str, str], Traced | None] = {}  # None: it depends on the path
        self._single: dict[Asked, Traced] = {}
        self._alike: dict[tuple[object, ...], Traced] = {}  # what many requests have in common

    def of(self, asked: Asked) -> Traced:
        """Why this became of it."""
        if asked.denied is None:
            leaf = self.leaf(asked.slot, asked.allowed)
            if leaf is not None:
                return leaf
        known = self._single.get(asked)
        if known is None:
            if len(self._single) >= KEPT:
                self._single.clear()
            known = self._allowed(asked) if asked.denied is None else self._denied(asked)
            if known.is_traced:  # what was not searched for now may be next time
                self._single[asked] = known
        return known

    def leaf(self, slot: str, name: str) -> Traced | None:
        """Why requests pass by this leaf; None if it depends on the request."""
        key = (slot, name)
        if key not in self._leaves:
            if len(self._leaves) >= KEPT:
                self._leaves.clear()
            self._leaves[key] = self._of_leaf(self._slots.get(slot), name)
        return self._leaves[key]

    def unsearched(self, slot: str, denied: bool) -> Traced:
        """Of requests that are counted by the slot: any of its rules may be the one."""
        if denied:
            return Traced((), (reasons.NOT_SEARCHED,), Outcome.NEAR_MISS, is_traced=False)
        found = self._slots.get(slot)
        rules = found.rule_set.origins if found is not None else ()
        return Traced((), (), Outcome.ALLOWED, rules, is_traced=False)

    def _of_leaf(self, slot: Slot | None, name: str) -> Traced | None:
        if not name:
            return UNKNOWN
        if slot is None:
            return Traced(log=(reasons.OUTDATED,))
        rules = slot.rule_set
        if name == denial.DRAINED:
            return self._slots.passed(rules.wildcard)
        if name == denial.ALLOW_ALL:
            return self._all_pass(rules)
        if name.startswith(denial.JOINED_PREFIX):
            return None
        found = self._searches.index(rules).leaves.get(name, ())
        return self._by(found) if found else Traced(log=(reasons.OUTDATED,), outcome=Outcome.ALLOWED, is_traced=False)

    def _all_pass(self, rules: RuleSet) -> Traced:
        if rules.wildcard:
            return self._slots.passed(rules.wildcard)
        return self._by([rule for rule in rules.http if rule.is_wildcard])

    def _by(self, rules: Iterable[HttpRule]) -> Traced:
        """By rules that match alike."""
        some = tuple(rules)
        origins = tuple(dict.fromkeys(origin for rule in some for origin in rule.origins))
        said = reasons.allowed_by(origins, some[0] if some else None)
        return Traced(self._refs.of(origins), (said,), Outcome.ALLOWED, origins)

    def _allowed(self, asked: Asked) -> Traced:
        """By one of the regular expressions of a leaf."""
        slot = self._slots.get(asked.slot)
        assert slot is not None  # or it would have no leaf
        found = self._searches.index(slot.rule_set).matching(asked.request)
        if found is None:
            return self._shared((slot.name, "any of its rules"), lambda: self._one_of(slot.rule_set.http))
        matching = found.what
        if not matching:
            return Traced(log=(reasons.OUTDATED,), outcome=Outcome.ALLOWED, is_traced=False)
        if len(matching) == 1 or not matching[0].headers:
            return self._shared(matching[:1], lambda: self._by(matching[:1]))
        return self._shared(matching, lambda: self._one_of(matching))

    def _one_of(self, matching: tuple[HttpRule, ...]) -> Traced:
        origins = tuple(dict.fromkeys(origin for rule in matching for origin in rule.origins))
        policies = self._refs.of(origins)
        sure = policies if len(policies) == 1 else ()
        return Traced(sure, (reasons.one_of(matching),), Outcome.ALLOWED, origins, is_traced=False)

    def _shared(self, key: Sequence[object], make: Callable[[], Traced]) -> Traced:
        """The same object each time: what is made of a reason is remembered by it. Rules are told apart by identity."""
        ids = tuple(part if isinstance(part, str) else id(part) for part in key)
        known = self._alike.get(ids)
        if known is None:
            if len(self._alike) >= KEPT:
                self._alike.clear()
            known = self._alike[ids] = make()
        return known

    def _denied(self, asked: Asked) -> Traced:
        assert asked.denied is not None
        slot = self._slots.get(asked.slot)
        rules = slot.rule_set if slot is not None else RuleSet()
        match asked.denied:
            case denial.RETIRED:
                return Traced(log=(reasons.RETIRED,))
            case denial.UNDELIVERED:
                return Traced(log=(reasons.UNDELIVERED,))
            case denial.AMBIGUOUS_PATH | denial.AMBIGUOUS_HOST:
                fault = self._searches.allowance.run(lambda: ambiguity(rules, asked.request))
                said = reasons.read_differently(fault or "its path or its host is ambiguous")
                return Traced(log=(said, *self._slots.enforced_by(slot)))
            case denial.DENY:
                return self._missed(asked, slot)
        return Traced(log=(one_line(f"Envoy refused it by itself: {asked.denied or 'no reason given'}"),))

    def _missed(self, asked: Asked, slot: Slot | None) -> Traced:
        """No rule matched."""
        index = self._searches.index(slot.rule_set) if slot is not None else None
        if slot is None or index is None or index.allows_all:
            return Traced(log=(reasons.OUTDATED,))
        said = (reasons.none_matches(slot.rule_set), *self._slots.enforced_by(slot))
        if not slot.rule_set.http:
            return Traced(log=said)
        found = index.nearest(asked.request)
        if found is None:
            unsearched = Traced((), (*said, reasons.NOT_SEARCHED), Outcome.NEAR_MISS, is_traced=False)
            return self._shared((slot.name,), lambda: unsearched)
        if found.what is None:
            return Traced(log=(reasons.OUTDATED, *said[1:]))
        return Traced((), (*said, reasons.nearest(found.what)), Outcome.NEAR_MISS, found.what.origins)
