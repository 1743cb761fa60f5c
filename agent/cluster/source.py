"""Everything that a node needs to know, followed at the API server, in batches for the policy loop.

Nothing is told before every kind has been listed, for a policy that is computed from half of what there is opens or
closes what it should not. After that, what comes in a burst is one batch, and of what changes twice in it the last is
told. Of other nodes' pods only what is published of them is read, or, without that, of all pods the little that makes
their identity.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Final

from agent.cluster import resources
from agent.cluster.client import ApiServer
from agent.cluster.feed import Feed
from agent.cluster.list_watch import Query
from agent.cluster.node_report import version_of
from agent.cluster.queries import Following, queries, secret_query, secrets_of
from agent.cluster.shapes import Raw
from agent.cluster.sliced import Sliced
from policies.events import Deleted, Failed, ObjectEvent, Updated
from policies.objects import ENDPOINT_KIND, POLICY_KINDS, Node, ObjectKey, Pod, PodKey
from policies.reading.readers import read_object
from policies.rules import Policy

SERVER: Final = "API server"  # the source of what goes wrong


class ClusterSource:
    """`run` follows; `batches` tells. `uid` knows the pods of this node."""

    def __init__(
        self, server: ApiServer, following: Following, on_own_gone: Callable[[PodKey], None] = lambda key: None
    ) -> None:
        """`on_own_gone` hears of endpoints that are no more; it is who knows whether they should be."""
        self._server = server
        self._following = following
        self._on_own_gone = on_own_gone
        self._feeds = [Feed(query, self) for query in queries(following)]
        self._sliced = Sliced()
        self._pending: dict[ObjectKey, Updated | Deleted] = {}
        self._news = asyncio.Event()
        self._complete = False
        self._told_trouble = ""
        self._uids: dict[PodKey, str] = {}
        self._endpoints: dict[ObjectKey, Updated] = {}
        self._own_addresses: frozenset[str] = frozenset()
        self._secrets: dict[PodKey, Feed] = {}
        self._wanted: dict[ObjectKey, frozenset[PodKey]] = {}  # secrets, by the policy that names them
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every kind has been listed."""
        return self._complete

    @property
    def uids(self) -> Mapping[PodKey, str]:
        """The pods of this node, and their uids."""
        return self._uids

    async def run(self) -> None:
        """Follow every kind, for ever."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for feed in (*self._feeds, *self._secrets.values()):
                feed.start(self._server, tasks)

    async def batches(self) -> AsyncIterator[Sequence[ObjectEvent]]:
        """First everything, then what changes. Before the first, only what keeps it from coming."""
        while True:
            await self._news.wait()
            if self._complete:
                await self._until_quiet()
            self._news.clear()
            events = [*self._trouble(), *(self._drain() if self._complete else ())]
            if events or self._complete:
                yield events

    # What feeds tell

    def updated(self, query: Query, key: PodKey, raw: Raw) -> None:
        """An object is there, or another one now."""
        if query.resource is resources.CILIUM_ENDPOINT_SLICES:
            for pod, endpoint in self._sliced.update(key.name, raw):
                self._take_endpoint(pod, endpoint)
        elif query.resource is resources.CILIUM_ENDPOINTS:
            self._take_endpoint(key, _typed(raw, query.resource))
        else:
            self._take(key, _typed(raw, query.resource))

    def deleted(self, query: Query, key: PodKey) -> None:
        """An object is gone."""
        kind = query.resource.kind
        if query.resource is resources.CILIUM_ENDPOINT_SLICES:
            for pod, endpoint in self._sliced.remove(key.name):
                self._take_endpoint(pod, endpoint)
        elif kind == ENDPOINT_KIND:
            self._take_endpoint(key, None)
        else:
            self._uids.pop(key, None)
            self._put(Deleted(ObjectKey(kind, *key)))
            if kind in POLICY_KINDS:
                self._want(ObjectKey(kind, *key), frozenset())

    def changed(self) -> None:
        """A feed has listed its kind, or cannot."""
        if not self._complete:
            self._complete = all(feed.is_listed for feed in (*self._feeds, *self._secrets.values()))
        self._news.set()

    def _take(self, key: PodKey, raw: Raw) -> None:
        meta = raw["metadata"]
        name = ObjectKey(raw["kind"], *key)
        reading = read_object(raw)
        is_policy = name.kind in POLICY_KINDS
        self._put(Updated(name, reading, version_of(meta) if is_policy else ""))
        found = reading.good or reading.fallback
        if isinstance(found, Pod) and found.node_name == self._following.node_name:
            self._uids[key] = meta.get("uid") or ""
        elif isinstance(found, Node) and found.name == self._following.node_name:
            self._take_own_addresses(frozenset(found.addresses))
        elif isinstance(reading.good, Policy):
            self._want(name, frozenset(secrets_of(reading.good)))

    def _take_endpoint(self, key: PodKey, raw: Raw | None) -> None:
        """What is published of this node's own pods is no news here: they are known themselves, and it is late."""
        name = ObjectKey(ENDPOINT_KIND, *key)
        if raw is None:
            before = self._endpoints.pop(name, None)
            self._on_own_gone(key)
            if before is not None and not self._is_own(before):
                self._put(Deleted(name))
            return
        before, update = self._endpoints.get(name), Updated(name, read_object(raw))
        if before is None and not _has_addresses(update):
            return  # made, and not written yet
        self._endpoints[name] = update
        if not self._is_own(update):
            self._put(update)
        elif before is not None and not self._is_own(before):
            self._put(Deleted(name))

    def _take_own_addresses(self, addresses: frozenset[str]) -> None:
        if addresses == self._own_addresses:
            return
        before = {name for name, update in self._endpoints.items() if self._is_own(update)}
        self._own_addresses = addresses
        now = {name for name, update in self._endpoints.items() if self._is_own(update)}
        for name in before ^ now:
            self._put(Deleted(name) if name in now else self._endpoints[name])

    def _is_own(self, update: Updated) -> bool:
        pod = update.reading.good
        return isinstance(pod, Pod) and pod.published is not None and pod.published.node in self._own_addresses

    def _put(self, event: Updated | Deleted) -> None:
        self._pending[event.key] = event
        self._news.set()

    # Secrets: only those that policies name

    def _want(self, policy: ObjectKey, secrets: frozenset[PodKey]) -> None:
        if secrets == self._wanted.get(policy, frozenset()):
            return
        self._wanted[policy] = secrets
        if not secrets:
            del self._wanted[policy]
        wanted = frozenset[PodKey]().union(*self._wanted.values())
        for key in sorted(wanted - self._secrets.keys()):
            feed = self._secrets[key] = Feed(secret_query(key), self)
            if self._tasks is not None:
                feed.start(self._server, self._tasks)
        for key in sorted(self._secrets.keys() - wanted):
            self._secrets.pop(key).stop()
            self._put(Deleted(ObjectKey(resources.SECRETS.kind, *key)))

    # Batches

    def _drain(self) -> list[Updated | Deleted]:
        events, self._pending = list(self._pending.values()), {}
        return events

    def _trouble(self) -> Iterator[Failed]:
        """All that keeps us from knowing more is one line: a lost server is lost for every kind."""
        found = {feed.trouble_words for feed in (*self._feeds, *self._secrets.values())} - {""}
        words = "; ".join(sorted(found))
        if words != self._told_trouble:
            self._told_trouble = words
            yield Failed(SERVER, words)

    async def _until_quiet(self) -> None:
        clock, following = asyncio.get_running_loop().time, self._following
        end = clock() + following.hold
        count = -1
        while clock() < end and count != len(self._pending):
            count = len(self._pending)
            await asyncio.sleep(following.quiet)


def _has_addresses(update: Updated) -> bool:
    found = update.reading.good or update.reading.fallback
    return isinstance(found, Pod) and bool(found.addresses)


def _typed(raw: Raw, resource: resources.Resource) -> Raw:
    """Items of a list do not say what they are."""
    raw["apiVersion"], raw["kind"] = resource.api_version, resource.kind
    return raw
