"""Where a request starts and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from observer import observer_pb2

from flows.observer import Observer
from flows.reading import Reading, RequestError, compile_request
from tests.flows.make import Galaxy, drop, exchange, message

SECOND = 1_000_000_000


async def responses(observer: Observer, reading: Reading) -> AsyncIterator[observer_pb2.GetFlowsResponse]:
    """What a reading brings, one by one."""
    async for batch in observer.flows(reading):
        for sent in batch:
            yield observer_pb2.GetFlowsResponse.FromString(sent)


async def read(observer: Observer, **fields: Any) -> list[int]:
    """The source ports of the flows that a request brings; each flow of `galaxy_at_war` has its own."""
    reading = compile_request(observer_pb2.GetFlowsRequest(**fields))
    return [sent.flow.l4.TCP.source_port async for sent in responses(observer, reading) if sent.HasField("flow")]


def at_war(count: int = 10, *, capacity: int = 4095) -> Observer:
    """An observer of so many drops, with source ports 1, 2, 3 ..."""
    observer = Observer(Galaxy, version="0.1.0", capacity=capacity)
    for port in range(1, count + 1):
        observer.packets([drop(source_port=port)])
    return observer


ODD = {"whitelist": [{"source_port": [str(port) for port in (1, 3, 5, 7, 9)]}]}


@pytest.mark.parametrize(
    ("fields", "ports"),
    [
        ({}, range(1, 11)),
        ({"number": 3}, (8, 9, 10)),
        ({"number": 2**64 - 1}, range(1, 11)),
        ({"number": 3, "first": True}, (1, 2, 3)),
        ({"first": True}, range(1, 11)),
        ({"number": 2, **ODD}, (7, 9)),
        ({"number": 2, "first": True, **ODD}, (1, 3)),
        ({"number": 9, **ODD}, (1, 3, 5, 7, 9)),
        ({"blacklist": ODD["whitelist"]}, (2, 4, 6, 8, 10)),
    ],
)
async def test_numbers(fields: dict[str, Any], ports: Any) -> None:
    assert await read(at_war(), **fields) == list(ports)


async def test_only_what_the_ring_holds() -> None:
    assert await read(at_war(10, capacity=3)) == [8, 9, 10]
    assert await read(at_war(10, capacity=3), number=9) == [8, 9, 10]
    assert await read(at_war(0)) == []
    assert await read(at_war(0), number=5) == []


async def test_since_and_until() -> None:
    observer = at_war(4)
    assert await read(observer) == [1, 2, 3, 4]
    times = [observer.ring[at].time_ns for at in range(4)]
    since, until = stamp(times[1]), stamp(times[2])
    assert await read(observer, since=since) == [2, 3, 4]
    assert await read(observer, until=until) == [1, 2, 3]
    assert await read(observer, since=since, until=until) == [2, 3]
    assert await read(observer, since=since, number=1) == [2]
    assert await read(observer, since=stamp(times[3] + 1)) == []


def stamp(time_ns: int) -> dict[str, int]:
    return {"seconds": time_ns // SECOND, "nanos": time_ns % SECOND}


async def test_following_starts_now_or_so_many_back() -> None:
    observer = at_war()
    for fields, ports in (({}, [11, 12]), ({"number": 2}, [9, 10, 11, 12])):
        reading = compile_request(observer_pb2.GetFlowsRequest(follow=True, **fields))
        stream = responses(observer, reading)
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            following = tasks.create_task(taken(stream, len(ports)))
            for port in (11, 12):
                await asyncio.sleep(0)
                observer.packets([drop(source_port=port)])
        assert following.result() == ports
        await stream.aclose()
        observer = at_war()


async def taken(stream: AsyncIterator[observer_pb2.GetFlowsResponse], count: int) -> list[int]:
    return [(await anext(stream)).flow.l4.TCP.source_port for _ in range(count)]


async def test_until_ends_a_follower() -> None:
    observer = at_war(2)
    assert await read(observer) == [1, 2]
    until = stamp(observer.ring[0].time_ns)
    assert await read(observer, follow=True, number=2, until=until) == [1]


async def test_losses_pass_every_filter_and_do_not_count() -> None:
    observer = at_war(1)
    observer.lost(5)
    observer.packets([drop(source_port=2)])
    reading = compile_request(observer_pb2.GetFlowsRequest(number=2))
    sent = [response async for response in responses(observer, reading)]
    assert [response.WhichOneof("response_types") for response in sent] == ["flow", "lost_events", "flow"]
    assert (sent[1].lost_events.num_events_lost, sent[1].node_name) == (5, "n1")


async def test_responses_repeat_time_and_node_as_far_as_the_mask_left_them() -> None:
    observer = at_war(1)
    for paths, node, has_time in (([], "n1", True), (["verdict"], "", False), (["node_name", "time"], "n1", True)):
        reading = compile_request(observer_pb2.GetFlowsRequest(field_mask={"paths": paths}))
        (sent,) = [response async for response in responses(observer, reading)]
        assert (sent.node_name, sent.HasField("time")) == (node, has_time)
    old = observer_pb2.GetFlowsRequest(experimental={"field_mask": {"paths": ["verdict"]}})
    (sent,) = [response async for response in responses(observer, compile_request(old))]
    assert [field.name for field, _ in sent.flow.ListFields()] == ["verdict"]


def test_first_and_follow_contradict_each_other() -> None:
    with pytest.raises(RequestError, match="first cannot be specified with follow"):
        compile_request(observer_pb2.GetFlowsRequest(first=True, follow=True))


async def test_status_counts_what_waits() -> None:
    observer = Observer(Galaxy, version="0.1.0", capacity=7)
    for _ in range(5):
        observer.access_log(message(*exchange()))
    status = await observer.status()
    assert (status.num_flows, status.max_flows, status.seen_flows) == (7, 7, 10)
    assert status.version == "deflector v0.1.0"
    assert status.uptime_ns > 0
    assert status.flows_rate > 0
    assert not status.HasField("num_connected_nodes")


async def test_nodes_and_namespaces() -> None:
    observer = at_war(1)
    assert [node.name for node in (await observer.nodes()).nodes] == ["n1"]
    namespaces = (await observer.namespaces()).namespaces
    assert [(space.cluster, space.namespace) for space in namespaces] == [("", "default")]
