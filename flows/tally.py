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
from flows.record import PacketKind, PacketRecord

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
    """Who is told. Neither may raise."""

    def requests(self, view: Lookups, uses: Sequence[tuple[Use, Count]]) -> None:
        """Requests that have ended; `view` is of the time at which they did."""

    def packets(self, view: Lookups, records: Sequence[PacketRecord], now_ns: int) -> None:
        """Policy verdicts of the kernel."""


class Tally:
    """Counts for one ledger. To be settled about once a second; a new view settles what was counted under the old."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._view: Lookups | None = None
        self._counts: dict[Use, Count] = {}
        self._leaves: dict[tuple[str, str, str], Count | None] = {}  # slot, result, leaf; None: by request
        self._singles = 0

    def entries(self, view: Lookups, entries: Iterable[seen_pb2.Entry], now_ns: int) -> None:
        """Take the entries of one message. What does not keep to Envoy's API is passed over."""
        if view is not self._view or len(self._leaves) >= LEAVES_MAX:
            self.settle()
            self._view = view
        leaves = self._leaves
        for entry in entries:
            common = entry.common_properties
            if common.access_log_type != DOWNSTREAM_END:
                continue
            try:
                key = (common.route_name, *judged(common.metadata))
            except WireError:
                continue
            count = leaves.get(key)
            if count is None:
                count = self._count(key, entry)
                if count is None:
                    continue
            count.number += 1
            count.last_ns = now_ns

    def packets(self, view: Lookups, records: Sequence[PacketRecord], now_ns: int) -> None:
        """Take events of the kernel."""
        self.settle()
        verdicts = [record for record in records if record.kind is PacketKind.POLICY_VERDICT]
        if verdicts:
            self._ledger.packets(view, verdicts, now_ns)

    def settle(self) -> None:
        """Tell what was counted."""
        if self._view is not None and self._counts:
            self._ledger.requests(self._view, [(use, count) for use, count in self._counts.items() if count.number])
        self._counts, self._leaves, self._singles = {}, {}, 0

    def _count(self, key: tuple[str, str, str], entry: seen_pb2.Entry) -> Count | None:
        """Where this entry is counted; None for one that the filter has not judged."""
        slot, result, leaf = key
        if not result or not slot:
            return None
        is_denied = result != ALLOWED
        if not is_denied and not leaf.startswith(JOINED_PREFIX):
            found = self._leaves[key] = self._of(Use(slot, is_denied, leaf))
            return found
        request = entry.request
        number = request.request_method
        method = METHODS[number] if 0 < number < len(METHODS) else ""
        use = Use(slot, is_denied, leaf, method, request.authority, request.path)
        if use not in self._counts:
            if self._singles >= SINGLES_MAX or not method:
                return self._of(Use(slot, is_denied, leaf, is_told=False))
            self._singles += 1
        return self._of(use)

    def _of(self, use: Use) -> Count:
        found = self._counts.get(use)
        if found is None:
            found = self._counts[use] = Count()
        return found
