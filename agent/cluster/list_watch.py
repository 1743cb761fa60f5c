"""One kind of objects, followed: listed, then watched from there on, for ever. Nothing is dropped, nothing invented.

The laws (Kubernetes API concepts, "efficient detection of changes"): a list has a version, a watch from that version
tells all that came after; a watch that ends goes on from the last version that it told; 410 says that the server has
forgotten it, and then a new list is compared with what is known. As long as the server does not answer, what is known
stays: a lost server changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from agent.cluster.backoff import Backoff
from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.lines import Lines, LineTooLong
from agent.cluster.resources import Resource
from agent.cluster.shapes import Decode, Raw, metadata
from policies.objects import PodKey

PAGE: Final = 500  # objects; the page size of Kubernetes' own clients
WATCH_SECONDS: Final = (300, 600)  # how long a watch is asked for: spread, or all nodes come back at one moment
SHORT_SECONDS: Final = 0.5  # a watch that ended before that, with nothing told, counts as a failure
SETTLED_SECONDS: Final = 5.0
ABSENT_SECONDS: Final = 30.0  # between looks for a kind that the server does not have
ABSENT_SURE: Final = 2  # answers in a row that there is no such kind: a server that starts says so, too
LOST_AFTER: Final = 2  # failures in a row before they are worth a line
AT_ONCE: Final = 250  # objects of a list that are read before others have a turn


class Sink(Protocol):
    """Who is told. `key` names the object; every call is about the kind that is followed."""

    def upsert(self, key: PodKey, raw: Raw) -> None: ...
    def gone(self, key: PodKey) -> None: ...
    def listed(self) -> None:
        """All that there is has been told, for the first time or anew."""

    def trouble(self, words: str) -> None:
        """What keeps us from knowing more, in one line; "" when it is over."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is followed. `consistent`: the first list must be of this moment, not of a moment before the server's cache
    was filled: for policies, where an old list opens what is closed. `optional`: a server without such a kind is worth
    no word."""

    resource: Resource
    decode: Decode = metadata
    namespace: str = ""
    fields: str = ""  # field selector
    labels: str = ""  # label selector
    consistent: bool = False
    optional: bool = False

    def params(self) -> dict[str, str]:
        """The selectors, as parameters of a request."""
        pairs = (("fieldSelector", self.fields), ("labelSelector", self.labels))
        return {name: value for name, value in pairs if value}


class _Page(msgspec.Struct):
    items: list[msgspec.Raw] | None = None
    metadata: _PageMeta | None = None


class _PageMeta(msgspec.Struct):
    resourceVersion: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_PAGES: Final = msgspec.json.Decoder(_Page)
_EVENTS: Final = msgspec.json.Decoder(_Event)
_STATUS: Final = msgspec.json.Decoder(dict)


@dataclass(slots=True)
class ListWatch:
    """Follows one query. `run` never ends but by cancellation. `pause`: how long failures are waited after."""

    server: ApiServer
    query: Query
    sink: Sink
    chance: Callable[[], float] = random.random
    pause: Backoff | None = None
    lists: int = 0  # how many there were; for tests and metrics
    watches: int = 0
    _backoff: Backoff = field(init=False)
    _known: dict[PodKey, str] = field(default_factory=dict)  # resourceVersion
    _version: str = ""  # where the watch goes on; "": list first
    _absences: int = 0
    _was_listed: bool = False
    _complaint: str = ""

    def __post_init__(self) -> None:
        self._backoff = self.pause or Backoff(self.chance)

    async def run(self) -> None:
        """List and watch, for ever."""
        while True:
            try:
                if not self._version:
                    await self._list()
                delay = await self._watch()
            except ApiError as error:
                delay = self._refused(error)
            except Unreachable as error:
                delay = self._failed(str(error))
            except LineTooLong as error:
                self._version = ""
                delay = self._failed(f"{self.query.resource}: {error}")
            except msgspec.DecodeError as error:
                self._version = ""  # the same event again would be the same failure
                delay = self._failed(f"{self.query.resource}: the server's answer cannot be read: {error}")
            await asyncio.sleep(delay)

    async def _list(self) -> None:
        """Tell what differs from what is known. Deletions come last, when every page has been seen."""
        self.lists += 1
        params = {**self.query.params(), "limit": str(PAGE)}
        if not self._was_listed and not self.query.consistent:
            params["resourceVersion"] = "0"  # from the server's cache: five hundred nodes may start at once
        seen: set[PodKey] = set()
        version = ""
        while True:
            page = _PAGES.decode(await self.server.list_page(self.query.resource, params, self.query.namespace))
            meta = page.metadata or _PageMeta()
            version = version or meta.resourceVersion
            for number, raw in enumerate(page.items or ()):
                seen.add(self._take(raw))
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
            if not meta.continue_:
                break
            params = {**self.query.params(), "limit": str(PAGE), "continue": meta.continue_}
        for key in sorted(self._known.keys() - seen):
            self._forget(key)
        self._version, self._absences = version, 0
        self._tell_listed()
        self._complain("")

    async def _watch(self) -> float:
        """Tell what happens until the server ends it; how long to wait before the next watch."""
        self.watches += 1
        first, last = WATCH_SECONDS
        params = {
            **self.query.params(),
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(round(first + (last - first) * self.chance())),
        }
        clock, lines, told = asyncio.get_running_loop().time, Lines(), 0
        async with self.server.watch(self.query.resource, params, self.query.namespace) as pieces:
            began = clock()
            self._complain("")
            try:
                async for piece in pieces:
                    for line in lines.feed(piece):
                        self._take_event(line)
                        told += 1
            finally:
                if told or clock() - began > SETTLED_SECONDS:
                    self._backoff.reset()
        if told or clock() - began >= SHORT_SECONDS:
            return self._backoff.first * self.chance() / 2
        return self._backoff.next()

    def _take_event(self, line: bytes) -> None:
        event = _EVENTS.decode(line)
        if event.type in ("ADDED", "MODIFIED"):
            key = self._take(event.object)
            self._version = self._known[key] or self._version
        elif event.type == "DELETED":
            key, version = _about(metadata(event.object))
            self._forget(key)
            self._version = version or self._version
        elif event.type == "BOOKMARK":
            self._version = _about(metadata(event.object))[1] or self._version
        elif event.type == "ERROR":
            raise ApiError.of_status(_STATUS.decode(event.object))

    def _take(self, item: msgspec.Raw) -> PodKey:
        """Tell of an object, unless this version of it was told."""
        raw = self.query.decode(item)
        key, version = _about(raw)
        if not version or self._known.get(key) != version:
            self._known[key] = version
            self.sink.upsert(key, raw)
        return key

    def _forget(self, key: PodKey) -> None:
        if self._known.pop(key, None) is not None:
            self.sink.gone(key)

    def _refused(self, error: ApiError) -> float:
        """The server says no: how long to wait."""
        resource = self.query.resource
        if error.is_expired:
            self._version = ""
            return self._backoff.next() if self._backoff.failures else self._backoff.first * self.chance()
        if error.is_missing and not self._known:
            self._version = ""
            self._absences += 1
            if self._absences < ABSENT_SURE:
                return self._backoff.next()
            if not self.query.optional:
                self._complain(f"the API server has no {resource}: there are none until its CRD is installed")
            self._tell_listed()
            return ABSENT_SECONDS * (1 - self.chance() / 2)
        if error.status == 403:
            words = f"{resource}: {error}: give this service account the role of the chart"
            return self._failed(words, at_least=error.retry_after or 0.0, at_once=True)
        if error.status in (401, 404):
            return self._failed(f"{resource}: {error}; what was read stays in force", at_once=True)
        return self._failed(f"{resource}: {error}", at_least=error.retry_after or 0.0)

    def _failed(self, words: str, at_least: float = 0.0, at_once: bool = False) -> float:
        if at_once or self._backoff.failures + 1 >= LOST_AFTER:
            self._complain(words)
        return self._backoff.next(at_least)

    def _tell_listed(self) -> None:
        self._was_listed = True
        self.sink.listed()

    def _complain(self, words: str) -> None:
        if words != self._complaint:
            self._complaint = words
            self.sink.trouble(words)


def _about(raw: Raw) -> tuple[PodKey, str]:
    """Which object it is, and in which version."""
    meta = raw.get("metadata") or {}
    return PodKey(meta.get("namespace") or "", meta.get("name") or ""), meta.get("resourceVersion") or ""
