"""One request on its way: what has come of it, and which topics it names as far as that is known. Pure.

Topics are picked out of requests as they pass (Produce, Fetch and most others); a few are decoded when they are whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from l7proxy.kafka import schema
from l7proxy.kafka.apis import FETCH, PRODUCE, SHARE_FETCH
from l7proxy.kafka.codec import Message
from l7proxy.kafka.heads import Head, decode, with_header
from l7proxy.kafka.scan import Plan, Scan
from l7proxy.kafka.subjects import Scannable, Subject, is_of_topics, scannable, scanned, subjects
from l7proxy.kafka.verdicts import Session, has_session
from l7proxy.kafka.wire import WireError

HOLD_MAX: Final = 4 << 20  # bytes of a request that are kept until it is judged
_MORE: Final = {
    PRODUCE: ("acks",),
    FETCH: ("session_id", "session_epoch"),
    SHARE_FETCH: ("group_id", "member_id", "share_session_epoch"),
}
_SKELETON: Final = ("acks", "topic_data.partition_data.index")
_NO_ANSWER: Final = 0  # acks


class Request:
    """Fed with its bytes from its head on. `held`: copies of those that wait for the verdict."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.left = head.size  # bytes that have not come
        self.held: list[bytes] = []
        self.held_size = 0
        self.tried: set[bytes] = set()  # ids of topics that were asked for
        self.told = 0  # topics of which records tell
        self.is_known = schema.is_known(head.key, head.version)
        self.is_large = head.size > HOLD_MAX
        self._finder = self._scan = None
        if self.is_known:
            self._finder = _finder(head.key, head.version, self.is_large)
        if self._finder is not None:
            self._scan = Scan(self._finder[1], head.size - head.at)
        self._message: Message | None = None
        self._begins = head.at

    def feed(self, piece: memoryview) -> None:
        """The next bytes; the first piece has the whole head. WireError: it is no such request."""
        first = self.left == self.head.size
        self.left -= len(piece)
        if self._scan is not None:
            self._scan.feed(piece[self.head.at :] if first else piece)

    def hold(self, piece: memoryview) -> None:
        """Keep bytes that were fed."""
        if piece:
            self.held.append(bytes(piece))
            self.held_size += len(piece)

    def release(self) -> list[bytes]:
        """What was kept; it is not any more."""
        held, self.held, self.held_size = self.held, [], 0
        return held

    @property
    def has_skeleton(self) -> bool:
        """Whether `message` can be had without holding the request."""
        return self.is_large and self.is_scanned and self.head.key == PRODUCE

    @property
    def is_scanned(self) -> bool:
        """Whether topics are found as bytes come; otherwise the whole request must be held."""
        return self._scan is not None

    @property
    def is_read_late(self) -> bool:
        """Whether it may name topics that are found only in the whole request, which is small enough to be kept."""
        return self.is_known and self._scan is None and not self.is_large and is_of_topics(self.head.key)

    def topics(self) -> list[Subject]:
        """Those that it names, for a record; none of a request that cannot be read."""
        try:
            return self.subjects()[0]
        except WireError:
            return []

    def subjects(self) -> tuple[list[Subject], bool]:
        """The topics found so far, and whether these are all."""
        if self._scan is not None and self._finder is not None:
            return scanned(self._finder[0], self._scan.found)
        if self.left or not self.is_known or not self.held:
            return [], False
        return subjects(self.head.key, self.head.version, self.message()), True

    def expects_answer(self) -> bool | None:
        """Whether there will be an answer; None: not known (yet, or at all)."""
        if self.head.key != PRODUCE:
            return True
        found = self._scan.found if self._scan is not None else ()
        acks = next((value for path, value in found if path == "acks"), None)
        return None if acks is None else acks != _NO_ANSWER

    def session(self) -> Session | None:
        """The session that a request to fetch is about."""
        key, version = self.head.key, self.head.version
        if not self.is_known or not has_session(key, version):
            return None
        assert self._scan is not None
        found: dict[str, Any] = {path: value for path, value in self._scan.found if path in _MORE[key]}
        if key == SHARE_FETCH:
            return Session((found.get("group_id"), found.get("member_id")), found.get("share_session_epoch", 0))
        return Session(found.get("session_id"), found.get("session_epoch", 0))

    def message(self) -> Message:
        """The request, decoded; of one that is too large to be held, which topics and partitions it names. WireError:
        it is no such request."""
        if self._message is None:
            if self.is_large:
                self._message = self._skeleton()
            else:
                whole = memoryview(b"".join(self.held))
                self._message, self._begins = decode(self.head.key, self.head.version, whole, self.head.at)
        return self._message

    def header(self) -> bytes:
        """The header with its tagged fields, from the key on; of a request that was held."""
        self.message()
        return b"".join(self.held)[4 : self._begins]

    def _skeleton(self) -> Message:
        if self._scan is None or self.head.key != PRODUCE:
            raise WireError("request is too large")
        topics: list[Message] = []
        for path, value in self._scan.found:
            name = path.removeprefix("topic_data.")
            if name in ("name", "topic_id"):
                topics.append({name: value, "partition_data": []})
            elif name == "partition_data.index":
                topics[-1]["partition_data"].append({"index": value})
        return {"topic_data": topics}


@lru_cache(512)
def _finder(key: int, version: int, large: bool) -> tuple[Scannable, Plan] | None:
    made = scannable(key, version, _SKELETON if large and key == PRODUCE else _MORE.get(key, ()))
    return None if made is None else (made, with_header(key, version, made.plan))
