"""The observer: flows for whoever asks, with Hubble's meaning of every request (facts section 2).

A follower is a position in the ring, woken when something was built; one that is too slow loses what was overwritten,
is told how much, and never holds up the writer. Everything here runs in one event loop: whoever has events from
another thread brings them with call_soon_threadsafe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager

from flow import flow_pb2
from observer import observer_pb2
from relay import relay_pb2

from flows.accesslog.decode import SLOT_KEY
from flows.account import ReaderAccount, RingAccount
from flows.agent_events import EventReader, EventReading, EventRing
from flows.intake import Intake, Packed
from flows.lookups import Lookups
from flows.pace import Pace
from flows.reader import Clock, Losses, Reader
from flows.reading import Reading
from flows.record import PacketRecord, Parsed
from flows.redact import Redaction
from flows.ring import CAPACITY, Event, Ring
from flows.tally import Tally
from flows.uuids import uuids

SLICE = 256  # flows built or looked at before others get their turn
PIECE_SECONDS = 0.005  # of work for all readers together before others get their turn
CLOCK = Clock(time.monotonic, time.time_ns)
RATE_WINDOW_NS = 60_000_000_000
NAMESPACE_LIFETIME_NS = 3_600_000_000_000


class Observer:
    """Takes what was seen, and serves it.

    `view` gives the current view of who is where; `version` has no leading v; `capacity` is 2^k-1 events; `redaction`
    says what flows do not show (None: what flows.redact hides by default).
    """

    def __init__(
        self,
        view: Callable[[], Lookups],
        *,
        version: str,
        capacity: int = CAPACITY,
        slot_key: str = SLOT_KEY,
        redaction: Redaction | None = None,
    ) -> None:
        self.ring = Ring(capacity)
        self.agent_ring = EventRing()
        self.version = version
        self._view = view
        self._intake = Intake(
            self.ring,
            view,
            version=version,
            now_ns=time.time_ns,
            new_uuid=uuids().__next__,
            slot_key=slot_key,
            redaction=redaction,
        )
        self._started = time.monotonic_ns()
        self._readers = 0
        self._pace = Pace(time.monotonic)
        self._reading: dict[int, Reader] = {}  # by id: those that follow or look back now
        self._read = ReaderAccount()  # by all that have ended
        self._news = asyncio.Event()
        self._agent_news = asyncio.Event()
        self._namespaces: dict[tuple[str, str], int] = {}
        self._namespaces_read = 0

    @property
    def malformed(self) -> int:
        """Access-log entries that were left out, among those that were decoded."""
        return self._intake.malformed

    @property
    def complaint(self) -> str:
        """What was wrong with the last malformed entry; empty if there was none."""
        return self._intake.complaint

    @property
    def readers(self) -> int:
        """How many read now."""
        return self._readers

    def account(self) -> RingAccount:
        """What became of every flow so far; those that wait to be built are not among them."""
        return self.ring.account()

    def reader_accounts(self) -> list[ReaderAccount]:
        """What became of the flows that each reader came to: first of all that have ended, then of each that reads."""
        return [self._read, *(reader.account for reader in self._reading.values())]

    def rest(self, worked: float) -> float:
        """Seconds for which who works on flows, after so many of it, should leave the CPU to what comes in.
        May be called in any thread."""
        return self._pace.rest(worked)

    def count(self, tally: Tally) -> None:
        """Have this count what arrives from now on, whether or not anybody reads."""
        self._intake.tally = tally

    # Taking in. None of these raises or waits.

    def access_log(self, raw: bytes) -> None:
        """Take one serialised StreamAccessLogsMessage (the sink of accesslog.server)."""
        began = time.monotonic()
        self._intake.access_log(raw)
        self._pace.built(time.monotonic() - began)
        self._announce()

    def packets(self, records: Sequence[PacketRecord]) -> None:
        """Take events of the kernel."""
        self._intake.packets(records)
        self._announce()

    def parsed(self, records: Sequence[Parsed]) -> None:
        """Take what parsers of ours saw: DNS and Kafka."""
        self._intake.parsed(records)
        self._announce()

    def packed(self, packed: Packed) -> None:
        """The same, unpacked only if somebody wants to read."""
        self._intake.packed(packed)
        self._announce()

    def lost(self, count: int) -> None:
        """Tell readers that the kernel's ring buffer dropped `count` events."""
        self._intake.lost(count)
        self._announce()

    def agent_event(self, event: flow_pb2.AgentEvent) -> None:
        """Take what happened to the agent (flows.agent_events makes these)."""
        self.agent_ring.append(event, self._view().node_name, time.time_ns())
        news, self._agent_news = self._agent_news, asyncio.Event()
        news.set()

    def _announce(self) -> None:
        if self._readers:
            news, self._news = self._news, asyncio.Event()
            news.set()

    # Reading

    async def flows(self, reading: Reading) -> AsyncGenerator[list[bytes], None]:
        """What a request asks for, oldest first, as serialised responses; endless when it follows."""
        with self._reader():
            await self._catch_up()
            reader = Reader(self.ring, reading, self._view().node_name, CLOCK)
            self._reading[id(reader)] = reader
            try:
                while not reader.is_done:
                    began = time.monotonic()
                    if batch := reader.piece(PIECE_SECONDS / self._readers):
                        yield batch
                    if reader.is_done:
                        return
                    if reader.has_work:
                        # a client that takes its time has not cost us any
                        worked = min(time.monotonic() - began, PIECE_SECONDS / self._readers)
                        await asyncio.sleep(self._pace.rest(self._readers * worked))
                    else:
                        await self._wait(reader.losses)
            finally:
                del self._reading[id(reader)]
                self._read += reader.account

    async def agent_events(self, reading: EventReading) -> AsyncGenerator[list[bytes], None]:
        """What a request asks for, oldest first, as serialised responses; endless when it follows."""
        reader = EventReader(self.agent_ring, reading, self._view().node_name)
        while True:
            news = self._agent_news
            if batch := reader.piece():
                yield batch
            elif not reader.is_done:
                await news.wait()
            if reader.is_done:
                return

    async def _wait(self, losses: Losses) -> None:
        """Until there is news, or a notice of loss is due."""
        try:
            async with asyncio.timeout(losses.wait()):
                await self._news.wait()
        except TimeoutError:
            pass

    @contextmanager
    def _reader(self) -> Iterator[None]:
        """While there are readers, everything is built as it arrives."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._intake.reading = self._readers > 0

    async def _catch_up(self) -> None:
        while self._intake.build(SLICE):  # noqa: ASYNC110 - others run between slices of work; it waits for nothing
            await asyncio.sleep(0)
        self._intake.reading = self._readers > 0

    # The other answers

    async def status(self) -> observer_pb2.ServerStatusResponse:
        """How full the ring is, how much was seen, for how long."""
        with self._reader():
            await self._catch_up()
        return observer_pb2.ServerStatusResponse(
            num_flows=len(self.ring),
            max_flows=self.ring.capacity,
            seen_flows=self.ring.flows_seen,
            uptime_ns=time.monotonic_ns() - self._started,
            version=f"deflector v{self.version}",
            flows_rate=self._rate(),
        )

    async def nodes(self) -> observer_pb2.GetNodesResponse:
        """This node."""
        status = await self.status()
        node = observer_pb2.Node(
            name=self._view().node_name,
            version=status.version,
            state=relay_pb2.NODE_CONNECTED,
            tls=observer_pb2.TLS(enabled=False),
            uptime_ns=status.uptime_ns,
            num_flows=status.num_flows,
            max_flows=status.max_flows,
            seen_flows=status.seen_flows,
        )
        return observer_pb2.GetNodesResponse(nodes=[node])

    async def namespaces(self) -> observer_pb2.GetNamespacesResponse:
        """The namespaces of endpoints in flows that were read or kept, of the last hour."""
        with self._reader():
            await self._catch_up()
            while (sequence := max(self._namespaces_read, self.ring.start)) < self.ring.end:
                self._note_namespaces(self.ring[sequence])
                self._namespaces_read = sequence + 1
                if sequence % SLICE == 0:
                    await asyncio.sleep(0)
        oldest = time.time_ns() - NAMESPACE_LIFETIME_NS
        self._namespaces = {key: seen for key, seen in self._namespaces.items() if seen >= oldest}
        found = [observer_pb2.Namespace(cluster=c, namespace=n) for c, n in sorted(self._namespaces)]
        return observer_pb2.GetNamespacesResponse(namespaces=found)

    def _note_namespaces(self, event: Event) -> None:
        if event.is_loss:
            return
        flow = event.flow()
        for who in (flow.source, flow.destination):
            if who.namespace:
                cluster = "" if who.cluster_name == "default" else who.cluster_name
                self._namespaces[(cluster, who.namespace)] = event.time_ns

    def _rate(self) -> float:
        """Flows per second in the last minute, or in the time that the ring covers if that is less."""
        now = time.time_ns()
        first = self.ring.first_since(now - RATE_WINDOW_NS)
        if first == self.ring.end:
            return 0.0
        whole_minute = first > self.ring.start
        span = RATE_WINDOW_NS if whole_minute else max(now - self.ring[first].time_ns, 1)
        return (self.ring.end - first) * 1e9 / max(span, 1_000_000_000)
