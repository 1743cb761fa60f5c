"""What the DNS proxy tells the agent: records of queries and answers, and lessons about names.

On the way of every query: a record costs some microseconds, most of them protobuf's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

from agent.proxies.inside.dns_encoding import answered, asked, common, refused
from agent.proxies.inside.telling import Page, Place, Telling
from l7proxy.dns.answers import Learned
from l7proxy.dns.judge import Decision, Reason
from l7proxy.dns.lessons import Lesson, Lessons
from l7proxy.dns.records import AccessRecord
from l7proxy.dns.transactions import Client
from policies.ir import FqdnSelector
from xds.protos.deflector.l7.v1 import reports_pb2 as pb

LESSONS_MAX: Final = 1024  # in one batch
MENTIONS_MAX: Final = 8192  # lessons that nobody waits for, while the agent is away

# Why something went wrong that policy allowed. Whatever else there is against a query is a denial.
_ERRORS: Final = frozenset(
    (Reason.UNREACHABLE, Reason.BAD_ANSWER, Reason.FOREIGN_ANSWER, Reason.HELD_TOO_LONG, Reason.NOT_OPENED)
)


class DnsReports(Telling):
    """Satisfies l7proxy.dns's RecordSink and LearnedSink, and the stream's Source."""

    def __init__(self, wake: Callable[[bool], None]) -> None:
        super().__init__(wake, pb.DnsAccesses)
        self._lessons = Lessons()
        self._untold: list[Lesson] = []
        self._waiting: dict[int, list[asyncio.Future[bool]]] = {}

    def select(self, selectors: Iterable[FqdnSelector], *, targets: bool, shares: bool = True) -> None:
        """Names whose addresses must be in force before anybody is told."""
        self._lessons.select(selectors, targets=targets, shares=shares)

    # --- what the proxy sees ---

    def seen(self, record: AccessRecord) -> None:
        """A query was judged, or an answer released or withheld."""
        client, decision, questions, is_response, reason = record[:5]
        if reason is Reason.TIMEOUT:  # not told as a flow (facts, hubble.md 5.2)
            self._counts[reason] += 1
            return
        page = self._page
        key = (id(decision), client.pod, client.server, client.server_port, client.protocol)
        place = page.places.get(key) or _place(page, key, client, decision)
        access = place.common + asked(client, questions)
        if reason is not None:
            access += _against(reason)
        if is_response:
            access += answered(record.rcode, record.gist, record.rrtypes)
        elif reason is None:
            place.count(access)
        if reason is not None and reason not in _ERRORS:
            page.denials.append(access)
        self._put(access)

    def learned(self, pod: str, names: tuple[Learned, ...]) -> asyncio.Future[bool] | None:
        """An answer is about to be released; the future if it has to wait."""
        now = time.monotonic()
        waits: set[int] = set()
        for one in names:
            taken = self._lessons.take(pod, one, now)
            if taken.is_full:
                self._counts["answers withheld: too many lessons"] += 1
                return _settled(False)
            if taken.lesson is not None:
                self._teach(taken.lesson, urgent=bool(taken.waits_for))
            if taken.waits_for:
                waits.add(taken.waits_for)
        futures = [self._wait(number) for number in sorted(waits)]
        return futures[0] if len(futures) == 1 else _all_of(futures) if futures else None

    # --- what the stream asks ---

    def batch(self) -> pb.Batch | None:
        """The next batch; None if nothing waits."""
        lessons, self._untold = self._untold[:LESSONS_MAX], self._untold[LESSONS_MAX:]
        return self._with_counters(pb.Batch(dns=self._packed(), learned=map(self._told, lessons)))

    def answered(self, in_force: Sequence[int], cannot_be: Sequence[int]) -> None:
        """What has become of lessons; of none, when an agent begins to answer."""
        self._lessons.here()
        for number in in_force:
            self._lessons.in_force(number)
            self._settle(number, True)
        for number in cannot_be:
            self._lessons.cannot_be(number)
            self._settle(number, False)

    def away(self) -> None:
        """The agent is gone, or not there yet."""
        super().away()
        self._lessons.away(time.monotonic())
        self._untold = [lesson for lesson in self._untold if not lesson.number]

    def back(self) -> None:
        """An agent listens."""
        mentions = [lesson for lesson in self._untold if not lesson.number]
        self._untold = [*self._lessons.back(), *mentions]

    # --- parts ---

    def _teach(self, lesson: Lesson, *, urgent: bool) -> None:
        if not lesson.number and len(self._untold) >= MENTIONS_MAX:
            self._counts["names"] += 1
            return
        self._untold.append(lesson)
        self._wake(urgent)

    def _told(self, lesson: Lesson) -> pb.Learned:
        learned = lesson.learned
        return pb.Learned(
            number=lesson.number,
            pod=lesson.pod,
            name=learned.name,
            targets=learned.targets,
            addresses=learned.addresses,
            ttl=lesson.seconds,
            age_ms=max(0, round((time.monotonic() - lesson.at) * 1000)),
        )

    def _wait(self, number: int) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(number, []).append(future)
        return future

    def _settle(self, number: int, outcome: bool) -> None:
        for future in self._waiting.pop(number, ()):
            if not future.done():
                future.set_result(outcome)


def _against(reason: Reason) -> bytes:
    """Which rule came nearest where none allows the name, the agent finds out."""
    return refused(pb.ERROR if reason in _ERRORS else pb.DROPPED, "" if reason is Reason.NAME_DENIED else reason)


def _place(page: Page, key: Hashable, client: Client, decision: Decision) -> Place:
    slot, rule = decision.slot, decision.rule
    place = page.place(key, slot.name if slot else "", rule.origins if rule else (), holds=decision)
    place.common = common(place.slot, place.rule, client)
    return place


def _all_of(futures: Sequence[asyncio.Future[bool]]) -> asyncio.Future[bool]:
    """Whether all have come true; one that has not is enough."""
    whole: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    left = len(futures)

    def done(one: asyncio.Future[bool]) -> None:
        nonlocal left
        left -= 1
        if not whole.done() and (not left or not one.result()):
            whole.set_result(one.result())

    for future in futures:
        future.add_done_callback(done)
    return whole


def _settled(outcome: bool) -> asyncio.Future[bool]:
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    future.set_result(outcome)
    return future
