"""The deathstar's server: its answers, its two protocols, its patience with split input."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import h2.connection
import h2.events
import pytest

from conformance.answers import Request, answer
from conformance.http1 import ResponseReader, encode
from conformance.scenario import Request as Wanted
from conformance.speakers import HttpConnection

ANSWERS = [
    ("POST", "/v1/request-landing", 200, "Ship landed\n"),
    ("POST", "/v1/request-landing?ship=1", 200, "Ship landed\n"),
    ("GET", "/v1/request-landing", 405, "Not allowed here\n"),
    ("PUT", "/v1/exhaust-port", 503, "deathstar exploded"),
    ("GET", "/v1/", 200, '"Death Star"'),
    ("HEAD", "/v1/", 200, '"Death Star"'),
    ("GET", "/v2/", 404, "droids"),
    ("BREW", "/v1/echo/any", 200, '"method": "BREW"'),
]


@pytest.mark.parametrize(("method", "target", "status", "body"), ANSWERS)
def test_the_deathstar_answers(method: str, target: str, status: int, body: str) -> None:
    response = answer("ds", Request(method, target, (), "10.0.0.1", "HTTP/1.1"))
    assert response.status == status
    assert body in response.body.decode()


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(lambda: HttpConnection("ds"), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def talk(port: int, pieces: Iterable[bytes], answers: int) -> list[ResponseReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    responses = []
    for _ in range(answers):
        response = ResponseReader()
        while not response.complete:
            response.feed(await asyncio.wait_for(reader.read(1), 5))
        responses.append(response)
    writer.close()
    return responses


REQUESTS = encode(Wanted("POST", "/v1/request-landing", body="hello"), "ds") + encode(
    Wanted("POST", "//v1/echo/../x?y=%2F", headers=(("X-Ship", "Tie"),), body="a long message", chunked=True), "ds"
)


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
async def test_requests_may_be_split_anywhere_and_follow_each_other(size: int) -> None:
    pieces = [REQUESTS[n : n + size] for n in range(0, len(REQUESTS), size)]
    async with listening() as port:
        landed, echoed = [response.answer() for response in await talk(port, pieces, 2)]
    assert (landed.status, landed.body) == (200, "Ship landed\n")
    assert landed.header("x-client") == "127.0.0.1"
    assert (echoed.status, echoed.header("x-received")) == (404, "POST //v1/echo/../x?y=%2F")


async def test_an_echo_tells_headers_in_order_and_case() -> None:
    request = Wanted("GET", "/v1/echo", headers=(("X-Ship", "Tie"), ("x-rank", "Lord")), body="x" * 40, chunked=True)
    async with listening() as port:
        (response,) = await talk(port, [encode(request, "ds")], 1)
    echo = json.loads(response.answer().body)
    assert echo["headers"] == [["Host", "ds"], ["X-Ship", "Tie"], ["x-rank", "Lord"], ["Transfer-Encoding", "chunked"]]
    assert (echo["body_length"], echo["version"]) == (40, "HTTP/1.1")


async def test_nonsense_is_answered_with_400_and_the_end() -> None:
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x00\x01 what?\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_http2_with_prior_knowledge() -> None:
    client = h2.connection.H2Connection()
    client.initiate_connection()
    head = [
        (":method", "POST"),
        (":path", "/v1/echo/two"),
        (":scheme", "http"),
        (":authority", "ds"),
        ("x-ship", "tie"),
    ]
    client.send_headers(1, head)
    client.send_data(1, b"hello", end_stream=True)
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(client.data_to_send())
        body, status, ended = b"", b"", False
        while not ended:
            for event in client.receive_data(await asyncio.wait_for(reader.read(65536), 5)):
                match event:
                    case h2.events.ResponseReceived():
                        status = dict(event.headers)[b":status"]
                    case h2.events.DataReceived():
                        body += event.data
                    case h2.events.StreamEnded():
                        ended = True
        writer.close()
    echo = json.loads(body)
    assert (status, echo["version"], echo["target"], echo["body_length"]) == (b"200", "HTTP/2", "/v1/echo/two", 5)
