"""The filters of a request over events of the ring: most are passed or left out without being parsed. Pure.

What flows have in common (flows.ring) is judged once: who, where to, which verdict. Only if that leaves the question
open, a flow is looked at for what is special about it, and parsed only if it holds the bytes that it would have to
(flows.hints). So a filter goes through a full ring in less than a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from flow import flow_pb2

from flows.filters import check_size, predicates
from flows.hints import Hints, hints
from flows.predicates import Predicate, all_of, any_of
from flows.ring import SPECIAL as SPECIAL_FIELDS
from flows.ring import Event

KEPT = 4096  # common parts that are remembered per reader: as many as a node has that talks to thousands
WHOLE = "experimental"  # a CEL expression may look at anything
# Filters that look at what is never in common. `protocol` looks at both.
SPECIAL = frozenset(
    (
        *("uuid", "trace_id", "protocol", "tcp_flags", "source_port", "destination_port", "dns_query"),
        *("http_status_code", "http_method", "http_path", "http_url", "http_header"),
        WHOLE,
    )
)


class Sieve:
    """Both lists of a request. Raises FilterError."""

    def __init__(self, allow: Sequence[flow_pb2.FlowFilter], deny: Sequence[flow_pb2.FlowFilter]) -> None:
        check_size((*allow, *deny))
        self._allow, self._deny = [_parted(one) for one in allow], [_parted(one) for one in deny]
        self._is_whole = any(one.experimental.cel_expression for one in (*allow, *deny))
        self._known: dict[bytes, bool | _Question] = {}
        self._hints = tuple({hint for _, special in self._allow if special for hint in special.hints})

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
        rest = common if self._is_whole else _special_part(shared)
        asks_deny = any_of([one.predicate for one in open_denying]) if open_denying else None
        if is_allowed:
            return _question(lambda flow: not asks_deny(flow), rest, ()) if asks_deny else True
        asks_allow = any_of([one.predicate for one in open_allowing])
        needed = _either([one.hints for one in open_allowing], rest)
        asks = (lambda flow: asks_allow(flow) and not asks_deny(flow)) if asks_deny else asks_allow
        return _question(asks, rest, needed)


class _Question(NamedTuple):
    """About a flow without what it has in common with others. Who `needs_hint` says no to a flow without any."""

    ask: Callable[[bytes], bool]
    needs_hint: bool


class _Open(NamedTuple):
    """What is left to ask of a flow, and what it must hold if the answer is to be yes."""

    predicate: Predicate
    hints: Hints = ()


_Parted = tuple[Predicate, _Open | None]  # of what is common; of what is special, if that is asked for


def _parted(wanted: flow_pb2.FlowFilter) -> _Parted:
    found = predicates(wanted)
    special = [predicate for name, predicate in found if name in SPECIAL]
    common = [predicate for name, predicate in found if name not in SPECIAL]
    if not special:
        return all_of(common), None
    fields = [hints(name, getattr(wanted, name)) for name, _ in found if name in SPECIAL and name != WHOLE]
    # every field must match, so one hint is enough: the one whose bytes are the most
    needed = max((one for one in fields if one), key=lambda one: min(map(len, one)), default=())
    return all_of(common), _Open(all_of(special), needed)


def _left(parted: _Parted, shared: flow_pb2.Flow, is_shared: bool) -> bool | _Open:
    """What is left of a filter when the common part is known; nothing is known of a flow that has none."""
    common, special = parted
    if not is_shared:
        return _Open(all_of([common, special.predicate]), special.hints) if special else _Open(common)
    if not common(shared):
        return False
    return special or True


def _special_part(shared: flow_pb2.Flow) -> bytes:
    """What is common of fields that are special: a server's port."""
    part = flow_pb2.Flow()
    part.CopyFrom(shared)
    for field, _ in shared.ListFields():
        if field.name not in SPECIAL_FIELDS:
            part.ClearField(field.name)
    wire: bytes = part.SerializeToString()
    return wire


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
