"""May this pod ask this server these questions? Pure: a configuration, compiled, and one decision per query.

Every question of a message is judged, whatever its type and class are (as Cilium, which looks at the first one only).
What is unknown is refused: the reason is what flows show.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from l7proxy.dns.configuration import REJECTIONS, Configuration, NameRules, Slot
from l7proxy.dns.wire import FORMERR, NOTIMP, OPCODE_QUERY, SERVFAIL, Question
from policies.dns_patterns import Dialect, NameSet
from policies.types import Protocol


class Reason(StrEnum):
    """Why a query was refused or its answer withheld: stable words for flows and metrics."""

    NO_CONFIGURATION = "no configuration yet"
    UNKNOWN_ENDPOINT = "source is no endpoint of this node"
    UNKNOWN_SLOT = "no rules for this proxy port"
    FOREIGN_SLOT = "endpoint, protocol or port is not the slot's"
    MALFORMED = "malformed query"
    NOT_A_QUERY = "operation other than a query"
    NO_QUESTION = "query without a question"
    SERVER_DENIED = "no rule for this server"
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
    Reason.UNKNOWN_ENDPOINT: SERVFAIL,
    Reason.UNKNOWN_SLOT: SERVFAIL,
    Reason.FOREIGN_SLOT: SERVFAIL,
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


class Asked(NamedTuple):
    """Who asks whom what. `group` is None for a source that is no endpoint."""

    protocol: Protocol
    proxy_port: int
    group: int | None
    server_port: int
    server_identity: int
    opcode: int
    questions: tuple[Question, ...]


class Decision(NamedTuple):
    """Allowed iff there is no reason against it. `rule` is the origin of the (first) rule that allowed."""

    reason: Reason | None
    rule: str = ""


class _Rules(NamedTuple):
    servers: frozenset[int] | None
    names: NameSet
    origin: str


class Judge:
    """One configuration, ready to be asked. Without one, everything is refused."""

    def __init__(self, configuration: Configuration | None) -> None:
        self._configured = configuration is not None
        slots = configuration.slots if configuration else ()
        self._slots = {(s.protocol, s.proxy_port): (s, tuple(map(_compile, s.rules))) for s in slots}
        self._rejection = REJECTIONS[configuration.options.rejection] if configuration else SERVFAIL

    def rcode(self, reason: Reason) -> int:
        """The code that a refusal for this reason is answered with."""
        return _RCODES.get(reason, self._rejection)

    def decide(self, asked: Asked) -> Decision:
        """Judge one query."""
        found = self._slots.get((asked.protocol, asked.proxy_port))
        if found is None:
            return Decision(Reason.UNKNOWN_SLOT if self._configured else Reason.NO_CONFIGURATION)
        slot, rules = found
        fault = _fault(slot, asked)
        if fault is not None:
            return Decision(fault)
        identity = asked.server_identity
        due = [rule for rule in rules if rule.servers is None or identity in rule.servers]
        if not due:
            return Decision(Reason.SERVER_DENIED)
        origin = None
        for question in asked.questions:
            for rule in due:
                if question.name in rule.names:
                    origin = rule.origin if origin is None else origin
                    break
            else:
                return Decision(Reason.NAME_DENIED)
        return Decision(None, origin or "")


def _fault(slot: Slot, asked: Asked) -> Reason | None:
    if asked.group is None:
        return Reason.UNKNOWN_ENDPOINT
    if slot.group is not None and slot.group != asked.group:
        return Reason.FOREIGN_SLOT
    if not slot.first_port <= asked.server_port <= slot.last_port:
        return Reason.FOREIGN_SLOT
    if asked.opcode != OPCODE_QUERY:
        return Reason.NOT_A_QUERY
    return None if asked.questions else Reason.NO_QUESTION


def _compile(rules: NameRules) -> _Rules:
    patterns = rules.patterns if rules.names or rules.patterns else ("*",)
    return _Rules(rules.servers, NameSet(rules.names, patterns, Dialect.DNS_RULE), rules.origin)
