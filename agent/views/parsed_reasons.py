"""Why a DNS or Kafka message passed or did not: the rules that its proxy names, the nearest rule by a search.

Made for one view and as immutable. The proxy tells what let a message pass, and why it refused one that no rule was
asked about; which rule came nearest is found here, within what searches may take.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.views.searches import Searches
from agent.views.slot_reasons import UNKNOWN, Outcome, SlotReasons, Traced
from flows.record import KafkaRecord, Parsed, ParserVerdict
from policies.errors import one_line
from policies.explaining import reasons
from policies.explaining.differences import Nearest
from policies.ir import L7Rule, RuleSet, Slot
from policies.judging.kafka import KafkaRequest
from policies.kafka_keys import key_of
from policies.types import Origin

KEPT: Final = 8192  # reasons that are remembered; beyond that all are forgotten


class ParsedReasons:
    """The reasons of one view."""

    def __init__(self, slots: SlotReasons, searches: Searches) -> None:
        self._slots = slots
        self._searches = searches
        self._known: dict[tuple[object, ...], Traced] = {}
        self._unsearched: dict[str, Traced] = {}  # by slot

    def of(self, record: Parsed) -> Traced:
        """Why this became of it; of an answer, why its request passed."""
        key = (record.leg.slot.name, record.verdict, record.judgement, _asked(record))
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            known = self._made(record)
            if known.is_traced:  # what was not searched for now may be next time
                self._known[key] = known
        return known

    def _made(self, record: Parsed) -> Traced:
        slot = self._slots.get(record.leg.slot.name)
        if record.verdict is ParserVerdict.FORWARDED:
            return self._passed(slot, record.judgement.rules)
        if record.judgement.reason:
            enforced = self._slots.enforced_by(slot) if record.is_denial else ()
            return Traced(log=(one_line(record.judgement.reason), *enforced))
        return self._missed(slot, record) if record.is_denial else UNKNOWN

    def _passed(self, slot: Slot | None, rules: tuple[Origin, ...]) -> Traced:
        if not rules:
            return self._slots.passed(slot.rule_set.wildcard) if slot and slot.rule_set.wildcard else UNKNOWN
        named = [rule for rule in slot.rule_set.rules if set(rules) & set(rule.origins)] if slot else []
        said = reasons.allowed_by(rules, _only(named))
        return Traced(self._slots.refs.of(rules), (said,), Outcome.ALLOWED, rules)

    def _missed(self, slot: Slot | None, record: Parsed) -> Traced:
        """No rule allows it."""
        if slot is None:
            return Traced(log=(reasons.OUTDATED,))
        said = (reasons.none_allows(slot.rule_set), *self._slots.enforced_by(slot))
        found = self._searches.allowance.run(lambda: [self._nearest(slot.rule_set, record)])
        if found is None:
            return self._unsearched.setdefault(  # the same each time: what flows share is remembered by it
                slot.name, Traced((), (*said, reasons.NOT_SEARCHED), Outcome.NEAR_MISS, is_traced=False)
            )
        nearest = found[0]
        if nearest is None:
            return Traced(log=said if slot.rule_set == RuleSet() else (reasons.OUTDATED, *said[1:]))
        return Traced((), (*said, reasons.nearest(nearest)), Outcome.NEAR_MISS, nearest.origins)

    def _nearest(self, rules: RuleSet, record: Parsed) -> Nearest | None:
        """None if a rule of now allows it, or if there is none at all."""
        index = self._searches.index(rules)
        if index.allows_all:
            return None
        if isinstance(record, KafkaRecord):
            found = index.near_kafka.nearest(_request(record))
        else:
            found = index.near_names.nearest(record.query) if record.query not in index.names else None
        return found.redacted() if found is not None else None


def _asked(record: Parsed) -> tuple[object, ...]:
    """What a reason depends on; what passed by a rule is alike whatever it asked for."""
    if record.verdict is ParserVerdict.FORWARDED or record.judgement.reason:
        return ()
    return tuple(_request(record)) if isinstance(record, KafkaRecord) else (record.query,)


def _request(record: KafkaRecord) -> KafkaRequest:
    """One that names no topic, though its kind does, was refused because it asked for all of them."""
    key = key_of(record.api_key)
    if key is None:  # one without a name is told by its number
        key = int(record.api_key) if record.api_key.isdecimal() else -1
    request = KafkaRequest(key, record.api_version, record.client_id, record.topics)
    return request._replace(is_of_all=request.is_of_topics and not record.topics)


def _only(rules: Iterable[L7Rule]) -> L7Rule | None:
    some = tuple(rules)
    return some[0] if len(some) == 1 else None
