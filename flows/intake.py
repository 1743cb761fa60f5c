"""What arrives becomes flows in the ring: decoded, paired, stamped, built, appended. Pure; clock and uuids injected.

Nothing is decoded before somebody wants to read: a request costs the node 2 x 0.6 us then instead of 2 x 12 us, and
under load most flows are overwritten unread. What waits keeps the time at which it came and the view of who was where
at that time. While there are readers (`reading`), everything is built as it arrives. Denials wait longer than what was
forwarded, as they stay longer in the ring.

This is the one place where flows come into being, so their times are unique and increase: a relay merges the streams
of nodes by time and scrambles what has the same (facts 2.4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from flow import flow_pb2
from google.protobuf.message import DecodeError as WireError
from seen import seen_pb2

from flows.accesslog.decode import DOWNSTREAM_END, SLOT_KEY, decode_message, is_denied
from flows.accesslog.pairing import Pairing
from flows.build import Builder
from flows.lookups import Lookups
from flows.parsed import count
from flows.record import HttpNews, PacketRecord, Parsed, Seen
from flows.redact import Redaction
from flows.ring import Event, Ring
from flows.tally import Tally

Unpack = Callable[[], Sequence[Parsed]]  # ValueError for what is malformed


T = TypeVar("T")


class Packed(NamedTuple):
    """What a parser of ours saw, to be unpacked if somebody wants to know: how many flows it becomes, and how many of
    them are denials. `uses`: its requests, each for so many that are alike. ValueError for what is malformed."""

    flows: int
    denials: int
    unpack: Unpack
    uses: Callable[[], Sequence[tuple[Parsed, int]]]


class _Waiting(NamedTuple):
    """Something that came and has not been built: an access-log message, records or who unpacks them, or a loss."""

    time_ns: int
    view: Lookups
    what: bytes | tuple[Seen, ...] | Unpack | flow_pb2.LostEvent
    flows: int
    denials: int = 0  # of these flows


class _Unread(NamedTuple):
    """What nobody read before the ring was full again, kept for its denials. `sequence`: of its first flow."""

    sequence: int
    waiting: _Waiting


class Intake:
    """`view` gives the current view, `now_ns` Unix time in ns, `new_uuid` the text of a random v4.

    `malformed` counts access-log entries that were left out; `complaint` says what was wrong with the last of them.
    """

    def __init__(
        self,
        ring: Ring,
        view: Callable[[], Lookups],
        *,
        version: str,
        now_ns: Callable[[], int],
        new_uuid: Callable[[], bytes],
        slot_key: str = SLOT_KEY,
        redaction: Redaction | None = None,
    ) -> None:
        self.ring = ring
        self.pairing = Pairing()
        self.malformed = 0
        self.complaint = ""
        self.reading = False
        self.tally: Tally | None = None  # counts what arrives, whatever becomes of it
        self._view, self._version, self._slot_key = view, version, slot_key
        self._now_ns, self._new_uuid = now_ns, new_uuid
        self._redaction = redaction or Redaction()
        self._builder = Builder(view(), version, self._redaction)
        self._waiting: deque[_Waiting] = deque()
        self._flows_waiting = 0
        self._unread: deque[_Unread] = deque()
        self._denials_unread = 0
        self._last_ns = 0

    def access_log(self, raw: bytes) -> None:
        """Take one serialised StreamAccessLogsMessage. Never raises: what is malformed is counted."""
        try:
            log = seen_pb2.Log.FromString(raw)
        except WireError:
            self.malformed += 1
            self.complaint = "not a StreamAccessLogsMessage"
            return
        if self.reading:
            self.build()
            self._build_http(self._now_ns(), self._current_builder(self._view()), log, self.tally)
            return
        if self.tally is not None:
            self.tally.entries(self._view(), log.http_logs.log_entry, self._now_ns())
        ends = denials = 0
        for entry in log.http_logs.log_entry:
            if entry.common_properties.access_log_type == DOWNSTREAM_END:
                ends += 1
                denials += is_denied(entry)
        refused = len(log.tcp_logs.log_entry)
        # an exchange becomes two flows, whenever its request is told of
        self._take(raw, max(1, 2 * ends + refused), denials + refused)

    def packets(self, records: Sequence[PacketRecord]) -> None:
        """Take events of the kernel."""
        if self.tally is not None:
            self.tally.packets(self._view(), records, self._now_ns())
        self._take(tuple(records), len(records), sum(record.is_denial for record in records))

    def parsed(self, records: Sequence[Parsed]) -> None:
        """Take what parsers of ours saw."""
        if self.tally is not None:
            self.tally.parsed(self._view(), [(record, 1) for record in records], self._now_ns())
        self._take(tuple(records), sum(map(count, records)), sum(count(one) for one in records if one.is_denial))

    def packed(self, packed: Packed) -> None:
        """The same, unpacked only if somebody wants to read."""
        if self.tally is not None:
            self.tally.parsed(self._view(), self._unpacked(packed.uses), self._now_ns())
        self._take(packed.unpack, packed.flows, packed.denials)

    def lost(self, count: int, source: flow_pb2.LostEventSource = flow_pb2.PERF_EVENT_RING_BUFFER) -> None:
        """Take note that `count` events never arrived, and where they were lost."""
        self._take(flow_pb2.LostEvent(source=source, num_events_lost=count), 1)

    def build(self, limit: int | None = None) -> bool:
        """Build what waits, or at least `limit` flows of it; True if something is left."""
        while self._unread and (limit is None or limit > 0):
            unread = self._unread.popleft()
            self._denials_unread -= unread.waiting.denials
            limit = None if limit is None else limit - unread.waiting.denials
            self._build_denials(unread)
        built = 0
        while self._waiting and (limit is None or built < limit):
            waiting = self._waiting.popleft()
            self._flows_waiting -= waiting.flows
            built += waiting.flows
            self._build(waiting)
        return bool(self._unread or self._waiting)

    def _unpacked(self, unpack: Callable[[], Sequence[T]]) -> Sequence[T]:
        try:
            return unpack()
        except ValueError as error:
            self.malformed += 1
            self.complaint = str(error)
            return ()

    def _take(self, what: bytes | tuple[Seen, ...] | Unpack | flow_pb2.LostEvent, flows: int, denials: int = 0) -> None:
        self._waiting.append(_Waiting(self._now_ns(), self._view(), what, flows, denials))
        self._flows_waiting += flows
        if self.reading:
            self.build()
            return
        while self._flows_waiting - self._waiting[0].flows >= self.ring.capacity:
            unread = self._waiting.popleft()
            self._flows_waiting -= unread.flows
            if unread.denials:
                self._keep_denials(unread)
            self.ring.skip(unread.flows)

    def _keep_denials(self, waiting: _Waiting) -> None:
        self._unread.append(_Unread(self.ring.end, waiting))
        self._denials_unread += waiting.denials
        while self._denials_unread - self._unread[0].waiting.denials >= self.ring.denials.capacity:
            gone = self._unread.popleft().waiting.denials
            self._denials_unread -= gone
            self.ring.denials.missed(gone)

    def _build_denials(self, unread: _Unread) -> None:
        """Only the denials of what is not in the ring any more; they are told in one entry each, so none is half."""
        waiting, builder = unread.waiting, self._current_builder(unread.waiting.view)
        events: list[Event] = []
        if isinstance(waiting.what, bytes):
            batch = decode_message(seen_pb2.Log.FromString(waiting.what), self._slot_key)
            for record in batch.records:
                if record.denied_by is not None:
                    news, stamp = HttpNews(record, True, False), self._stamp(waiting.time_ns)
                    events += builder.http(news, stamp, self._new_uuid)
            for refusal in batch.refusals:
                events.append(builder.refused(refusal, self._stamp(waiting.time_ns), self._new_uuid()))
        elif not isinstance(waiting.what, flow_pb2.LostEvent):
            records = waiting.what if isinstance(waiting.what, tuple) else self._unpacked(waiting.what)
            dropped = (record for record in records if record.is_denial)
            events = [event for record in dropped for event in self._events(record, waiting, builder)]
        for number, event in enumerate(events[: waiting.flows]):
            self.ring.denials.append(unread.sequence + number, event)
            self.ring.flows_skipped -= 1

    def _events(self, record: Seen, waiting: _Waiting, builder: Builder) -> list[Event]:
        time_ns = self._stamp(waiting.time_ns)
        if isinstance(record, PacketRecord):
            return [builder.packet(record, time_ns, self._new_uuid())]
        events = builder.parsed(record, time_ns, self._new_uuid)
        self._last_ns = events[-1].time_ns
        return events

    def _build(self, waiting: _Waiting) -> None:
        builder = self._current_builder(waiting.view)
        what = waiting.what
        if isinstance(what, bytes):
            self._build_http(waiting.time_ns, builder, seen_pb2.Log.FromString(what))
        elif not isinstance(what, flow_pb2.LostEvent):
            for record in what if isinstance(what, tuple) else self._unpacked(what):
                for event in self._events(record, waiting, builder):
                    self.ring.append(event)
        else:
            self.ring.append(Event(self._stamp(waiting.time_ns), what.SerializeToString(), is_loss=True))

    def _current_builder(self, view: Lookups) -> Builder:
        if self._builder.view is not view:
            self._builder = Builder(view, self._version, self._redaction)
        return self._builder

    def _build_http(self, came_ns: int, builder: Builder, log: seen_pb2.Log, uncounted: Tally | None = None) -> None:
        """`uncounted`: who is to count what this is built of."""
        batch = decode_message(log, self._slot_key)
        if uncounted is not None:
            uncounted.records(builder.view, batch.records, came_ns)
        if batch.malformed:
            self.malformed += batch.malformed
            self.complaint = batch.complaint
        build, append, new_uuid = builder.http, self.ring.append, self._new_uuid
        time_ns = self._last_ns
        for news in self.pairing.news(batch.records):
            for event in build(news, came_ns if came_ns > time_ns else time_ns + 1, new_uuid):
                append(event)
                time_ns = event.time_ns
        self._last_ns = time_ns
        for refusal in batch.refusals:
            append(builder.refused(refusal, self._stamp(came_ns), new_uuid()))

    def _stamp(self, came_ns: int) -> int:
        self._last_ns = max(came_ns, self._last_ns + 1)
        return self._last_ns
