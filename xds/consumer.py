"""One proxy that is told: what is served to it, what it has acknowledged, and who waits for that.

One proxy, one book: the newest of its streams is the one that counts, an older one is closed (Envoy reconnects faster
than a dead stream is noticed).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

import grpc
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)

from xds.acks import AckBook, AckResult, one_line
from xds.cache import SnapshotCache
from xds.resources import FILTER, LISTENER, Key
from xds.session import Acked, DeltaSession, Forgotten, Nacked, Output, ProtocolError, Send, SotwSession
from xds.snapshot import Snapshot

log = logging.getLogger(__name__)

MAX_QUEUED = 1024  # responses that wait for a client to read; a session's windows stay far below

Response: TypeAlias = DiscoveryResponse | DeltaDiscoveryResponse
Request: TypeAlias = DiscoveryRequest | DeltaDiscoveryRequest


class Closed(Exception):
    """The stream is over; with a code when the client is to blame."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.OK, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Stream:
    """One open stream: its session, and what is to be written."""

    def __init__(self, session: SotwSession | DeltaSession) -> None:
        self.session = session
        self.queue: deque[Response] = deque()
        self.wake = asyncio.Event()
        self.closed: Closed | None = None

    def push(self, response: Response) -> None:
        """Have it written, if the client does not leave too much unread."""
        if len(self.queue) >= MAX_QUEUED:
            self.close(Closed(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_QUEUED} responses wait to be read"))
            return
        self.queue.append(response)
        self.wake.set()

    def close(self, reason: Closed) -> None:
        """End it; the first reason counts."""
        self.closed = self.closed or reason
        self.wake.set()


class Consumer:
    """What `cache` serves to one proxy, and what came back."""

    def __init__(self, cache: SnapshotCache) -> None:
        self._cache = cache
        self._book = AckBook()
        self._stream: Stream | None = None
        self.acks = self.nacks = 0  # since the start
        self._waiters: set[asyncio.Event] = set()
        self._watchers: list[Callable[[], None]] = []
        cache.watch(self._on_snapshot)

    @property
    def cache(self) -> SnapshotCache:
        """What it is served."""
        return self._cache

    @property
    def is_connected(self) -> bool:
        """Whether the proxy has an open stream."""
        return self._stream is not None

    async def wait_acked(self, names_by_type: Mapping[str, Collection[str]], timeout_s: float) -> AckResult:
        """Wait until the proxy has accepted what is published under these names, or refused one, or the time is over.

        Names that are not published are waited for until the proxy has accepted that they are gone. Returns as soon as
        nothing more is to come: a filter whose listener was refused is never asked for, and stays missing.
        """
        keys = [Key(type_url, name) for type_url in sorted(names_by_type) for name in sorted(names_by_type[type_url])]
        changed = asyncio.Event()
        self._waiters.add(changed)
        try:
            async with asyncio.timeout(timeout_s):
                while not all(map(self._is_settled, keys)):
                    # One key after the other: each ACK wakes us, and a thousand must not cost a million looks.
                    for key in keys:
                        while not self._is_settled(key):
                            await changed.wait()
                            changed.clear()
        except TimeoutError:
            pass  # who is missing stands in the result
        finally:
            self._waiters.discard(changed)
        return self._judge(keys)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call the watcher whenever something may have changed in what `answers` says."""
        self._watchers.append(watcher)

    def answers(self, names_by_type: Mapping[str, Collection[str]]) -> AckResult:
        """What the proxy has said of these so far."""
        return self._judge(Key(type_url, name) for type_url, names in names_by_type.items() for name in names)

    # What the server tells

    def adopt(self, stream: Stream) -> None:
        """The stream's first request has come: it is the proxy's stream now, and what was known is forgotten."""
        if self._stream is not None:
            self._stream.close(Closed(grpc.StatusCode.ABORTED, "replaced by a newer stream of the same node"))
        self._stream = stream
        self._book.reset()
        self._tell_waiters()
        if self._cache.snapshot is not None:  # before the first publish nothing is answered
            stream.session.on_snapshot(self._cache.snapshot)

    def forget(self, stream: Stream) -> None:
        """The stream has ended."""
        if self._stream is stream:
            self._stream = None
            self._book.reset()
            self._tell_waiters()

    def asked(self, stream: Stream, request: Request) -> None:
        """A request has come; Closed where its stream may not go on."""
        if stream.closed:
            raise stream.closed
        try:
            outputs = stream.session.on_request(request)
        except ProtocolError as failed:
            raise Closed(grpc.StatusCode.INVALID_ARGUMENT, str(failed)) from None
        self._absorb(stream, outputs)

    def _judge(self, keys: Iterable[Key]) -> AckResult:
        served = self._cache.served_versions(keys)
        refused = {key: rejection.message for key in served if (rejection := self._cache.rejection(key))}
        return self._book.judge(served, refused)

    def _is_settled(self, key: Key) -> bool:
        """Whether nothing more is to come of the key: accepted, refused, or the filter of a refused listener."""
        listener = Key(LISTENER, key.name) if key.type_url == FILTER else key
        if self._cache.rejection(key) or self._cache.rejection(listener):
            return True
        return self._book.is_accepted(key, self._cache.served_version(key))

    def _on_snapshot(self, world: Snapshot) -> None:
        if self._stream is not None:
            self._absorb(self._stream, self._stream.session.on_snapshot(world))
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        for waiter in self._waiters:
            waiter.set()
        for watcher in self._watchers:
            watcher()

    def _absorb(self, stream: Stream, outputs: Iterable[Output]) -> None:
        for output in outputs:
            match output:
                case Send(message):
                    stream.push(message)
                case Acked(type_url, versions, removed):
                    self.acks += 1
                    self._book.acked(type_url, versions, removed)
                    self._cache.accepted(versions)
                    self._tell_waiters()
                case Forgotten(keys):
                    self._book.forget(keys)
                    self._tell_waiters()
                case Nacked():
                    self.nacks += 1
                    self._refused(stream, output)

    def _refused(self, stream: Stream, nack: Nacked) -> None:
        """Mend the world, and tell it again: also where it did not change, as the session has held its tongue."""
        self._book.forget([*nack.versions, *nack.removed])
        guilty = self._cache.rejected(nack.versions, nack.message)
        names = ", ".join(sorted(key.name for key in guilty)) or "what has changed since"
        log.warning("the proxy refused %s: %s", names, one_line(nack.message))
        if self._cache.snapshot is not None and self._stream is stream:
            self._absorb(stream, stream.session.on_snapshot(self._cache.snapshot))
        self._tell_waiters()
