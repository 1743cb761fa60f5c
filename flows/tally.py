"""How often which rule was used, counted as entries arrive: also of those that nobody will ever read. Pure.

Of most entries two fields are looked at: the slot, and what the proxy's filter has left in the metadata. Only where the
rule depends on the request (a denial, or a leaf of many regular expressions) its method, host and path are as well; of
these there is a bounded number of different ones between two settlements, and what goes beyond is counted by slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from google.protobuf.message import DecodeError as WireError
from seen import seen_pb2

from flows.accesslog.decode import ALLOWED, DOWNSTREAM_END, METHODS, judged
from flows.lookups import Lookups
from flows.record import HttpRecord, PacketKind, PacketRecord, Parsed

JOINED_PREFIX: Final = "rules:"  # of the name of a leaf in which rules are joined
SINGLES_MAX: Final = 1024  # different requests that are told apart between two settlements
LEAVES_MAX: Final = 16_384  # leaves that are counted before they are settled


class Use(NamedTuple):
    """What was used: a leaf that let requests pass, or that denied them. Not `is_told`: without the request, for there
    were too many different ones."""

    slot: str
    denied: bool
    leaf: str
    method: str = ""
    host: str = ""
    path: str = ""
    is_told: bool = True


@dataclass(slots=True)
class Count:
    """How often, and when last (Unix time in ns)."""

    number: int = 0
    last_ns: int = 0


class Ledger(Protocol):
    """Who is told. None of these may raise."""

    def requests(self, view: Lookups, uses: Sequence[tuple[Use, Count]]) -> None:
        """Requests that have ended; `view` is of the time at which they did."""

    def packets(self, view: Lookups, records: Sequence[PacketRecord], now_ns: int) -> None:
        """Policy verdicts of the kernel."""

    def parsed(self, view: Lookups, uses: Sequence[tuple[Parsed, int]], now_ns: int) -> None:
        """Requests of DNS and Kafka, each for so many that are alike."""


class Tally:
    """Counts for one ledger. To be settled about once a second; a new view settles what was counted under the old."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._view: Lookups | None = None
        self._counts: dict[Use, Count] = {}
        self._leaves: dict[tuple[str, str], Count] = {}  # slot and leaf that let requests pass
        self._singles = 0

    def entries(self, view: Lookups, entries: Iterable[seen_pb2.Entry], now_ns: int) -> None:
        """Take the entries of one message. What does not keep to Envoy's API is passed over."""
        leaves = self._begin(view)
        for entry in entries:
            common = entry.common_properties
            if common.access_log_type != DOWNSTREAM_END:
                continue
            try:
                result, leaf = judged(common.metadata)
            except WireError:
                continue
            slot = common.route_name
            count = leaves.get((slot, leaf)) if result == ALLOWED else None
            if count is None:
                if not result or not slot:
                    continue  # it was refused before the filter could judge it
                request = entry.request
                number = request.request_method
                method = METHODS[number] if 0 < number < len(METHODS) else ""
                use = Use(slot, result != ALLOWED, leaf, method, request.authority, request.path)
                count = self._count(use)
            count.number += 1
            count.last_ns = now_ns

    def records(self, view: Lookups, records: Iterable[HttpRecord], now_ns: int) -> None:
        """The same of entries that have been decoded already."""
        leaves = self._begin(view)
        for record in records:
            if not record.ended:
                continue
            slot, leaf, denied = record.slot.name, record.allowed_by, record.denied_by
            count = leaves.get((slot, leaf)) if leaf else None
            if count is None:
                if not leaf and denied is None:
                    continue
                exchange = record.exchange
                asked = (exchange.method, exchange.authority, exchange.path)
                count = self._count(Use(slot, denied is not None, denied or leaf, *asked))
            count.number += 1
            count.last_ns = now_ns

    def packets(self, view: Lookups, records: Sequence[PacketRecord], now_ns: int) -> None:
        """Take events of the kernel."""
        self._begin(view)
        verdicts = [record for record in records if record.kind is PacketKind.POLICY_VERDICT]
        if verdicts:
            self._ledger.packets(view, verdicts, now_ns)

    def parsed(self, view: Lookups, uses: Sequence[tuple[Parsed, int]], now_ns: int) -> None:
        """Take what parsers of ours saw, each for so many that are alike; an answer is its request's."""
        self._begin(view)
        requests = [use for use in uses if use[0].is_request]
        if requests:
            self._ledger.parsed(view, requests, now_ns)

    def settle(self) -> None:
        """Tell what was counted."""
        if self._view is not None and self._counts:
            self._ledger.requests(self._view, list(self._counts.items()))
        self._counts, self._leaves, self._singles = {}, {}, 0

    def _begin(self, view: Lookups) -> dict[tuple[str, str], Count]:
        """The ledger hears of views in their order: what was counted under the last one goes first."""
        if view is not self._view or len(self._leaves) >= LEAVES_MAX:
            self.settle()
            self._view = view
        return self._leaves

    def _count(self, use: Use) -> Count:
        """Where a request is counted that is the first of its leaf, or whose rule depends on what it asks for."""
        if not use.denied and not use.leaf.startswith(JOINED_PREFIX):
            found = self._leaves[use.slot, use.leaf] = self._of(Use(use.slot, use.denied, use.leaf))
            return found
        if use not in self._counts:
            if self._singles >= SINGLES_MAX or not use.method:
                return self._of(Use(use.slot, use.denied, use.leaf, is_told=False))
            self._singles += 1
        return self._of(use)

    def _of(self, use: Use) -> Count:
        found = self._counts.get(use)
        if found is None:
            found = self._counts[use] = Count()
        return found
