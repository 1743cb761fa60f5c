"""Writes the conditions of policies: what is due first, one write at a time per policy, again after a conflict."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from agent.cluster.backoff import Backoff
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.resources import CILIUM_CLUSTER_POLICIES, CILIUM_POLICIES, Resource
from agent.operator.pen import NotLeading, Pen
from agent.operator.rollout import Rollout

AT_ONCE: Final = 8  # writes under way
PAUSES: Final = (0.1, 30.0)  # seconds after a failure, at first and at last
RESOURCES: Final[dict[str, Resource]] = {made.kind: made for made in (CILIUM_POLICIES, CILIUM_CLUSTER_POLICIES)}

log = logging.getLogger("deflector.operator")


class Scribe:
    """`look` says which policy may need other conditions; `run` writes them. `written` is called with the name of a
    policy whose conditions have just been told."""

    def __init__(
        self, rollout: Rollout, pen: Pen, written: Callable[[str], None], chance: Callable[[], float] = random.random
    ) -> None:
        self._rollout = rollout
        self._pen = pen
        self._written = written
        self._chance = chance
        self._heap: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}  # the earliest entry of each policy counts, others are passed over
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._backoffs: dict[str, Backoff] = {}
        self._news = asyncio.Event()
        self._pruned: set[Resource] = set()

    @property
    def waiting(self) -> int:
        """Policies whose conditions are to be written or looked at."""
        return len(self._due) + len(self._busy)

    def look(self, name: str) -> None:
        """Something about this policy has changed."""
        if name in self._busy:
            self._again.add(name)
            return
        now = asyncio.get_running_loop().time()
        due = self._rollout.due(name, now)
        if due is None:
            self._due.pop(name, None)
            return
        if name not in self._due or due < self._due[name]:
            self._plan(name, due)

    def look_at_all(self) -> None:
        """Something about all policies has changed."""
        for name in self._rollout:
            self.look(name)

    async def run(self) -> None:
        """Write what is due, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._work(), name="conditions")

    async def _work(self) -> None:
        while True:
            name = await self._next()
            self._busy.add(name)
            try:
                await self._write(name)
                self._backoffs.pop(name, None)
            except (ApiError, Unreachable) as error:
                self._failed(name, error)
            finally:
                self._busy.discard(name)
            if name in self._again:
                self._again.discard(name)
                self.look(name)

    async def _next(self) -> str:
        clock = asyncio.get_running_loop().time
        while True:
            self._news.clear()
            while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            if self._heap and self._heap[0][0] <= clock():
                _, name = heapq.heappop(self._heap)
                del self._due[name]
                return name
            try:
                async with asyncio.timeout_at(self._heap[0][0] if self._heap else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _write(self, name: str) -> None:
        """If that is still to be written: what was due may only have been worth a look."""
        clock = asyncio.get_running_loop().time
        now = clock()
        due = self._rollout.due(name, now)
        if due is None:
            return
        if due > now:
            self._plan(name, due)
            return
        policy = self._rollout.get(name)
        assert policy is not None
        body = self._body(name, now)
        resource, namespace = RESOURCES[policy.key.kind], policy.key.namespace
        try:
            told = await self._pen.apply(resource, namespace, body, subresource="status")
        except NotLeading:
            return
        except ApiError as error:
            if error.is_missing:
                return  # the policy is gone, or has no status: its definition is somebody else's
            raise
        # As they were sent: a definition that keeps no conditions must not make us write them for ever.
        self._rollout.confirm(name, policy.version, body["status"]["conditions"])
        if not (told.get("status") or {}).get("conditions"):
            self._complain(resource)
        self._written(name)
        self.look_later(name)

    def look_later(self, name: str) -> None:
        """A policy that is under way will be late, if nothing happens."""
        due = self._rollout.due(name, asyncio.get_running_loop().time())
        if due is not None:
            self._plan(name, due)

    def _body(self, name: str, now: float) -> dict[str, Any]:
        """With the uid: another policy of that name is a conflict, and has its own conditions."""
        policy = self._rollout.get(name)
        assert policy is not None
        metadata = {"name": policy.key.name, "uid": policy.uid}
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"metadata": metadata, "status": {"conditions": self._rollout.raw_conditions(name, now, stamp)}}

    def _plan(self, name: str, due: float) -> None:
        self._due[name] = due
        heapq.heappush(self._heap, (due, name))
        self._news.set()

    def _complain(self, resource: Resource) -> None:
        if resource not in self._pruned:
            self._pruned.add(resource)
            log.warning("the definition of %s keeps no conditions: they are not shown; use a newer one", resource)

    def _failed(self, name: str, error: ApiError | Unreachable) -> None:
        backoff = self._backoffs.setdefault(name, Backoff(self._chance, *PAUSES))
        wait = backoff.next(getattr(error, "retry_after", None) or 0.0)
        is_expected = isinstance(error, ApiError) and error.is_conflict
        if not is_expected and backoff.failures == 1:
            log.warning("conditions of %s cannot be written: %s; trying again", name, error)
        self._again.discard(name)
        self._plan(name, asyncio.get_running_loop().time() + wait)
