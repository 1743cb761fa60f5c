"""Brings what a node wants to say of its pods to the API server: few requests at a time, and never in a hurry.

Nothing waits for it: inside this node policy is enforced by labels, whatever the server knows of them
(docs/cluster.md). What fails is tried again, later each time; what has changed meanwhile is said as it is then.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.cluster.backoff import Backoff
from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.published import Wanted, identity_body
from agent.cluster.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES
from policies.compiling.identity import Labels
from policies.objects import PodKey
from policies.world import World

MANAGER: Final = "deflector-agent"
PER_SECOND: Final = 20.0  # requests, after BURST of them; of one node
BURST: Final = 50
AT_ONCE: Final = 4
PAUSES: Final = (0.5, 60.0)  # seconds after a failure, at first and at last

log = logging.getLogger("deflector.cluster")

Key = int | PodKey  # of an identity, of an endpoint


class Publisher:
    """`take` says what is wanted, `run` does it. `trouble` is what went wrong last, "" if nothing does."""

    def __init__(self, server: ApiServer, chance: Callable[[], float] = random.random) -> None:
        self.trouble = ""
        self.requests = 0
        self._server = server
        self._chance = chance
        self._wanted = Wanted({}, {})
        self._said: dict[PodKey, Mapping[str, Any]] = {}
        self._versions: dict[PodKey, str] = {}  # of what we said, at the server
        self._agreed: Callable[[int], Labels | None] = lambda number: None
        self._due: dict[Key, None] = {}  # in the order of their coming; identities go first
        self._busy: set[Key] = set()
        self._news = asyncio.Event()
        self._backoffs: dict[Key, Backoff] = {}
        self._tokens = float(BURST)
        self._refilled = 0.0

    def take(self, world: World, wanted: Wanted) -> None:
        """This is wanted now; `world` has the identities that are agreed on."""
        self._agreed = lambda number: _labels(world, number)
        before, self._wanted = self._wanted, wanted
        for number, labels in wanted.identities.items():
            if self._agreed(number) != labels:
                self._due.setdefault(number)
        for key, body in wanted.endpoints.items():
            if self._said.get(key) != body:
                self._due.setdefault(key)
        for key in (wanted.over & self._said.keys()) | (before.endpoints.keys() - wanted.endpoints.keys()):
            self._due.setdefault(key)
        if self._due:
            self._news.set()

    def endpoint_gone(self, key: PodKey) -> None:
        """Somebody has removed an endpoint object."""
        if self._said.pop(key, None) is not None and key in self._wanted.endpoints:
            self._due.setdefault(key)
            self._news.set()

    async def run(self) -> None:
        """Say what is due, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._work(), name="publisher")

    async def _work(self) -> None:
        while True:
            while (key := self._next()) is None:
                self._news.clear()
                await self._news.wait()
            await self._token()
            try:
                await (self._say_identity(key) if isinstance(key, int) else self._say_endpoint(key))
            except (ApiError, Unreachable) as error:
                self._failed(key, error)
            else:
                self._backoffs.pop(key, None)
                if not self._backoffs:
                    self.trouble = ""
            finally:
                self._busy.discard(key)
                self._news.set()

    def _next(self) -> Key | None:
        """What to say next. Of one object, one thing at a time, or the older might be said last."""
        ready = [key for key in self._due if key not in self._busy]
        if not ready:
            return None
        key = next((key for key in ready if isinstance(key, int)), ready[0])
        del self._due[key]
        self._busy.add(key)
        return key

    async def _say_identity(self, number: int) -> None:
        """Make it, if it is still wanted and not there. If it is there for others, the watch will tell: the labels get
        another number, and this one is wanted no more."""
        labels = self._wanted.identities.get(number)
        if labels is None or self._agreed(number) == labels:
            return
        self.requests += 1
        try:
            await self._server.create(CILIUM_IDENTITIES, "", identity_body(number, labels))
        except ApiError as error:
            if not error.is_taken:
                raise

    async def _say_endpoint(self, key: PodKey) -> None:
        body = self._wanted.endpoints.get(key)
        if body is None:
            await self._take_back(key)
            return
        if self._said.get(key) == body:
            return
        self.requests += 1
        told = await self._server.apply(CILIUM_ENDPOINTS, key.namespace, body, manager=MANAGER)
        if not _holds(told.get("status"), body["status"]):  # a definition with the subresource, as older ones of Cilium
            told = await self._server.apply(
                CILIUM_ENDPOINTS, key.namespace, body, manager=MANAGER, subresource="status"
            )
        self._said[key] = body
        self._versions[key] = str(told["metadata"].get("resourceVersion") or "")

    async def _take_back(self, key: PodKey) -> None:
        """Only of a pod that is over: that of a pod that is gone goes with it, or is another node's by now."""
        said = self._said.pop(key, None)
        version = self._versions.pop(key, "")
        if key not in self._wanted.over or said is None:
            return
        self.requests += 1
        try:
            await self._server.delete(CILIUM_ENDPOINTS, key.namespace, key.name, version=version)
        except ApiError as error:
            if not error.is_missing and not error.is_conflict:
                raise

    def _failed(self, key: Key, error: ApiError | Unreachable) -> None:
        backoff = self._backoffs.setdefault(key, Backoff(self._chance, *PAUSES))
        about = f"CiliumIdentity {key}" if isinstance(key, int) else f"CiliumEndpoint {key.namespace}/{key.name}"
        words = f"{about} cannot be written: {error}"
        if not self.trouble:
            log.warning("%s; other nodes know less of this node's pods until it can", words)
        self.trouble = words
        wait = backoff.next(getattr(error, "retry_after", None) or 0.0)
        asyncio.get_running_loop().call_later(wait, self._again, key)

    def _again(self, key: Key) -> None:
        self._due.setdefault(key)
        self._news.set()

    async def _token(self) -> None:
        """Wait for the right to one request."""
        clock = asyncio.get_running_loop().time
        while True:
            now = clock()
            self._tokens = min(BURST, self._tokens + (now - (self._refilled or now)) * PER_SECOND)
            self._refilled = now
            if self._tokens >= 1:
                self._tokens -= 1
                return
            await asyncio.sleep((1 - self._tokens) / PER_SECOND)


def _holds(found: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there, whatever else is."""
    if isinstance(wanted, Mapping):
        return isinstance(found, dict) and all(_holds(found.get(name), value) for name, value in wanted.items())
    return bool(found == wanted)


def _labels(world: World, number: int) -> Labels | None:
    identity = world.identities.get(str(number))
    return identity.labels if identity is not None else None
