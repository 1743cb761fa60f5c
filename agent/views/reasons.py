"""Why a request was allowed or denied: the rule by its leaf in the proxy's matcher tree, the nearest rule by a search.

Made for one view and as immutable; what it has said once it says again at the cost of a look-up. The proxy names the
leaf that let a request pass; where many regular expressions are joined in one leaf, the rule is found by the path.
A request is known from the log only: its headers were not seen, but those that it must have had to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from agent.views.policy_refs import PolicyRefs
from agent.views.searches import Searches
from flows.lookups import Reason
from policies.compiling.slots import NOT_ENFORCED
from policies.errors import one_line
from policies.explaining import reasons
from policies.ir import EndpointPolicy, HttpRule, NodePolicy, RuleSet, Slot
from policies.judging.evaluate import ambiguity
from policies.judging.requests import Request
from policies.types import Origin
from xds import denial

KEPT: Final = 8192  # reasons of single requests that are remembered; beyond that all are forgotten


class Outcome(StrEnum):
    """What a rule had to do with a request or a connection."""

    ALLOWED = "allowed"
    DENIED = "denied"  # by a clause that denies
    NEAR_MISS = "near-miss"  # denied, and this rule came nearest to allowing it


@dataclass(frozen=True, slots=True, eq=False)
class Traced(Reason):
    """A reason, and what it is to be counted for. Not `is_traced`: some rule was used, and it is not known which."""

    outcome: Outcome | None = None
    rules: tuple[Origin, ...] = ()
    is_traced: bool = True


UNKNOWN: Final = Traced()


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

    def __init__(self, node: NodePolicy, refs: PolicyRefs, searches: Searches) -> None:
        self._slots = {slot.name: slot for slot in node.slots}
        self._policies = {policy.group: policy for policy in node.policies}
        self._refs = refs
        self._searches = searches
        self._leaves: dict[tuple[str, str], Traced | None] = {}  # None: it depends on the path
        self._single: dict[Asked, Traced] = {}
        self._alike: dict[tuple[object, ...], Traced] = {}  # what many requests have in common
        self._enforcing: dict[str, tuple[str, ...]] = {}  # by slot

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
            if NOT_ENFORCED in rules.wildcard:
                return Traced(log=(reasons.NOT_ENFORCED,))
            return self._passed(rules.wildcard)
        if name == denial.ALLOW_ALL:
            return self._all_pass(rules)
        if name.startswith(denial.JOINED_PREFIX):
            return None
        found = self._searches.index(rules).leaves.get(name, ())
        return self._by(found) if found else Traced(log=(reasons.OUTDATED,), outcome=Outcome.ALLOWED, is_traced=False)

    def _all_pass(self, rules: RuleSet) -> Traced:
        if rules.wildcard:
            return self._passed(rules.wildcard)
        return self._by([rule for rule in rules.http if rule.is_wildcard])

    def _passed(self, clauses: Iterable[Origin]) -> Traced:
        """By clauses without HTTP rules: the connection is counted for these, its requests are not."""
        some = tuple(clauses)
        return Traced(self._refs.of(some), (reasons.allowed_by(some),))

    def _by(self, rules: Iterable[HttpRule]) -> Traced:
        """By rules that match alike."""
        some = tuple(rules)
        origins = tuple(dict.fromkeys(origin for rule in some for origin in rule.origins))
        said = reasons.allowed_by(origins, some[0] if some else None)
        return Traced(self._refs.of(origins), (said,), Outcome.ALLOWED, origins)

    def _allowed(self, asked: Asked) -> Traced:
        """By one of the regular expressions of a leaf."""
        slot = self._slots[asked.slot]
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
                return Traced(log=(said, *self._enforced_by(slot)))
            case denial.DENY:
                return self._missed(asked, slot)
        return Traced(log=(one_line(f"Envoy refused it by itself: {asked.denied or 'no reason given'}"),))

    def _missed(self, asked: Asked, slot: Slot | None) -> Traced:
        """No rule matched."""
        index = self._searches.index(slot.rule_set) if slot is not None else None
        if slot is None or index is None or index.allows_all:
            return Traced(log=(reasons.OUTDATED,))
        said = (reasons.none_matches(slot.rule_set), *self._enforced_by(slot))
        if not slot.rule_set.http:
            return Traced(log=said)
        found = index.nearest(asked.request)
        if found is None:
            unsearched = Traced((), (*said, reasons.NOT_SEARCHED), Outcome.NEAR_MISS, is_traced=False)
            return self._shared((slot.name,), lambda: unsearched)
        if found.what is None:
            return Traced(log=(reasons.OUTDATED, *said[1:]))
        return Traced((), (*said, reasons.nearest(found.what)), Outcome.NEAR_MISS, found.what.origins)

    def _enforced_by(self, slot: Slot | None) -> tuple[str, ...]:
        """The clauses that send their peers to this slot."""
        if slot is None:
            return ()
        if slot.name not in self._enforcing:
            origins = _clauses(self._policies.get(slot.group), slot) or slot.rule_set.origins
            self._enforcing[slot.name] = (reasons.enforced_by(origins),) if origins else ()
        return self._enforcing[slot.name]


def _clauses(policy: EndpointPolicy | None, slot: Slot) -> tuple[Origin, ...]:
    if policy is None:
        return ()
    peers = (rule for ports in policy.direction(slot.direction).ports for rule in ports.peers)
    return next((rule.origins for rule in peers if rule.slot == slot.name), ())
