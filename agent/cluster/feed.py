"""One query of many, followed as a task, and whether it was listed. Everything that it tells goes to one listener."""

from __future__ import annotations

import asyncio
from typing import Protocol

from agent.cluster.client import ApiServer
from agent.cluster.list_watch import ListWatch, Query
from agent.cluster.resources import SECRETS
from agent.cluster.shapes import Raw
from policies.objects import PodKey


class Listener(Protocol):
    """Who is told of every kind."""

    def updated(self, query: Query, key: PodKey, raw: Raw) -> None: ...
    def deleted(self, query: Query, key: PodKey) -> None: ...
    def changed(self) -> None:
        """A feed has listed its kind, or has trouble with that, or has no more."""


class Feed:
    """Satisfies agent.cluster.list_watch.Sink. `trouble_words` is "" while all is well."""

    def __init__(self, query: Query, listener: Listener) -> None:
        self.query = query
        self.is_listed = False
        self.trouble_words = ""
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    def start(self, server: ApiServer, tasks: asyncio.TaskGroup) -> None:
        """Follow the query until `stop`, or until the tasks end."""
        self._task = tasks.create_task(ListWatch(server, self.query, self).run(), name=f"watch {self.query.resource}")

    def stop(self) -> None:
        """Nothing is told from now on."""
        if self._task is not None:
            self._task.cancel()

    def upsert(self, key: PodKey, raw: Raw) -> None:
        self._listener.updated(self.query, key, raw)

    def gone(self, key: PodKey) -> None:
        self._listener.deleted(self.query, key)

    def listed(self) -> None:
        self.is_listed = True
        self._listener.changed()

    def trouble(self, words: str) -> None:
        self.trouble_words = words
        if words and self.query.resource is SECRETS:
            self.is_listed = True  # without it a rule is unavailable, and denies; all others need not wait for that
        self._listener.changed()
