"""The asker as a process of its own: it makes every kind of attempt from where it is, and keeps connections open."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.asker_lines import (
    Garbled,
    decode,
    encode,
    from_answer,
    from_attempt,
    from_request,
    to_answer,
    to_attempt,
)
from conformance.expectation import Answer, Reaction
from conformance.plain import Attempt
from conformance.scenario import Request

LOOPBACK = "127.0.0.1"


class Told:
    """An asker that we talk to over its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, **message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(encode(message))
        await self._process.stdin.drain()

    async def hear(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(10):
            return decode(await self._process.stdout.readline())

    async def attempt(self, attempt: Attempt) -> Answer:
        await self.say(id=1, attempt=from_attempt(attempt))
        return to_answer((await self.hear())["answer"])


@asynccontextmanager
async def asking() -> AsyncIterator[Told]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "conformance.asker", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    told = Told(process)
    assert await told.hear() == {"ready": 1}
    yield told
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(10):
        assert await process.wait() == 0


@asynccontextmanager
async def deathstar(port: int) -> AsyncIterator[None]:
    argv = [sys.executable, "-m", "conformance.deathstar", "--pod", "ds", "--port", str(port), "--udp", str(port)]
    server = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        assert await server.stdout.readline() == b"ready\n"
        yield
    finally:
        server.terminate()
        await server.wait()


def http(version: str, **more: Any) -> Request:
    return Request("POST", "/v1/echo/body", version, **more)


@pytest.mark.privileged  # the server answers SCTP on a raw socket
async def test_every_kind_of_attempt() -> None:
    there = (LOOPBACK, 18741)

    def attempt(protocol: str, port: int, request: Request | None = None) -> Attempt:
        return Attempt(protocol, (LOOPBACK, port), there, 2.0, request)

    async with deathstar(there[1]), asking() as told:
        for version in ("1.1", "2"):
            plain = await told.attempt(attempt("tcp", 0, http(version, body="bothans")))
            assert (plain.status, '"body_length": 7' in plain.body) == (200, True)
            assert plain.header("x-received") == "POST /v1/echo/body"
            chunked = await told.attempt(attempt("tcp", 0, http(version, body="bothans", chunked=True)))
            assert '"body_length": 7' in chunked.body
            head = await told.attempt(attempt("tcp", 0, Request("HEAD", "/v1/", version)))
            assert (head.status, head.body) == (200, "")
        call = await told.attempt(
            attempt("tcp", 0, Request("POST", "/empire.DeathStar/RequestLanding", "grpc", body="tie"))
        )
        assert (call.reaction, call.status) == (Reaction.ANSWERED, 0)
        socket = await told.attempt(attempt("tcp", 0, Request("GET", "/v1/feed", "websocket", body="tie")))
        assert (socket.status, socket.body) == (101, "tie")
        for protocol in ("udp", "sctp", "icmp"):
            assert (await told.attempt(attempt(protocol, 18762))).reaction is Reaction.ANSWERED, protocol
        nobody = Attempt("tcp", (LOOPBACK, 0), (LOOPBACK, 18799), 2.0, Request())
        assert (await told.attempt(nobody)).reaction is Reaction.REFUSED


@pytest.mark.privileged
async def test_a_connection_stays_open_until_it_is_closed() -> None:
    there = (LOOPBACK, 18742)
    request = from_request(Request("GET", "/v1/echo"))
    async with deathstar(there[1]), asking() as told:
        await told.say(id=1, open="line", local=(LOOPBACK, 0), remote=there)
        assert (await told.hear())["port"] > 0
        for number in (2, 3):
            await told.say(id=number, over="line", request=request, patience=2.0)
            heard = await told.hear()
            assert (heard["id"], to_answer(heard["answer"]).status) == (number, 200)
        await told.say(close="line")
        await told.say(id=4, over="line", request=request, patience=2.0)
        assert "line" in (await told.hear())["failed"]
        await told.say(id=5, open="line", local=(LOOPBACK, 0), remote=(LOOPBACK, 18799))
        assert "failed" in await told.hear()


TEXT = st.text(max_size=20)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
REQUESTS = st.builds(Request, TEXT, TEXT, headers=PAIRS, body=st.none() | TEXT, chunked=st.booleans(), raw=TEXT)
ADDRESSES = st.tuples(TEXT, st.integers(0, 65535))


@given(st.builds(Attempt, TEXT, ADDRESSES, ADDRESSES, st.floats(0, 9), st.none() | REQUESTS, st.integers(-1, 255)))
def test_attempts_arrive_as_they_were_sent(attempt: Attempt) -> None:
    assert to_attempt(decode(encode(from_attempt(attempt)))) == attempt


@given(st.builds(Answer, st.sampled_from(Reaction), st.integers(0, 999), TEXT, PAIRS, TEXT))
def test_answers_arrive_as_they_were_sent(answer: Answer) -> None:
    assert to_answer(decode(encode(from_answer(answer)))) == answer


@given(
    st.binary(max_size=60) | st.recursive(st.none() | st.integers() | TEXT, st.lists).map(lambda v: encode({"a": v}))
)
def test_anything_else_is_garbled(line: bytes) -> None:
    with pytest.raises(Garbled):
        to_attempt(decode(line))
