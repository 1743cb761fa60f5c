"""Agent events: what requests get of them, and how they are printed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from flow import flow_pb2
from observer import observer_pb2

from flows.agent_events import (
    EventReader,
    EventRing,
    compile_events_request,
    endpoint_created,
    endpoint_deleted,
    ipcache_deleted,
    ipcache_upserted,
    policy_deleted,
    policy_updated,
    regenerated,
    remark,
    started,
)
from flows.client import ClientError, observe_agent
from flows.event_printer import EventPrinter
from flows.observer import Observer
from flows.printer import Style
from flows.reading import RequestError
from flows.server import start
from tests.flows.make import Galaxy

BEGAN = 1_768_385_472_345_678_901
POLICY = ["k8s:io.cilium.k8s.policy.name=landing", "k8s:io.cilium.k8s.policy.namespace=default"]
EVENTS = [
    started(BEGAN),
    policy_updated(POLICY, 4, 2),
    policy_deleted([], 5, 1),
    endpoint_created(17, "default", "deathstar-1", ["k8s:org=empire"]),
    endpoint_deleted(18, "", "", []),
    regenerated(17, ["k8s:org=empire"]),
    regenerated(17, ["k8s:org=empire", "k8s:class=deathstar"], "no space left on device"),
    ipcache_upserted("10.0.0.1/32", 4711),
    ipcache_upserted("10.0.0.1/32", 2, 4711),
    ipcache_deleted("fd00::1/128", 4711),
    remark("addresses", "50 more \x1b[31mred"),
    flow_pb2.AgentEvent(type=flow_pb2.POLICY_UPDATED),
    flow_pb2.AgentEvent(
        type=flow_pb2.SERVICE_UPSERTED,
        service_upsert=flow_pb2.ServiceUpsertNotification(
            id=1,
            frontend_address={"ip": "fd00::5", "port": 80},
            backend_addresses=[{"ip": "10.0.0.1", "port": 8080}],
            type="ClusterIP",
            name="deathstar",
        ),
    ),
    flow_pb2.AgentEvent(type=flow_pb2.SERVICE_DELETED, service_delete=flow_pb2.ServiceDeleteNotification(id=1)),
]


def ring(count: int, capacity: int = 8) -> EventRing:
    made = EventRing(capacity)
    for number in range(count):
        made.append(remark("n", str(number)), "n1", BEGAN)
    return made


def numbers(responses: list[bytes]) -> list[str]:
    parsed = [observer_pb2.GetAgentEventsResponse.FromString(one) for one in responses]
    return [one.agent_event.unknown.notification for one in parsed]


def reader(of: EventRing, **request: object) -> EventReader:
    return EventReader(of, compile_events_request(observer_pb2.GetAgentEventsRequest(**request)), "n1")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, "23456789"),
        ({"number": 3}, "789"),
        ({"number": 2**64 - 1}, "23456789"),
        ({"number": 3, "first": True}, "234"),
        ({"since": {"seconds": BEGAN // 10**9, "nanos": BEGAN % 10**9 + 7}}, "789"),
        ({"since": {"seconds": BEGAN // 10**9, "nanos": BEGAN % 10**9 + 5}, "number": 2}, "56"),
        ({"until": {"seconds": BEGAN // 10**9, "nanos": BEGAN % 10**9 + 4}}, "234"),
    ],
)
def test_what_requests_get(request_: dict[str, object], expected: str) -> None:
    """Ten events came, a nanosecond apart, and eight are held."""
    asked = reader(ring(10), **request_)
    assert "".join(numbers(asked.piece())) == expected
    assert asked.is_done


def test_a_follower_gets_what_comes_and_is_told_what_it_missed() -> None:
    events = ring(3)
    following = reader(events, follow=True, number=1)
    assert numbers(following.piece()) == ["2"]
    assert following.piece() == []
    for number in range(10):
        events.append(remark("n", f"later {number}"), "n1", BEGAN)
    assert numbers(following.piece())[:2] == ["2 events were overwritten before they were read", "later 2"]
    assert not following.is_done


def test_times_increase() -> None:
    events = ring(5)
    times = [time_ns for time_ns, _ in events.between(events.start, events.end)]
    assert times == [BEGAN + number for number in range(5)]


def test_first_and_follow_contradict_each_other() -> None:
    with pytest.raises(RequestError, match="first cannot be specified with follow"):
        reader(ring(1), first=True, follow=True)


async def test_over_the_wire(tmp_path: Path) -> None:
    observer = Observer(Galaxy, version="0.1.0")
    observer.agent_event(EVENTS[0])
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    try:
        following = observe_agent(target, observer_pb2.GetAgentEventsRequest(number=5, follow=True))
        async with asyncio.timeout(10):
            first = await anext(following)
            assert (first.agent_event, first.node_name) == (EVENTS[0], "n1")
            observer.agent_event(EVENTS[1])
            assert (await anext(following)).agent_event == EVENTS[1]
        await following.aclose()
        with pytest.raises(ClientError, match="first cannot be specified with follow"):
            await anext(observe_agent(target, observer_pb2.GetAgentEventsRequest(first=True, follow=True)))
    finally:
        await server.stop(None)


STYLES = {
    "compact": ([], Style()),
    "compact-node": (["--print-node-name", "--time-format", "RFC3339"], Style(node_name=True, time_format="RFC3339")),
    "dict": (["-o", "dict"], Style("dict")),
    "dict-node": (["-o", "dict", "--print-node-name"], Style("dict", node_name=True)),
    "table": (["-o", "table"], Style("table")),
    "table-node": (["-o", "table", "--print-node-name"], Style("table", node_name=True)),
    "json": (["-o", "json"], Style("json")),
}
GOLDENS = Path(__file__).parent / "testdata" / "agent-events"


def recorded() -> Observer:
    observer = Observer(Galaxy, version="0.1.0")
    for number, event in enumerate(EVENTS):
        observer.agent_ring.append(event, "n1", BEGAN + number)
    return observer


@pytest.mark.parametrize("name", STYLES)
def test_printed_as_recorded(name: str) -> None:
    """testdata/agent-events holds what hubble 1.19.4 printed of these events."""
    printer = EventPrinter(STYLES[name][1])
    held = recorded().agent_ring
    responses = [observer_pb2.GetAgentEventsResponse.FromString(one) for _, one in held.between(held.start, held.end)]
    text = "".join(map(printer.event, responses)) + printer.close()
    assert text == (GOLDENS / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.skipif("HUBBLE_CLI" not in os.environ, reason="needs the stock command line: HUBBLE_CLI=path")
@pytest.mark.parametrize("name", STYLES)
async def test_the_stock_command_line_prints_what_was_recorded(
    name: str, tmp_path: Path, golden: Callable[[Path, str], None]
) -> None:
    target = f"unix://{tmp_path}/h.sock"
    server = await start(recorded(), [target])
    try:
        asked = ["observe", "agent-events", "--server", target, *STYLES[name][0]]
        process = await asyncio.create_subprocess_exec(
            os.environ["HUBBLE_CLI"], *asked, stdout=asyncio.subprocess.PIPE, env={"HOME": "/nonexistent"}
        )
        async with asyncio.timeout(20):
            out, _ = await process.communicate()
    finally:
        await server.stop(None)
    golden(GOLDENS / f"{name}.txt", out.decode())
