"""The filters of a request over events of the ring: most are passed or left out without being parsed. Pure.

What flows have in common (flows.ring) is judged once: who, where to, which verdict. Only if that leaves the question
open, the flow is parsed for what is special about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flow import flow_pb2

from flows.filters import Predicate, all_of, any_of, check_size, predicates
from flows.ring import Event

KEPT = 1024  # common parts that are remembered per reader
# Filters that look at what is never in common. `protocol` looks at both.
SPECIAL = frozenset(
    (
        *("uuid", "trace_id", "protocol", "tcp_flags", "source_port", "destination_port", "dns_query"),
        *("http_status_code", "http_method", "http_path", "http_url", "http_header"),
        "experimental",  # a CEL expression may look at anything
    )
)


class Sieve:
    """Both lists of a request. Raises FilterError."""

    def __init__(self, allow: Sequence[flow_pb2.FlowFilter], deny: Sequence[flow_pb2.FlowFilter]) -> None:
        check_size((*allow, *deny))
        self._allow, self._deny = [_parted(one) for one in allow], [_parted(one) for one in deny]
        self._known: dict[bytes, bool | Predicate] = {}

    def passes(self, event: Event) -> bool:
        """Whether a flow is wanted; only of an event that is no loss."""
        known = self._known.get(event.common)
        if known is None:
            known = self._judged(event.common)
        return known if isinstance(known, bool) else known(event.flow())

    def _judged(self, common: bytes) -> bool | Predicate:
        """What can be said of all flows with this in common: yes, no, or what the flow itself has to be asked."""
        if len(self._known) >= KEPT:
            self._known.clear()
        found = self._known[common] = self._answer(common)
        return found

    def _answer(self, common: bytes) -> bool | Predicate:
        shared = flow_pb2.Flow.FromString(common)
        allowing = [_left(one, shared, bool(common)) for one in self._allow]
        denying = [_left(one, shared, bool(common)) for one in self._deny]
        open_allowing = [one for one in allowing if not isinstance(one, bool)]
        open_denying = [one for one in denying if not isinstance(one, bool)]
        is_allowed = not allowing or True in allowing
        if True in denying or not (is_allowed or open_allowing):
            return False
        asks_deny = any_of(open_denying) if open_denying else None
        if is_allowed:
            return (lambda flow: not asks_deny(flow)) if asks_deny else True
        asks_allow = any_of(open_allowing)
        return (lambda flow: asks_allow(flow) and not asks_deny(flow)) if asks_deny else asks_allow


_Parted = tuple[Predicate, Predicate | None]  # of what is common; of what is special, if that is asked for


def _parted(wanted: flow_pb2.FlowFilter) -> _Parted:
    found = predicates(wanted)
    special = [predicate for name, predicate in found if name in SPECIAL]
    common = [predicate for name, predicate in found if name not in SPECIAL]
    return all_of(common), all_of(special) if special else None


def _left(parted: _Parted, shared: flow_pb2.Flow, is_shared: bool) -> bool | Predicate:
    """What is left of a filter when the common part is known; nothing is known of a flow that has none."""
    common, special = parted
    if not is_shared:
        return all_of([common, special]) if special else common
    if not common(shared):
        return False
    return special or True
