"""Where the server listens, how many it lets in, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import grpc
import grpc.aio
import pytest
from h2.errors import ErrorCodes
from h2.events import ResponseReceived
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, RstStreamFrame

from flows.rpc.call import Call
from flows.rpc.framing import Code, Refusal, framed
from flows.rpc.server import Server
from tests.flows.rpc.raw import BOUND, connected, echo, patient, serving

METHODS = {"/t/Echo": echo, "/t/Patient": patient}


async def asked(path: Path) -> str:
    """What somebody is told who comes and asks."""
    async with connected(path) as client:
        return (await client.status(client.ask("/t/Echo")))[0]


async def test_a_socket_is_for_its_owner_and_goes_with_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (_, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await asked(path) == "0"
    assert not path.exists()


async def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "rpc.sock"))
    async with serving(tmp_path, METHODS) as (_, path):
        assert await asked(path) == "0"


async def test_a_socket_that_is_served_is_not_taken_away(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (_, path):
        other = Server(METHODS)
        with pytest.raises(OSError, match="in use"):
            await other.listen(f"unix://{path}")
        await other.stop(None)
        assert await asked(path) == "0"


async def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "rpc.sock").write_text("precious")
    with pytest.raises(OSError, match="in use"):
        await Server(METHODS).listen(f"unix://{tmp_path}/rpc.sock")
    assert (tmp_path / "rpc.sock").read_text() == "precious"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "", "unix:///nowhere/x.sock"])
async def test_addresses_that_cannot_be(address: str) -> None:
    with pytest.raises((OSError, ValueError, OverflowError)):
        await Server(METHODS).listen(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_tcp(host: str) -> None:
    with socket.create_server((host.strip("[]"), 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        address = f"{host}:{free.getsockname()[1]}"
    server = Server(METHODS)
    await server.listen(address)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            assert await channel.unary_unary("/t/Echo")(b"hello") == b"hello"
    finally:
        await server.stop(None)


async def test_the_unused_connection_gives_way_to_a_new_one(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, connections=2) as (_, path), connected(path) as busy, connected(path) as idle:
        busy.ask("/t/Patient")
        await busy.until(ResponseReceived)
        assert (await idle.status(idle.ask("/t/Echo")))[0] == "0"
        assert await asked(path) == "0"
        assert (await idle.farewell())[0] == ErrorCodes.NO_ERROR


async def test_no_more_connections_than_allowed(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, connections=1) as (_, path), connected(path) as busy:
        busy.ask("/t/Patient")
        await busy.until(ResponseReceived)
        async with connected(path) as late:
            assert await late.farewell() == (ErrorCodes.ENHANCE_YOUR_CALM, "1 clients are connected")


async def test_the_end_is_announced_and_calls_have_time_to_finish(tmp_path: Path) -> None:
    finishing = asyncio.Event()

    async def finish(call: Call) -> None:
        call.open()
        await finishing.wait()
        await call.send([b"done"])

    methods = METHODS | {"/t/Finish": finish}
    async with serving(tmp_path, methods) as (server, path), connected(path) as client, asyncio.TaskGroup() as tasks:
        ending, staying = client.ask("/t/Finish"), client.ask("/t/Patient")
        await client.until(ResponseReceived, lambda event: event.stream_id == staying)
        stopping = tasks.create_task(server.stop(0.3))
        async with asyncio.timeout(BOUND):
            farewell = frames(await client.reader.read(1 << 16))
        late = client.ask("/t/Echo")
        await client.writer.drain()
        async with asyncio.timeout(BOUND):
            refused = frames(await client.reader.read(1 << 16))
        finishing.set()
        await stopping
        async with asyncio.timeout(BOUND):
            rest = frames(await client.reader.read())
    assert [type(frame) for frame in farewell] == [GoAwayFrame]
    assert [(frame.stream_id, frame.error_code) for frame in refused if isinstance(frame, RstStreamFrame)] == [
        (late, ErrorCodes.REFUSED_STREAM)
    ]
    assert [(frame.stream_id, frame.data) for frame in rest if isinstance(frame, DataFrame)] == [
        (ending, framed([b"done"]))
    ]


def frames(content: bytes) -> list[Frame]:
    """What was said: h2 takes nothing in after GOAWAY, as opposed to gRPC clients."""
    found = []
    while content:
        frame, length = Frame.parse_frame_header(memoryview(content[:9]))
        frame.parse_body(memoryview(content[9 : 9 + length]))
        found.append(frame)
        content = content[9 + length :]
    return found


async def test_who_stays_to_the_end_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (server, path), grpc.aio.insecure_channel(f"unix://{path}") as channel:
        call = channel.unary_stream("/t/Patient")(b"")
        await call.initial_metadata()
        await server.stop(0.05)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "the server is stopping"


async def test_grpc_clients_read_reasons_as_they_were_written(tmp_path: Path) -> None:
    reason = "100% of the Deathstär is\nbroken, 'so' \"to\" say"

    async def refuse(call: Call) -> None:
        raise Refusal(Code.INVALID_ARGUMENT, reason)

    async with serving(tmp_path, {"/t/Refuse": refuse}) as (_, path):
        with grpc.insecure_channel(f"unix://{path}") as channel:
            for late in (False, True):
                with pytest.raises(grpc.RpcError) as refused:
                    await asyncio.to_thread(channel.unary_unary("/t/Refuse"), b"x" * (9 if late else 0), timeout=BOUND)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
                assert refused.value.details() == reason  # type: ignore[attr-defined]


async def test_grpc_clients_and_large_requests_many_calls_and_compression(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (_, path), grpc.aio.insecure_channel(f"unix://{path}") as channel:
        ask = channel.unary_unary("/t/Echo")
        assert await ask(b"x" * 120_000, timeout=BOUND) == b"x" * 120_000
        answers = await asyncio.gather(*(ask(b"%d" % number, timeout=BOUND) for number in range(250)))
        assert answers == [b"%d" % number for number in range(250)]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(b"x" * 10_000, compression=grpc.Compression.Gzip, timeout=BOUND)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        call = channel.stream_stream("/t/Echo")()
        for number in range(5):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
