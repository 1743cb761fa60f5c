"""The Hubble API over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from flow import flow_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from observer import observer_pb2, observer_pb2_grpc

from flows.accesslog.server import AccessLogService
from flows.client import ClientError, ask_status, observe, print_flows
from flows.observer import Observer
from flows.printer import Printer
from flows.server import ServeError, start
from tests.flows.make import Galaxy, denied, drop, exchange, message

ALL = observer_pb2.GetFlowsRequest()


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"


@asynccontextmanager
async def serving(tmp_path: Path, capacity: int = 4095) -> AsyncIterator[tuple[Observer, str]]:
    observer = Observer(Galaxy, version="0.1.0", capacity=capacity)
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    try:
        yield observer, target
    finally:
        await server.stop(None)


async def test_flows_over_a_unix_socket_and_tcp() -> None:
    observer = Observer(Galaxy, version="0.1.0")
    observer.access_log(message(*exchange()))
    address = free_address()
    server = await start(observer, [address])
    try:
        verdicts = [sent.flow.verdict async for sent in observe(address, ALL)]
        assert verdicts == [flow_pb2.FORWARDED, flow_pb2.FORWARDED]
        with pytest.raises(ServeError, match=f"cannot serve the Hubble API on {address}: in use"):
            await start(observer, [address])
    finally:
        await server.stop(None)


async def test_a_follower_sees_an_event_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (observer, target):
        stream = observe(target, observer_pb2.GetFlowsRequest(follow=True, number=1))
        observer.packets([drop(source_port=1)])
        await anext(stream)
        waits = []
        for port in range(2, 12):
            began = time.monotonic()
            observer.packets([drop(source_port=port)])
            sent = await anext(stream)
            waits.append(time.monotonic() - began)
            assert sent.flow.l4.TCP.source_port == port
        assert sorted(waits)[5] < 0.05


async def test_a_slow_follower_loses_and_is_told_and_the_writer_never_waits(tmp_path: Path) -> None:
    async with serving(tmp_path, capacity=7) as (observer, target):
        stream = observe(target, observer_pb2.GetFlowsRequest(follow=True, number=1))
        observer.packets([drop(source_port=1)])
        assert (await anext(stream)).flow.l4.TCP.source_port == 1
        for port in range(2, 202):  # no other task runs meanwhile
            observer.packets([drop(source_port=port)])
        got = [await anext(stream) for _ in range(8)]
        assert [sent.lost_events.num_events_lost for sent in got if sent.HasField("lost_events")] == [193]
        assert got[0].lost_events.source == flow_pb2.HUBBLE_RING_BUFFER
        assert got[0].lost_events.HasField("first")
        assert [sent.flow.l4.TCP.source_port for sent in got[1:]] == list(range(195, 202))


async def test_many_followers_see_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path) as (observer, target):
        streams = [observe(target, observer_pb2.GetFlowsRequest(follow=True, number=1)) for _ in range(5)]
        observer.packets([drop()])
        first = [(await anext(stream)).flow.uuid for stream in streams]
        observer.access_log(message(denied()))
        second = [(await anext(stream)).flow.uuid for stream in streams]
        assert len(set(first)) == len(set(second)) == 1


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (observer_pb2.GetFlowsRequest(first=True, follow=True), "first cannot be specified with follow"),
        (observer_pb2.GetFlowsRequest(whitelist=[{"protocol": ["gopher"]}]), "unknown protocol"),
        (observer_pb2.GetFlowsRequest(field_mask={"paths": ["x"]}), "invalid fieldmask"),
    ],
)
async def test_bad_requests_are_refused_with_a_reason(
    tmp_path: Path, request_: observer_pb2.GetFlowsRequest, complaint: str
) -> None:
    async with serving(tmp_path) as (_, target):
        with pytest.raises(ClientError, match=complaint):
            await anext(observe(target, request_))


async def test_codes_and_headers_that_hubble_looks_at(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, target), grpc.aio.insecure_channel(target) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        call = stub.GetFlows(observer_pb2.GetFlowsRequest(whitelist=[{"source_pod": [""]}]))
        assert await call.code() is grpc.StatusCode.UNKNOWN
        call = stub.GetFlows(observer_pb2.GetFlowsRequest(first=True, follow=True))
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        call = stub.GetDebugEvents(observer_pb2.GetDebugEventsRequest())
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        call = stub.ServerStatus(observer_pb2.ServerStatusRequest())
        headers = dict(await call.initial_metadata())  # type: ignore[call-overload]
        assert headers["hubble-server-version"].startswith("0.0.0")
        assert (await call).max_flows == 4095


async def test_health_and_reflection(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, target), grpc.aio.insecure_channel(target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "hubble.server.Observer"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = [service.name for service in (await call.read()).list_services_response.service]
        assert "observer.Observer" in names
        call.cancel()


async def test_the_client_prints_flows_and_status(tmp_path: Path) -> None:
    async with serving(tmp_path) as (observer, target):
        observer.access_log(message(denied()))
        out: list[str] = []
        await print_flows(target, ALL, Printer(), out.append)
        assert [line.partition(": ")[2] for line in out] == [
            "default/tiefighter:40000 (ID:2222) -> default/deathstar-1:80 (ID:4711) http-request DROPPED "
            "(HTTP/1.1 PUT http://deathstar/v1/exhaust-port)\n",
            "default/tiefighter:40000 (ID:2222) <- default/deathstar-1:80 (ID:4711) http-response FORWARDED "
            "(HTTP/1.1 403 1ms (PUT http://deathstar/v1/exhaust-port))\n",
        ]
        state = await ask_status(target)
        assert state.state == "SERVING"
        assert state.status is not None
        assert state.status.num_flows == 2


async def test_nobody_there(tmp_path: Path) -> None:
    target = f"unix://{tmp_path}/none.sock"
    with pytest.raises(ClientError, match=r"nobody answers there"):
        await anext(observe(target, ALL))
    with pytest.raises(ClientError, match=r"nobody answers there"):
        await ask_status(target)


async def test_envoys_stream_becomes_flows(tmp_path: Path) -> None:
    """The access-log service with the stub of Envoy's own API in place of Envoy."""
    observer = Observer(Galaxy, version="0.1.0")
    service = AccessLogService(observer.access_log)
    server = grpc.aio.server()
    service.register(server)
    target = f"unix://{tmp_path}/xds.sock"
    server.add_insecure_port(target)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            call = als_pb2_grpc.AccessLogServiceStub(channel).StreamAccessLogs()
            await call.write(als_pb2.StreamAccessLogsMessage(identifier={"log_name": "http"}))
            await call.write(als_pb2.StreamAccessLogsMessage.FromString(message(*exchange())))
            await call.done_writing()
            await call
        assert (service.messages, service.streams) == (2, 0)
        assert (await observer.status()).num_flows == 2
    finally:
        await server.stop(None)


async def test_stopping_ends_followers(tmp_path: Path) -> None:
    observer = Observer(Galaxy, version="0.1.0")
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    stream = observe(target, observer_pb2.GetFlowsRequest(follow=True, number=1))
    observer.packets([drop()])
    await anext(stream)
    async with asyncio.timeout(5):
        await server.stop(0.1)
        with pytest.raises(ClientError):
            await anext(stream)
