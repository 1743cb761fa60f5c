"""Following one kind of objects through everything that an API server may do: nothing is lost, nothing is invented."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cluster import shapes
from agent.cluster.backoff import Backoff
from agent.cluster.client import ApiServer
from agent.cluster.credentials import Access
from agent.cluster.lines import Lines, LineTooLong
from agent.cluster.list_watch import ListWatch, Query
from agent.cluster.resources import CILIUM_POLICIES
from policies.objects import PodKey
from tests.cluster.stage import Cluster, a_cluster, until
from tests.fakes.apiserver import ApiServerFake, Refusal

LONG = bool(os.environ.get("DEFLECTOR_LONG"))  # the whole minute of a watch that is cut every second
only_fake = pytest.mark.skipif("KUBECONFIG" in os.environ, reason="what a real server cannot be made to do")


@dataclass
class Follower:
    """Who is told: what is known by now, and every word of how it came to that."""

    known: dict[str, int] = field(default_factory=dict)  # policy -> the port that it opens
    story: list[str] = field(default_factory=list)
    lists: int = 0
    complaint: str = ""

    def upsert(self, key: PodKey, raw: dict[str, Any]) -> None:
        self.known[key.name] = raw["spec"]["port"]
        self.story.append(f"{key.name}={raw['spec']['port']}")

    def gone(self, key: PodKey) -> None:
        del self.known[key.name]
        self.story.append(f"-{key.name}")

    def listed(self) -> None:
        self.lists += 1

    def trouble(self, words: str) -> None:
        self.complaint = words


def policy(name: str, port: int) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"endpointSelector": {}, "port": port}}


@asynccontextmanager
async def following(
    api: ApiServer, namespace: str, query: Query | None = None
) -> AsyncIterator[tuple[Follower, ListWatch]]:
    follower = Follower()
    query = query or Query(CILIUM_POLICIES, shapes.whole, namespace, consistent=True)
    watch = ListWatch(api, query, follower, lambda: 0.5, Backoff(lambda: 0.5, 0.01, 0.1))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watch.run())
        try:
            yield follower, watch
        finally:
            task.cancel()


async def put(cluster: Cluster, name: str, port: int) -> None:
    await cluster.api.apply(CILIUM_POLICIES, cluster.namespace, policy(name, port), manager="test")


async def drop(cluster: Cluster, name: str) -> None:
    await cluster.api.delete(CILIUM_POLICIES, cluster.namespace, name)


async def test_what_is_there_is_listed_and_what_changes_is_told(cluster: Cluster) -> None:
    await put(cluster, "a", 1)
    async with following(cluster.api, cluster.namespace) as (follower, watch):
        await until(lambda: follower.lists)
        assert follower.known == {"a": 1}
        await put(cluster, "b", 2)
        await put(cluster, "a", 3)
        await drop(cluster, "b")
        await until(lambda: follower.known == {"a": 3})
        assert follower.story == ["a=1", "b=2", "a=3", "-b"]
        assert (watch.lists, watch.watches) == (1, 1)


@only_fake
async def test_a_long_list_comes_in_pages() -> None:
    async with a_cluster() as cluster, following(cluster.api, cluster.namespace) as (follower, _):
        assert cluster.fake is not None
        for number in range(1203):
            body = policy(f"p{number}", number)
            body["metadata"]["namespace"] = cluster.namespace
            cluster.fake.put(CILIUM_POLICIES, body)
        await until(lambda: follower.lists and len(follower.known) == 1203)
        assert follower.known["p1202"] == 1202


@only_fake
@pytest.mark.parametrize("torn", [False, True])
async def test_a_watch_that_is_cut_goes_on_where_it_was(torn: bool) -> None:
    async with a_cluster() as cluster, following(cluster.api, cluster.namespace) as (follower, watch):
        assert cluster.fake is not None
        await until(lambda: watch.watches)
        for number in range(5):
            cluster.fake.faults.torn = torn
            cluster.fake.cut_watches()
            await put(cluster, "a", number)
            await until(lambda number=number: follower.known.get("a") == number)
        assert follower.story == [f"a={number}" for number in range(5)]
        assert watch.lists == 1


@only_fake
@pytest.mark.parametrize("as_status", [False, True], ids=["in the stream", "by HTTP"])
async def test_after_410_only_what_differs_is_told(as_status: bool) -> None:
    async with a_cluster() as cluster, following(cluster.api, cluster.namespace) as (follower, watch):
        assert cluster.fake is not None
        cluster.fake.faults.gone_as_status = as_status
        for name, port in (("kept", 1), ("changed", 1), ("gone", 1)):
            await put(cluster, name, port)
        await until(lambda: len(follower.known) == 3)
        cluster.fake.faults.refuse["watch"] = Refusal(503, "ServiceUnavailable", "down for a moment")
        cluster.fake.cut_watches()
        await put(cluster, "changed", 2)
        await put(cluster, "new", 1)
        await drop(cluster, "gone")
        cluster.fake.compact()
        follower.story.clear()
        cluster.fake.faults.refuse.clear()
        await until(lambda: watch.lists == 2 and len(follower.story) == 3)
        assert sorted(follower.story) == ["-gone", "changed=2", "new=1"]
        assert follower.story[-1] == "-gone"  # nothing is dropped before all that there is has been seen
        await put(cluster, "later", 5)
        await until(lambda: "later" in follower.known)


@only_fake
async def test_a_page_that_is_forgotten_halfway_starts_a_new_list() -> None:
    async with a_cluster() as cluster:
        fake = cluster.fake
        assert fake is not None
        for number in range(700):
            body = policy(f"p{number:03}", number)
            body["metadata"]["namespace"] = cluster.namespace
            fake.put(CILIUM_POLICIES, body)
        served = fake._list

        def forgetful(*words: Any) -> Any:
            answer = served(*words)
            if fake.requests.count(("list", "ciliumnetworkpolicies")) == 1:
                fake.compact()
            return answer

        fake._list = forgetful  # type: ignore[method-assign]
        async with following(cluster.api, cluster.namespace) as (follower, watch):
            await until(lambda: follower.lists)
            assert len(follower.known) == 700
            assert watch.lists == 2


@only_fake
async def test_a_lost_server_changes_nothing_and_is_told_of_in_one_line() -> None:
    fake = ApiServerFake()
    async with fake.serve() as there:
        port = int(there.url.rpartition(":")[2])
        access = Access(there.url)
        fake.put(CILIUM_POLICIES, {**policy("a", 1), "metadata": {"name": "a", "namespace": "n"}})
        async with ApiServer(access) as api, following(api, "n") as (follower, watch):
            await until(lambda: follower.known)
            await fake.go_away()
            await until(lambda: follower.complaint.endswith("cannot connect: Connection refused"))
            assert follower.known == {"a": 1}
            fake.put(CILIUM_POLICIES, {**policy("b", 2), "metadata": {"name": "b", "namespace": "n"}})
            await fake.open(port)
            await until(lambda: follower.known == {"a": 1, "b": 2} and not follower.complaint)
            assert watch.lists == 1


@only_fake
@pytest.mark.parametrize(
    ("act", "refusal", "words"),
    [
        ("list", Refusal(403, "Forbidden", "cannot list"), "give this service account the role"),
        ("list", Refusal(500, "InternalError", "etcd is away"), "etcd is away"),
        ("watch", Refusal(429, "TooManyRequests", "later"), "later"),
        ("watch", Refusal(401, "Unauthorized", "who are you"), "who are you"),
    ],
)
async def test_a_server_that_refuses_is_asked_again(act: str, refusal: Refusal, words: str) -> None:
    async with a_cluster() as cluster:
        assert cluster.fake is not None
        cluster.fake.faults.refuse[act] = refusal
        await put(cluster, "a", 1)
        async with following(cluster.api, cluster.namespace) as (follower, _):
            await until(lambda: words in follower.complaint)
            assert follower.lists == (act == "watch")
            cluster.fake.faults.refuse.clear()
            await until(lambda: follower.known == {"a": 1} and not follower.complaint)
            await put(cluster, "a", 2)
            await until(lambda: follower.known == {"a": 2})


@only_fake
async def test_a_kind_that_the_server_does_not_have_is_an_empty_list_and_one_that_goes_takes_nothing_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.cluster.list_watch.ABSENT_SECONDS", 0.05)
    async with a_cluster() as cluster:
        assert cluster.fake is not None
        cluster.fake.faults.absent.add("ciliumnetworkpolicies")
        async with following(cluster.api, cluster.namespace) as (follower, watch):
            await until(lambda: follower.lists)
            assert "has no ciliumnetworkpolicies.cilium.io" in follower.complaint
            assert watch.lists >= 2  # a server that is just starting says so, too
            cluster.fake.faults.absent.clear()
            await put(cluster, "a", 1)
            await until(lambda: follower.known == {"a": 1} and not follower.complaint)
            cluster.fake.faults.absent.add("ciliumnetworkpolicies")
            cluster.fake.cut_watches()
            await until(lambda: "stays in force" in follower.complaint)
            assert follower.known == {"a": 1}


@only_fake
async def test_a_watch_that_is_cut_all_the_time_loses_nothing() -> None:
    """Every 50 ms for two seconds; with DEFLECTOR_LONG every second for a minute."""
    every, lasting = (1.0, 60.0) if LONG else (0.05, 2.0)
    async with a_cluster() as cluster, following(cluster.api, cluster.namespace) as (follower, watch):
        assert cluster.fake is not None
        cluster.fake.faults.cut_watches = every
        clock, number = asyncio.get_running_loop().time, 0
        end = clock() + lasting
        while clock() < end:
            number += 1
            await put(cluster, f"p{number % 7}", number)
            if number % 5 == 0 and f"p{number % 7}" in follower.known:
                await drop(cluster, f"p{number % 7}")
            seen = number
            await until(lambda seen=seen: follower.known.get(f"p{seen % 7}") in (seen, None), 1.0)  # type: ignore[misc]
            await asyncio.sleep(every / 10)
        cluster.fake.faults.cut_watches = None
        wanted = {obj["metadata"]["name"]: obj["spec"]["port"] for obj in cluster.fake.all(CILIUM_POLICIES)}
        await until(lambda: follower.known == wanted)
        assert watch.lists == 1
        assert watch.watches > 10


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.data())
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    expected = [line for line in lines if line.strip()]
    pieces, rest = [], whole
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:size])
        rest = rest[size:]
    cutter = Lines()
    assert [line for piece in pieces for line in cutter.feed(piece)] == expected
    assert Lines().feed(whole + b"half a li") == expected


def test_a_line_without_end_is_refused() -> None:
    cutter = Lines(limit=10)
    assert cutter.feed(b"12345") == []
    with pytest.raises(LineTooLong):
        cutter.feed(b"678901")


@given(st.integers(0, 40), st.floats(0, 1), st.floats(0, 100))
def test_delays_grow_are_spread_and_never_shorter_than_asked(failures: int, chance: float, asked: float) -> None:
    backoff = Backoff(lambda: chance, 0.2, 30.0)
    for _ in range(failures):
        assert 0.1 <= backoff.next() <= 30
    assert backoff.next(asked) >= asked
