"""Clients of the Hubble API that mean harm: they are bounded and told why, and the others are served."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, PingAckReceived
from observer import observer_pb2

from flows.client import ClientError, ask_status, observe
from flows.observer import Observer
from flows.rpc.framing import REQUEST_MAX, framed
from flows.server import start
from tests.flows.make import Galaxy, drop, entry, message
from tests.flows.rpc.raw import connected

GET_FLOWS = "/observer.Observer/GetFlows"
FOLLOW = framed([observer_pb2.GetFlowsRequest(follow=True, number=4095).SerializeToString()])
WINDOW = 65535
RUNAWAY = f"{list(range(90))}.all(a, {list(range(90))}.all(b, !_flow.uuid.matches('{'(a?){200}' * 4}b')))"


@asynccontextmanager
async def galaxy_at_war(tmp_path: Path) -> AsyncIterator[tuple[Observer, Path, str]]:
    """An observer whose ring is full, its socket and its address."""
    galaxy = Galaxy()
    observer = Observer(lambda: galaxy, version="0.1.0")
    for number in range(50):
        observer.access_log(message(*(entry(port=20000 + 50 * number + n, start_ns=n + 1) for n in range(50))))
    path = tmp_path / "h.sock"
    server = await start(observer, [f"unix://{path}"])
    try:
        yield observer, path, f"unix://{path}"
    finally:
        await server.stop(None)


async def served(target: str) -> bool:
    """Whether somebody decent gets what they ask for."""
    request = observer_pb2.GetFlowsRequest(number=20)
    return len([one async for one in observe(target, request)]) == 20 and (await ask_status(target)).status is not None


async def test_a_thousand_streams_that_nobody_reads(tmp_path: Path) -> None:
    async with galaxy_at_war(tmp_path) as (observer, path, target), connected(path) as hostile:
        assert await served(target)
        tracemalloc.start()
        try:
            streams = [hostile.ask(GET_FLOWS, FOLLOW) for _ in range(100)]
            await hostile.until(DataReceived, lambda event: sum(map(hostile.received, streams)) == WINDOW)
            before, _ = tracemalloc.get_traced_memory()
            for number in range(11):  # more than the ring
                observer.packets([drop(source_port=1 + number)] * 400)
                assert await served(target)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 16 << 20
        hostile.h2.remote_settings.max_concurrent_streams = 2000
        hostile.h2.remote_settings.acknowledge()
        for _ in range(900):
            hostile.ask(GET_FLOWS, FOLLOW)
        assert await hostile.farewell() == (ErrorCodes.PROTOCOL_ERROR, "Max inbound streams is 100, 100 open")
        assert await served(target)


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (
            observer_pb2.GetFlowsRequest(whitelist=[{"source_pod": ["a"] * 1001}]),
            "the filters hold 1002 conditions: more than 1000 are not looked at",
        ),
        (
            observer_pb2.GetFlowsRequest(whitelist=[{"http_path": ["(((x{100}){100}){100})"]}]),
            "invalid http path filter: .*invalid repetition size",
        ),
        (
            observer_pb2.GetFlowsRequest(field_mask={"paths": [f"source.a{n}" for n in range(1001)]}),
            "invalid fieldmask: 1001 paths are more than 1000",
        ),
        (
            observer_pb2.GetFlowsRequest(whitelist=[{"source_pod": ["a" * REQUEST_MAX]}]),
            "RESOURCE_EXHAUSTED: a message of [0-9]+ bytes is more than 131072",
        ),
        (observer_pb2.GetFlowsRequest(whitelist=[{"source_fqdn": ["ü%\n"]}]), "'ü': invalid rune in pattern"),
        (
            observer_pb2.GetFlowsRequest(whitelist=[{"experimental": {"cel_expression": [RUNAWAY]}}]),
            "error compiling CEL expression: it may take [0-9]+ steps, more than 10000",
        ),
        (
            observer_pb2.GetFlowsRequest(whitelist=[{"experimental": {"cel_expression": ["true"]}}] * 1100),
            "the filters hold 4400 characters of CEL: more than 4096 are not looked at",
        ),
    ],
)
async def test_absurd_requests(tmp_path: Path, request_: observer_pb2.GetFlowsRequest, complaint: str) -> None:
    async with galaxy_at_war(tmp_path) as (_, _, target):
        with pytest.raises(ClientError, match=complaint):
            await anext(observe(target, request_))
        assert await served(target)


async def test_the_whole_ring_asked_for_by_number_and_filter(tmp_path: Path) -> None:
    async with galaxy_at_war(tmp_path) as (_, _, target):
        request = observer_pb2.GetFlowsRequest(number=2**64 - 1, whitelist=[{"source_port": ["80"]}])
        assert len([one async for one in observe(target, request)]) == 2048


async def test_requests_in_pieces_that_never_end(tmp_path: Path) -> None:
    async with galaxy_at_war(tmp_path) as (_, path, target), connected(path) as hostile:
        for _ in range(100):
            hostile.ask(GET_FLOWS, b"\0\0\0", end=False)
        hostile.h2.ping(b"all sent")
        hostile.flush()
        await hostile.until(PingAckReceived)
        assert await served(target)
