"""The filters of a request over events of the ring: most are passed or left out without being parsed. Pure.

What flows have in common (flows.ring) is judged once: who, where to, which verdict. Only if that leaves the question
open, a flow is looked at for what is special about it, and parsed only if it holds the bytes that it would have to
(flows.hints). So a filter goes through a full ring in less than a tenth of a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from flow import flow_pb2

from flows.filters import HTTP_FIELDS, check_size, predicates
from flows.hints import Hints, hints
from flows.predicates import Predicate, all_of, any_of
from flows.ring import SPECIAL as SPECIAL_FIELDS
from flows.ring import Event

KEPT = 16_384  # common parts that are remembered per reader: as many as a node has that talks to thousands
RECORDS = dict.fromkeys(HTTP_FIELDS, "http") | {"dns_query": "dns"}  # what a field is about
WHOLE = "experimental"  # a CEL expression may look at anything
FLOW = re.compile(r"(?<![A-Za-z0-9_])_flow(?![A-Za-z0-9_])(?:\.([A-Za-z0-9_]+))?")  # in CEL; and a field of it
# Filters that look at what is never in common.
SPECIAL = frozenset(
    (
        *("uuid", "trace_id", "source_port", "destination_port", "dns_query"),
        *("http_status_code", "http_method", "http_path", "http_url", "http_header"),
        WHOLE,
    )
)


def looks_at_common(expressions: Iterable[str]) -> bool:
    """Whether CEL expressions look at nothing but what is common: at no more of a flow than fields which they name,
    and these are not special."""
    named = [match[1] for text in expressions for match in FLOW.finditer(text)]
    return all(name is not None and name not in SPECIAL_FIELDS for name in named)


class Sieve:
    """Both lists of a request. Raises FilterError."""

    def __init__(self, allow: Sequence[flow_pb2.FlowFilter], deny: Sequence[flow_pb2.FlowFilter]) -> None:
        check_size((*allow, *deny))
        self._allow, self._deny = [_parted(one) for one in allow], [_parted(one) for one in deny]
        self._is_whole = any(not looks_at_common(one.experimental.cel_expression) for one in (*allow, *deny))
        self._known: dict[bytes, bool | _Question] = {}
        self._questions: dict[tuple[bytes, tuple[bool | _Open, ...]], _Question] = {}  # a few, shared by many parts
        self._hints = tuple({hint for one in self._allow for hint in one.hints})

    def passes(self, event: Event) -> bool:
        """Whether a flow is wanted; only of an event that is no loss."""
        known = self._known.get(event.common)
        if known is None:
            known = self._judged(event.common)
        return known if isinstance(known, bool) else known.ask(event.own)

    def judge(self, events: Sequence[Event]) -> Callable[[Event], bool]:
        """What tells of each of these events whether it passes: all at once are searched for what it takes, which is
        five times as quick as one by one."""
        if self._hints:
            together = b"".join([event.own for event in events])
            if not any(hint in together for hint in self._hints):
                return self._passes_without_hint
        return self.passes

    def _passes_without_hint(self, event: Event) -> bool:
        known = self._known.get(event.common)
        if known is None:
            known = self._judged(event.common)
        if isinstance(known, bool):
            return known
        return not known.needs_hint and known.ask(event.own)

    def _judged(self, common: bytes) -> bool | _Question:
        """What can be said of all flows with this in common: yes, no, or what the rest of each has to be asked."""
        if len(self._known) >= KEPT:
            self._known.clear()
            self._questions.clear()
        found = self._known[common] = self._answer(common)
        return found

    def _answer(self, common: bytes) -> bool | _Question:
        shared = flow_pb2.Flow.FromString(common)
        allowing = [_left(one, shared, bool(common)) for one in self._allow]
        denying = [_left(one, shared, bool(common)) for one in self._deny]
        open_allowing = [one for one in allowing if not isinstance(one, bool)]
        open_denying = [one for one in denying if not isinstance(one, bool)]
        is_allowed = not allowing or True in allowing
        if True in denying or not (is_allowed or open_allowing):
            return False
        if is_allowed and not open_denying:
            return True
        rest = common if self._is_whole else _special_part(shared)
        key = (rest, (is_allowed, *allowing, False, *denying))
        found = self._questions.get(key)
        if found is None:
            found = self._questions[key] = _asking([] if is_allowed else open_allowing, open_denying, rest)
        return found


class _Question(NamedTuple):
    """About a flow without what it has in common with others. Who `needs_hint` says no to a flow without any."""

    ask: Callable[[bytes], bool]
    needs_hint: bool


class _Open(NamedTuple):
    """What is left to ask of a flow, and what it must hold if the answer is to be yes."""

    predicate: Predicate
    hints: Hints = ()


class _Parted(NamedTuple):
    """A filter: what it asks of what is common, and of what is special. A flow whose `l7` is none of `records` cannot
    pass (none: any can)."""

    records: frozenset[str]
    common: Predicate
    special: _Open | None

    @property
    def hints(self) -> Hints:
        return self.special.hints if self.special else ()


def _parted(wanted: flow_pb2.FlowFilter) -> _Parted:
    found = predicates(wanted)
    is_asked_late = SPECIAL - {WHOLE} if looks_at_common(wanted.experimental.cel_expression) else SPECIAL
    special = [predicate for name, predicate in found if name in is_asked_late]
    common = all_of([predicate for name, predicate in found if name not in is_asked_late])
    records = frozenset(RECORDS[name] for name, _ in found if name in RECORDS)
    if not special:
        return _Parted(records, common, None)
    fields = [hints(name, getattr(wanted, name)) for name, _ in found if name in SPECIAL and name != WHOLE]
    # every field must match, so one hint is enough: the one whose bytes are the most
    needed = max((one for one in fields if one), key=lambda one: min(map(len, one)), default=())
    return _Parted(records, common, _Open(all_of(special), needed))


def _left(parted: _Parted, shared: flow_pb2.Flow, is_shared: bool) -> bool | _Open:
    """What is left of a filter when the common part is known; nothing is known of a flow that has none."""
    records, common, special = parted
    if not is_shared:
        return _Open(all_of([common, special.predicate]), special.hints) if special else _Open(common)
    if (records and {shared.l7.WhichOneof("record")} != records) or not common(shared):
        return False
    return special or True


def _special_part(shared: flow_pb2.Flow) -> bytes:
    """What is common of the fields that filters of SPECIAL look at: a server's port, the record that it is."""
    part = flow_pb2.Flow()
    if shared.HasField("l4"):
        part.l4.CopyFrom(shared.l4)
    if shared.HasField("l7"):
        part.l7.CopyFrom(shared.l7)
    wire: bytes = part.SerializeToString()
    return wire


