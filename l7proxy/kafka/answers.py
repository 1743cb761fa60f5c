"""The server's answers on their way to the client, and those that we give ourselves, in the order of requests. Pure.

Kafka answers the requests of a connection in their order. So each answer belongs to the oldest request that awaits one;
what we answer ourselves waits until it is its turn. Most answers pass by as they arrive; a treatment says what else is
done with one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct as Layout
from typing import Final

from l7proxy.kafka.records import Reason
from l7proxy.kafka.refusals import has_tags
from l7proxy.kafka.scan import TAGGED, Found, Plan, Scan
from l7proxy.kafka.splits import Insertion
from l7proxy.kafka.wire import INT32, WireError, length

ANSWER_MAX: Final = 16 << 20  # bytes of an answer that is decoded
PREFIX_MAX: Final = 4 << 20  # bytes before the topics of an answer that lacks some: brokers, in one of Metadata
SIZE_MAX: Final = 0x7FFFFF00  # bytes of an answer that lacks some topics: with them it must still be a length
_HEAD: Final = Layout(">ii")
_CORRELATION: Final = 4  # bytes


class Broken(Exception):
    """The server does not speak the protocol, or more than can be judged. The connection must be closed."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Watch:
    """Picks values out of an answer that passes by; `then` gets them, once: at its end, or when `enough` are there."""

    def __init__(self, plan: Plan, then: Callable[[list[Found]], None], enough: int = 0) -> None:
        self.plan = plan
        self.then = then
        self.enough = enough


class Rewrite:
    """Takes a whole answer, from its correlation id on; gives the bytes in its place, none to swallow it."""

    def __init__(self, made: Callable[[memoryview], bytes]) -> None:
        self.made = made


Treatment = Watch | Rewrite | Insertion | None


class Awaited:
    """A request that was forwarded. `optional`: nobody could tell whether there will be an answer."""

    __slots__ = ("correlation", "key", "never", "optional", "treatment", "version")

    def __init__(self, key: int, version: int, correlation: int, treatment: Treatment = None) -> None:
        self.key = key
        self.version = version
        self.correlation = correlation
        self.treatment = treatment
        self.optional = False
        self.never = False  # there is no answer: produced without acknowledgement


class Answers:
    """Of one connection. `out` collects what is for the client; views in it are those of what was fed."""

    def __init__(self) -> None:
        self.out: list[bytes | bytearray | memoryview] = []
        self.local_size = 0  # bytes of our own answers that wait for their turn
        self._queue: deque[Awaited | bytes] = deque()
        self._partial = b""
        self._left = 0  # bytes of the answer at hand that have not come
        self._at_hand: Awaited | None = None
        self._held: bytearray | None = None
        self._scan: Scan | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def expect(self, awaited: Awaited) -> None:
        """A request is being forwarded."""
        self._queue.append(awaited)

    def give(self, answer: bytes) -> None:
        """Answer a request ourselves, when it is its turn."""
        self._queue.append(answer)
        self.local_size += len(answer)
        self.settle()

    def settle(self) -> None:
        """Give what has its turn: own answers before which nothing is awaited."""
        queue = self._queue
        while queue and self._at_hand is None:
            first = queue[0]
            if isinstance(first, bytes):
                self.local_size -= len(first)
                self.out.append(first)
            elif not first.never:
                return
            queue.popleft()

    def feed(self, view: memoryview) -> None:
        """What the server sent. Broken where it cannot go on."""
        if self._partial:
            view = memoryview(self._partial + bytes(view))
            self._partial = b""
        at, end = 0, len(view)
        while at < end:
            if self._at_hand is None:
                if end - at < _HEAD.size:
                    self._partial = bytes(view[at:])
                    return
                self._begin(view[at : at + _HEAD.size])
                at += _HEAD.size
            piece = view[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            try:
                self._take(piece)
            except WireError:
                raise Broken(Reason.BAD_ANSWER) from None
            if not self._left:
                self._at_hand = None
                self._queue.popleft()
                self.settle()

    def _begin(self, head: memoryview) -> None:
        size, correlation = _HEAD.unpack(head)
        if size < _CORRELATION:
            raise Broken(Reason.BAD_ANSWER)
        awaited = self._due(correlation)
        treatment = awaited.treatment
        self._at_hand = awaited
        self._left = size - _CORRELATION
        self._held = bytearray(head) if isinstance(treatment, Rewrite | Insertion) else None
        if self._held is None:
            self.out.append(head)
        if isinstance(treatment, Rewrite) and size > ANSWER_MAX:
            raise Broken(Reason.ANSWER_TOO_LARGE)
        self._scan = None
        if isinstance(treatment, Watch | Insertion):
            followed = treatment.plan
            if has_tags(awaited.key, awaited.version):
                followed = Plan(True, (TAGGED, *followed.steps), None)
            self._scan = Scan(followed, self._left, halt=isinstance(treatment, Insertion))

    def _due(self, correlation: int) -> Awaited:
        """The request that is answered: the oldest that must be."""
        queue = self._queue
        while queue:
            first = queue[0]
            assert isinstance(first, Awaited), "an answer of our own waits for nothing"
            if first.correlation == correlation:
                return first
            if not first.optional:
                break
            queue.popleft()
            self.settle()
        raise Broken(Reason.BAD_ANSWER)

    def _take(self, piece: memoryview) -> None:
        assert self._at_hand is not None
        treatment = self._at_hand.treatment
        if self._held is None:
            self.out.append(piece)
            if isinstance(treatment, Watch):
                self._watch(treatment, piece)
        elif isinstance(treatment, Insertion):
            self._insert(treatment, piece)
        elif isinstance(treatment, Rewrite):
            self._held += piece
            if not self._left:
                made = treatment.made(memoryview(self._held)[INT32.size :])
                if made:
                    self.out += (INT32.pack(len(made)), made)
                self._held = None

    def _watch(self, treatment: Watch, piece: memoryview) -> None:
        if self._scan is None:
            return
        try:
            self._scan.feed(piece)
        except WireError:
            self._scan = None  # it is for the client to complain
            return
        if not self._left or 0 < treatment.enough <= len(self._scan.found):
            treatment.then(self._scan.found)
            self._scan = None

    def _insert(self, treatment: Insertion, piece: memoryview) -> None:
        assert self._held is not None
        assert self._scan is not None
        self._held += piece
        self._scan.feed(piece)
        place = self._scan.place
        if place is None:
            if not self._left or len(self._held) > PREFIX_MAX:
                raise Broken(Reason.BAD_ANSWER if not self._left else Reason.ANSWER_TOO_LARGE)
            return
        held, at, end = self._held, _HEAD.size + place[0], _HEAD.size + place[1]
        count = max(int(self._scan.found[-1].value), 0) + treatment.count
        size, _ = _HEAD.unpack_from(held)
        if max(count, size + len(treatment.content)) > SIZE_MAX:
            raise Broken(Reason.ANSWER_TOO_LARGE)
        counted = length(count, INT32, self._scan.flexible)
        grown = size + len(counted) - (end - at) + len(treatment.content)
        self.out += (INT32.pack(grown), held[INT32.size : at], counted, treatment.content, held[end:])
        self._held = self._scan = None
