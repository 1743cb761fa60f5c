"""A gRPC client inside a pod: grpcio in this process, its connection made in the pod's network namespace.

grpcio opens its own sockets, in the namespace of the process. So it is given a Unix socket, and what it says there is
passed on, byte by byte, over a TCP connection that belongs to the pod.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from conformance.expectation import Answer, Reaction
from conformance.scenario import Request
from conformance.wire import Way

READ_SIZE = 1 << 16
NO_ANSWER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


async def call(way: Way, request: Request, authority: str, patience: float) -> Answer:
    """One unary call. The answer's status is the gRPC one."""
    async with _relay(way) as (path, reached):
        options = [("grpc.default_authority", request.host or authority), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
            method = channel.unary_unary(request.path, request_serializer=None, response_deserializer=None)
            asked = method(
                (request.body or "").encode(),
                timeout=patience,
                metadata=[(name.lower(), value) for name, value in request.headers],
            )
            try:
                body = await asked
            except grpc.aio.AioRpcError as error:
                return await _failed(error, asked, reached.is_set())
            headers = await _metadata(asked)
    return Answer(Reaction.ANSWERED, 0, bytes(body).decode("utf-8", "replace"), headers)


async def _failed(error: grpc.aio.AioRpcError, asked: grpc.aio.UnaryUnaryCall, reached: bool) -> Answer:
    code, details = error.code(), error.details() or ""
    if code in NO_ANSWER:
        return Answer(
            Reaction.RESET if reached and code is grpc.StatusCode.UNAVAILABLE else Reaction.TIMEOUT, note=details
        )
    return Answer(Reaction.ANSWERED, code.value[0], details, await _metadata(asked))


async def _metadata(asked: grpc.aio.UnaryUnaryCall) -> tuple[tuple[str, str], ...]:
    received = [*(await asked.initial_metadata() or ()), *(await asked.trailing_metadata() or ())]
    return tuple((str(name), value if isinstance(value, str) else value.decode("latin-1")) for name, value in received)


@asynccontextmanager
async def _relay(way: Way) -> AsyncIterator[tuple[Path, asyncio.Event]]:
    """A Unix socket that leads to the remote address; the event is set once somebody there has accepted."""
    reached = asyncio.Event()
    relays: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.add(asyncio.get_running_loop().create_task(pass_on(reader, writer)))

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await way.stream()
            reached.set()
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, back))
                both.create_task(_pump(there, writer))
        except* OSError:
            pass  # the client sees its connection end, and says so
        finally:
            writer.close()

    with tempfile.TemporaryDirectory(prefix="dfl-rpc-") as folder:
        path = Path(folder) / "s"
        server = await asyncio.start_unix_server(accept, path)
        try:
            yield path, reached
        finally:
            server.close()
            for relay in relays:
                relay.cancel()
            await asyncio.gather(*relays, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """From one to the other, until the one or the other ends."""
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
