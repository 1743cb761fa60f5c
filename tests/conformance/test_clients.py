"""Clients that are no curl, against the deathstar's server on loopback: gRPC, WebSocket, raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from conformance import rpc, wire
from conformance.expectation import Answer, Reaction
from conformance.scenario import GRPC, WEBSOCKET, Request
from conformance.speakers import HttpConnection
from conformance.wire import Way

HERE = ("127.0.0.1", 0)
PATIENCE = 5.0


@asynccontextmanager
async def deathstar() -> AsyncIterator[Way]:
    server = await asyncio.get_running_loop().create_server(lambda: HttpConnection("ds"), *HERE)
    async with server:
        yield Way("", HERE, server.sockets[0].getsockname())


async def call(way: Way, request: Request) -> Answer:
    return await rpc.call(way, request, "ds", PATIENCE)


async def test_a_grpc_call_is_answered_in_kind() -> None:
    request = Request("POST", "/empire.DeathStar/RequestLanding", http=GRPC, body="tie", headers=(("X-Ship", "tie"),))
    async with deathstar() as way:
        landed = await call(way, request)
        lost = await call(way, Request("POST", "/empire.DeathStar/Surrender", http=GRPC))
    assert (landed.reaction, landed.status, landed.body) == (Reaction.ANSWERED, 0, "tie")
    assert landed.header("x-received") == "POST /empire.DeathStar/RequestLanding"
    assert landed.header("x-client") == "127.0.0.1"
    assert (lost.reaction, lost.status) == (Reaction.ANSWERED, 12)


async def test_a_websocket_says_back_what_it_hears() -> None:
    async with deathstar() as way:
        answer = await wire.upgrade(way, Request("GET", "/v1/feed", http=WEBSOCKET, body="ping"), "ds", PATIENCE)
    assert (answer.status, answer.body, answer.header("x-received")) == (101, "ping", "GET /v1/feed")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("GET /v1/ HTTP/1.1\r\nHost: ds\r\n\r\n", 200),
        ("HEAD /v1/ HTTP/1.1\r\nHost: ds\r\n\r\n", 200),
        ("POST /v1/request-landing HTTP/1.1\r\nHost: ds\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n", 200),
        ("nonsense\r\n\r\n", 400),
    ],
)
async def test_raw_bytes_go_out_as_they_are(raw: str, status: int) -> None:
    request = Request(raw.partition(" ")[0], "/", raw=raw)
    async with deathstar() as way:
        answer = await wire.say(way, request, "ds", PATIENCE)
    assert answer.status == status


async def test_where_nobody_listens_the_connection_is_refused() -> None:
    async with deathstar() as way:
        pass
    assert (await wire.say(way, Request(), "ds", PATIENCE)).reaction is Reaction.REFUSED
    assert (await call(way, Request("POST", "/a.B/C", http=GRPC))).reaction is not Reaction.ANSWERED
