"""One reader's place in the ring: where it starts, what it is sent next, what it missed. Pure; the clock is given.

Whatever a request asks for is done in pieces of bounded work, so that no reader holds up the others or the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flow import flow_pb2
from observer import observer_pb2

from flows.account import ReaderAccount
from flows.reading import Reading
from flows.responses import Responses
from flows.ring import Event, Ring

PIECE_EVENTS = 256  # events that are looked at in one piece
BACK_EVENTS = 32  # ... and at once, going back: few, for what a piece has no time for is fetched again by the next
PIECE_BYTES = 1 << 16  # bytes of responses in one piece; the last may go beyond it
LOSS_INTERVAL = 1.0  # seconds; one notice of loss per reader in this time


@dataclass(frozen=True, slots=True)
class Clock:
    """`monotonic` gives seconds, `unix_ns` Unix time in ns."""

    monotonic: Callable[[], float]
    unix_ns: Callable[[], int]


class Reader:
    """Reads what a request asks for, piece by piece; a reader that does not follow ends where the ring ends now."""

    def __init__(self, ring: Ring, reading: Reading, node_name: str, clock: Clock) -> None:
        self._ring, self._reading, self._clock = ring, reading, clock
        self._responses = Responses(reading.mask, node_name)
        self._end = None if reading.follow else ring.end
        self._next = reading.start(ring)  # sequence number of the next event to look at, after those that were found
        self._owed_from = ring.end if reading.follow else ring.start  # what is overwritten from here on is lost
        self._back_at, self._to_find = self._next, reading.back
        self._found: list[int] = []  # going back: what is to be sent, newest first
        self._found_start = ring.start  # of the ring when it was last looked whether that is still there
        self._late_from = self._next  # from here to `_next` only denials are left to be looked at ...
        self._late = 0  # ... so many
        self._left = reading.limit
        self.losses = Losses(node_name, clock)
        self.is_done = False
        # flows that were sent, and that its filters or its end left out; losses from before the ring that were told
        self.sent = self.passed_over = self.passed_on = 0

    @property
    def has_work(self) -> bool:
        """Whether there is something to do now, or else only when something has come."""
        waits = self._to_find or self._found or self._late
        return self._end is not None or bool(waits) or self._next < self._ring.end

    @property
    def account(self) -> ReaderAccount:
        """What became of the flows that it has come to."""
        return ReaderAccount(self.sent, self.passed_over, self.losses.total)

    def piece(self, seconds: float) -> list[bytes]:
        """The next responses, after about so many seconds of work at most; may be none while it looks for its start."""
        stop = self._clock.monotonic() + seconds
        if self._to_find:
            self._go_back(stop)
            return []
        self._count_losses()
        batch: list[bytes] = []
        if (notice := self.losses.due()) is not None:
            batch.append(notice)
        self._go_on(batch, stop)
        if self.is_done and (notice := self.losses.due(now=True)) is not None:
            batch.append(notice)
        return batch

    def _go_back(self, stop: float) -> None:
        """Towards the start of the ring, until as many matching flows were found as are wanted."""
        for _ in range(PIECE_EVENTS // BACK_EVENTS):
            events = self._backwards()
            if not events:
                self._to_find = 0
            self._look_back_at(events, stop)
            if not self._to_find or self._clock.monotonic() > stop:
                return

    def _look_back_at(self, events: list[tuple[int, Event]], stop: float) -> None:
        reading, monotonic = self._reading, self._clock.monotonic
        wants = reading.wants if reading.sieve is None else reading.sieve.judge([event for _, event in events])
        for at, event in events:
            self._back_at = at
            if event.is_loss:
                self._found.append(at)
                continue
            is_wanted = wants(event)
            if is_late := reading.until_ns is not None and event.time_ns > reading.until_ns:
                self._found.clear()  # a reading ends with the first flow that is too late
            if is_wanted or is_late:
                self._found.append(at)
            self._to_find -= is_wanted
            if not self._to_find or monotonic() > stop:
                return

    def _backwards(self) -> list[tuple[int, Event]]:
        """The events before `_back_at` with their numbers, the newest first, as many as are looked at at once."""
        ring, stop = self._ring, self._back_at
        if stop > ring.start:
            first = max(ring.start, stop - BACK_EVENTS)
            return list(zip(range(stop - 1, first - 1, -1), reversed(ring.slice(first, stop)), strict=True))
        found: list[tuple[int, Event]] = []
        while len(found) < BACK_EVENTS and (at := ring.denials.last_before(stop)) is not None:
            found.append((at, ring[at]))
            stop = at
        return found

    def _count_losses(self) -> None:
        """What was overwritten unread is lost, but for the denials."""
        start = self._ring.start
        if self._found and self._found_start != start:
            still = [at for at in self._found if self._ring.get(at) is not None]
            self.losses.add(len(self._found) - len(still))
            self._found, self._found_start = still, start
        denials = self._ring.denials
        if self._late:
            there = denials.count(self._late_from, self._next)
            self.losses.add(self._late - there)
            self._late = there
        if self._next < start:
            self._late_from = self._late_from if self._late else self._next
            self._late += denials.count(self._next, start)
            owed_from = max(self._next, self._owed_from)
            self.losses.add(max(0, start - owed_from - denials.count(owed_from, start)))
            self._next = start

    def _go_on(self, batch: list[bytes], stop: float) -> None:
        size = 0
        monotonic = self._clock.monotonic
        for event in self._events():
            if event.is_loss:
                batch.append(self.losses.passed_on(event))
                self.passed_on += 1
            elif self._reading.until_ns is not None and event.time_ns > self._reading.until_ns:
                self.passed_over += 1
                self.is_done = True
                return
            elif not self._reading.wants(event):
                self.passed_over += 1
            else:
                response = self._responses.response(event)
                batch.append(response)
                self.sent += 1
                size += len(response)
                if self._left is not None:
                    self._left -= 1
                    if not self._left:
                        break
            if size > PIECE_BYTES or monotonic() > stop:
                break
        self.is_done = self._left == 0 or self._has_reached_end

    @property
    def _has_reached_end(self) -> bool:
        return self._end is not None and not self._found and not self._late and self._next >= self._end

    def _events(self) -> Iterator[Event]:
        """The next events, as many as are looked at in one piece; each counts as looked at."""
        for _ in range(min(PIECE_EVENTS, len(self._found))):
            yield self._ring[self._found.pop()]
        if self._found:
            return
        if self._late:
            for at, event in self._ring.denials.between(self._late_from, self._next, PIECE_EVENTS):
                self._late_from, self._late = at + 1, self._late - 1
                yield event
            if self._late:
                return
        end = self._ring.end if self._end is None else min(self._end, self._ring.end)
        for event in self._ring.slice(self._next, min(end, self._next + PIECE_EVENTS)):
            self._next += 1
            yield event


class Losses:
    """What one reader missed because it was too slow: gathered, and told at most once per LOSS_INTERVAL."""

    def __init__(self, node_name: str, clock: Clock) -> None:
        self._node_name, self._clock = node_name, clock
        self.total = 0
        self._count = 0
        self._first_ns = self._last_ns = 0
        self._told = float("-inf")

    def add(self, count: int) -> None:
        """So many events were overwritten unread."""
        if not count:
            return
        self.total += count
        now = self._clock.unix_ns()
        self._first_ns = self._first_ns if self._count else now
        self._last_ns = now
        self._count += count

    def wait(self) -> float | None:
        """Seconds until a notice is due; None if there is nothing to tell."""
        return max(0.0, self._told + LOSS_INTERVAL - self._clock.monotonic()) if self._count else None

    def due(self, now: bool = False) -> bytes | None:
        """The notice of what was missed, if it is time for one."""
        if not self._count or (not now and self._clock.monotonic() < self._told + LOSS_INTERVAL):
            return None
        loss = flow_pb2.LostEvent(source=flow_pb2.HUBBLE_RING_BUFFER, num_events_lost=self._count)
        loss.first.FromNanoseconds(self._first_ns)
        loss.last.FromNanoseconds(self._last_ns)
        self._count = 0
        self._told = self._clock.monotonic()
        return self._notice(loss, self._clock.unix_ns())

    def passed_on(self, event: Event) -> bytes:
        """A loss that happened before the ring."""
        return self._notice(event.loss(), event.time_ns)

    def _notice(self, loss: flow_pb2.LostEvent, time_ns: int) -> bytes:
        sent = observer_pb2.GetFlowsResponse(lost_events=loss, node_name=self._node_name)
        sent.time.FromNanoseconds(time_ns)
        wire: bytes = sent.SerializeToString()
        return wire
