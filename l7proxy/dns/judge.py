"""May these questions be asked? Pure: a configuration, compiled, and one decision per query.

Every question of a message is judged, whatever its type and class are (as Cilium, which looks at the first one only).
What is unknown is refused: the reason is what flows show.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from l7proxy.dns.configuration import REJECTIONS, Configuration, Place
from l7proxy.dns.wire import FORMERR, NOTIMP, OPCODE_QUERY, SERVFAIL, Question
from policies.dns_patterns import Dialect, NameSet
from policies.ir import DnsRule, Slot, SlotState


class Reason(StrEnum):
    """Why a query was refused or its answer withheld: stable words for flows and metrics."""

    NO_CONFIGURATION = "no configuration yet"
    UNKNOWN_SLOT = "no rules for this proxy port"
    RETIRED = "its rules are gone: the next query is judged by those of now"
    MALFORMED = "malformed query"
    NOT_A_QUERY = "operation other than a query"
    NO_QUESTION = "query without a question"
    NAME_DENIED = "no rule allows the name"
    OVERLOAD = "too many open queries"
    UNREACHABLE = "server cannot be reached"
    TIMEOUT = "server did not answer"
    BAD_ANSWER = "malformed answer"
    FOREIGN_ANSWER = "answer is about other names"
    HELD_TOO_LONG = "addresses were not in force in time"
    NOT_OPENED = "addresses cannot be opened"


# The code of the reply; what is not listed is the configuration's (REFUSED, or NXDOMAIN) as a policy has spoken.
_RCODES: Final = {
    Reason.NO_CONFIGURATION: SERVFAIL,
    Reason.UNKNOWN_SLOT: SERVFAIL,
    Reason.RETIRED: SERVFAIL,
    Reason.MALFORMED: FORMERR,
    Reason.NOT_A_QUERY: NOTIMP,
    Reason.NO_QUESTION: FORMERR,
    Reason.OVERLOAD: SERVFAIL,
    Reason.UNREACHABLE: SERVFAIL,
    Reason.TIMEOUT: SERVFAIL,
    Reason.BAD_ANSWER: SERVFAIL,
    Reason.FOREIGN_ANSWER: SERVFAIL,
    Reason.HELD_TOO_LONG: SERVFAIL,
    Reason.NOT_OPENED: SERVFAIL,
}
_NO_RULE: Final = -1  # passes, and no rule says so


class Decision(NamedTuple):
    """Allowed iff there is no reason against it. `slot`: whose rules were asked; `rule`: the one that allowed the
    (first) question, None where everything passes."""

    reason: Reason | None
    slot: Slot | None = None
    rule: DnsRule | None = None


class Judge:
    """One configuration, ready to be asked. Without one, everything is refused."""

    def __init__(self, configuration: Configuration | None) -> None:
        places = configuration.places if configuration else {}
        self._unknown = Decision(Reason.UNKNOWN_SLOT if configuration else Reason.NO_CONFIGURATION)
        self._slots = {place: _Rules(slot) for place, slot in places.items()}
        self._rejection = REJECTIONS[configuration.options.rejection] if configuration else SERVFAIL

    def rcode(self, reason: Reason) -> int:
        """The code that a refusal for this reason is answered with."""
        return _RCODES.get(reason, self._rejection)

    def slot(self, place: Place) -> Slot | None:
        """The slot that is served there."""
        found = self._slots.get(place)
        return found.slot if found else None

    def decide(self, place: Place, opcode: int, questions: tuple[Question, ...]) -> Decision:
        """Judge one query that came there."""
        found = self._slots.get(place)
        if found is None:
            return self._unknown
        if opcode != OPCODE_QUERY:
            return Decision(Reason.NOT_A_QUERY, found.slot)
        if not questions:
            return Decision(Reason.NO_QUESTION, found.slot)
        return found.decide(questions)


class _Rules:
    """One slot. What lets a name pass is remembered by its place in the rules."""

    def __init__(self, slot: Slot) -> None:
        rules = slot.rule_set
        self.slot = slot
        named = [rule for rule in rules.dns if not rule.pattern]
        patterned = [rule for rule in rules.dns if rule.pattern]
        names = NameSet((r.name for r in named), (r.pattern for r in patterned), Dialect.DNS_RULE)
        self._which = names.which
        self._passes_all = bool(rules.wildcard) or slot.state is SlotState.DRAINED
        self._is_retired = slot.state is SlotState.RETIRED
        self._allowed = [Decision(None, slot, rule) for rule in (*named, *patterned)]
        self._passed = Decision(None, slot)
        self._denied = Decision(Reason.NAME_DENIED, slot)

    def decide(self, questions: tuple[Question, ...]) -> Decision:
        if self._is_retired:
            return Decision(Reason.RETIRED, self.slot)
        if self._passes_all:
            return self._passed
        first = _NO_RULE
        for question in questions:
            place = self._which(question.name)
            if place is None:
                return self._denied
            if first == _NO_RULE:
                first = place
        return self._allowed[first]
