"""Why a TLS connection was closed by the name of the server that it asked for: the nearest rule by a search.

Made for one view and as immutable.
"""

from __future__ import annotations

from typing import Final

from agent.views.searches import Found, Searches
from agent.views.slot_reasons import Outcome, SlotReasons, Traced
from flows.record import TlsRefusal
from policies.dns_patterns import canonical
from policies.explaining import reasons
from policies.explaining.differences import Nearest
from policies.ir import RuleSet
from xds import denial

KEPT: Final = 8192  # reasons that are remembered; beyond that all are forgotten


class RefusalReasons:
    """The reasons of one view."""

    def __init__(self, slots: SlotReasons, searches: Searches) -> None:
        self._slots = slots
        self._searches = searches
        self._known: dict[tuple[str, str, str], Traced] = {}

    def of(self, record: TlsRefusal) -> Traced:
        """Why this became of it."""
        key = (record.leg.slot.name, record.denied_by, record.server_name)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            known = self._made(record)
            if known.is_traced:  # what was not searched for now may be next time
                self._known[key] = known
        return known

    def _made(self, record: TlsRefusal) -> Traced:
        if record.denied_by == denial.RETIRED:
            return Traced(log=(reasons.RETIRED,))
        slot = self._slots.get(record.leg.slot.name)
        if slot is None or slot.rule_set.allows_all:
            return Traced(log=(reasons.OUTDATED,))
        said = (reasons.none_allows(slot.rule_set), *self._slots.enforced_by(slot))
        if not record.server_name:
            return Traced(log=(reasons.NO_SERVER_NAME, *said))
        found = self._searches.allowance.run(lambda: Found(self._nearest(slot.rule_set, record.server_name)))
        if found is None:
            return Traced((), (*said, reasons.NOT_SEARCHED), Outcome.NEAR_MISS, is_traced=False)
        if found.what is None:
            return Traced(log=(reasons.OUTDATED, *said[1:]))
        return Traced((), (*said, reasons.nearest(found.what)), Outcome.NEAR_MISS, found.what.origins)

    def _nearest(self, rules: RuleSet, server_name: str) -> Nearest | None:
        """None if a rule of now allows it."""
        index, name = self._searches.index(rules), canonical(server_name)
        return index.near_names.nearest(name) if name not in index.names else None