def _asking(allow: Sequence[_Open], deny: Sequence[_Open], rest: bytes) -> _Question:
    """What a flow has to be asked: whether one of `allow` lets it pass (none: it does), and none of `deny` does."""
    asks_deny = any_of([one.predicate for one in deny]) if deny else None
    if not allow:
        assert asks_deny is not None
        return _question(lambda flow: not asks_deny(flow), rest, ())
    asks_allow = any_of([one.predicate for one in allow])
    asks = (lambda flow: asks_allow(flow) and not asks_deny(flow)) if asks_deny else asks_allow
    return _question(asks, rest, _either([one.hints for one in allow], rest))


def _either(alternatives: Sequence[Hints], rest: bytes) -> Hints:
    """Hints for several filters of which one must match; none if a flow may match without any, or by its rest alone."""
    together = tuple(hint for one in alternatives for hint in one)
    return together if all(alternatives) and not any(hint in rest for hint in together) else ()


def _question(predicate: Predicate, rest: bytes, needed: Hints) -> _Question:
    parse = flow_pb2.Flow.FromString
    if not needed:
        return _Question(lambda own: predicate(parse(rest + own)), False)
    if len(needed) == 1:
        only = needed[0]
        return _Question(lambda own: only in own and predicate(parse(rest + own)), True)
    return _Question(lambda own: any(hint in own for hint in needed) and predicate(parse(rest + own)), True)
