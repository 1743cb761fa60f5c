"""One client of the server: what it may do, and how it is told that it may not."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, PingAckReceived, ResponseReceived, StreamReset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.rpc.call import Call
from flows.rpc.framing import REQUEST_MAX, framed
from tests.flows.rpc.raw import BOUND, HEADERS, Raw, connected, echo, endless, patient, serving

METHODS = {"/t/Echo": echo, "/t/Endless": endless, "/t/Patient": patient}
WINDOW = 65535  # what HTTP/2 grants at first


async def test_messages_go_there_and_back(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (_, path), connected(path) as client:
        stream = client.ask("/t/Echo", framed([b"a", b"", b"b" * 9000]))
        assert await client.status(stream) == ("0", "")
        assert client.received(stream) == 3 * 5 + 9001
        begun = await client.until(ResponseReceived)
        assert dict(begun.headers or ())["content-type"] == "application/grpc"


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/t/Nothing", {}, framed([b"x"]), ("12", "unknown method /t/Nothing")),
        ("/t/Echo", {"method": "GET"}, b"", ("http 405", "")),
        ("/t/Echo", {"content_type": "text/plain"}, b"", ("http 415", "")),
        ("/t/Echo", {"grpc_timeout": "soon"}, b"", ("13", "grpc-timeout 'soon' is not a number and a unit")),
        ("/t/Patient", {"grpc_timeout": "10m"}, b"", ("4", "deadline exceeded")),
        ("/t/Patient", {"grpc_timeout": "0n"}, b"", ("4", "deadline exceeded")),
        ("/t/Endless", {}, b"", ("13", "the request holds no message")),
        ("/t/Echo", {}, b"\0\0\0\0\5abc", ("13", "the request ends within a message")),
        ("/t/Echo", {}, b"\0\0\0", ("13", "the request ends within a message")),
        (
            *("/t/Echo", {"grpc_encoding": "gzip"}, b"\1\0\0\0\1x"),
            ("12", "messages compressed by gzip are not understood here"),
        ),
        ("/t/Echo", {}, b"\0\0\2\0\1", ("8", f"a message of {REQUEST_MAX + 1} bytes is more than {REQUEST_MAX}")),
    ],
)
async def test_calls_that_fail(
    tmp_path: Path, path: str, headers: dict[str, str], body: bytes, status: tuple[str, str]
) -> None:
    async with serving(tmp_path, METHODS) as (_, socket), connected(socket) as client:
        assert await client.status(client.ask(path, body, **headers)) == status
        assert (await client.status(client.ask("/t/Echo")))[0] == "0"  # nobody else is hurt


async def test_headers_that_are_no_text(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (_, path), connected(path) as client:
        client.h2.config.header_encoding = None
        stream = client.ask("/t/Echo", x="\udcff".encode(errors="surrogateescape").decode("latin-1"))
        client.h2.config.header_encoding = "utf-8"
        assert (await client.status(stream))[0] == "0"


async def test_a_fault_of_ours_ends_one_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def faulty(call: Call) -> None:
        raise KeyError("x")

    async with serving(tmp_path, METHODS | {"/t/Faulty": faulty}) as (_, path), connected(path) as client:
        with caplog.at_level(logging.ERROR, "deflector.hubble"):
            assert await client.status(client.ask("/t/Faulty")) == ("13", "internal error")
        assert "a call of /t/Faulty failed" in caplog.text
        assert (await client.status(client.ask("/t/Echo")))[0] == "0"


async def test_who_is_refused_while_still_asking_is_told_to_stop(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (_, path), connected(path) as client:
        stream = client.ask("/t/Nothing", end=False)
        assert (await client.status(stream))[0] == "12"
        reset = await client.until(StreamReset)
        assert (reset.stream_id, reset.error_code) == (stream, ErrorCodes.NO_ERROR)


async def test_a_window_is_never_overdrawn_and_a_slow_reader_holds_up_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (_, path), connected(path) as client:
        client.grant(WINDOW)  # to the whole connection, so that another stream has something left
        slow = client.ask("/t/Endless")
        await client.until(DataReceived, lambda event: client.received(slow) == WINDOW)
        for _ in range(3):
            quick = client.ask("/t/Echo", framed([b"y" * 10000]))
            assert (await client.status(quick))[0] == "0"
        assert client.received(slow) == WINDOW
        client.grant(1, slow)
        await client.until(DataReceived, lambda event: client.received(slow) == WINDOW + 1)


async def test_streams_that_want_the_same_window_share_it(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS) as (_, path), connected(path) as client:
        streams = [client.ask("/t/Endless") for _ in range(3)]
        for stream in streams:
            client.grant(1 << 20, stream)
        await client.until(DataReceived, lambda event: sum(map(client.received, streams)) == WINDOW)
        for _ in range(20):
            before = sum(map(client.received, streams))
            client.grant(WINDOW)
            await client.until(
                DataReceived, lambda event, before=before: sum(map(client.received, streams)) == before + WINDOW
            )
        shares = [client.received(stream) for stream in streams]
        assert min(shares) > max(shares) / 3


async def test_who_takes_nothing_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, stall=0.2) as (_, path), connected(path) as client:
        stream = client.ask("/t/Endless")
        assert await client.status(stream) == ("8", "nothing of the answer was taken for 0.2 s")
        assert client.received(stream) == WINDOW


async def test_who_does_not_read_is_disconnected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "deflector.hubble"):
        async with serving(tmp_path, METHODS, stall=0.2) as (_, path), connected(path) as client:
            client.grant(1 << 30)
            client.grant(1 << 30, client.ask("/t/Endless"))
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(BOUND):
                while "disconnected" not in caplog.text:
                    await asyncio.sleep(0.01)
            assert "nothing of the answer was taken for 0.2 s" in caplog.text


async def test_more_streams_than_allowed(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, streams=5) as (_, path), connected(path) as client:
        while client.h2.remote_settings.max_concurrent_streams != 5:
            await client.hear()
        client.h2.remote_settings.max_concurrent_streams = 1000  # a client that does not care
        client.h2.remote_settings.acknowledge()
        for _ in range(6):
            client.ask("/t/Patient")
        assert await client.farewell() == (ErrorCodes.PROTOCOL_ERROR, "Max inbound streams is 5, 5 open")


async def test_more_calls_than_allowed(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, calls=2) as (_, path), connected(path) as one, connected(path) as other:
        first = one.ask("/t/Patient")
        await one.until(ResponseReceived)
        other.ask("/t/Patient")
        await other.until(ResponseReceived)
        refused = "2 calls are open: end one, or try again later"
        assert await other.status(other.ask("/t/Echo")) == ("8", refused)
        one.h2.reset_stream(first)
        one.flush()
        stream = one.ask("/t/Echo")
        assert (await one.status(stream))[0] == "0"


async def test_who_has_the_most_calls_makes_room(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, calls=6) as (_, path), connected(path) as greedy, connected(path) as decent:
        held = [greedy.ask("/t/Patient") for _ in range(6)]
        for stream in held:
            await greedy.until(ResponseReceived, lambda event, stream=stream: event.stream_id == stream)
        assert await decent.status(decent.ask("/t/Echo")) == ("0", "")
        told = "others need room: 6 calls of this client are open"
        assert await greedy.status(held[-1]) == ("8", told)
        more = [decent.ask("/t/Patient") for _ in range(3)]
        for stream in more:
            await decent.until(ResponseReceived, lambda event, stream=stream: event.stream_id == stream)
        refused = "6 calls are open: end one, or try again later"
        assert await decent.status(decent.ask("/t/Echo")) == ("8", refused)  # both have three
        assert await greedy.status(greedy.ask("/t/Echo")) == ("8", refused)


async def test_nobody_from_elsewhere_shuts_out_who_comes_by_the_unix_socket(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server, path = await stack.enter_async_context(serving(tmp_path, METHODS, connections=3, calls=3))
        await server.listen("127.0.0.1:0")
        for _ in range(3):
            writer = (reader_writer := await asyncio.open_connection("127.0.0.1", server.ports[0]))[1]
            stack.callback(writer.close)
            client = Raw(*reader_writer)
            client.ask("/t/Patient")
            await client.until(ResponseReceived)
        turned_away = Raw(*await asyncio.open_connection("127.0.0.1", server.ports[0]))
        stack.callback(turned_away.writer.close)
        assert await turned_away.farewell() == (ErrorCodes.ENHANCE_YOUR_CALM, "3 clients are connected")
        local = await stack.enter_async_context(connected(path))
        assert await local.status(local.ask("/t/Echo")) == ("0", "")


async def test_what_is_reset_before_it_began_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path, METHODS, calls=3) as (_, path), connected(path) as client:
        for _ in range(50):
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, list(({":path": "/t/Patient"} | HEADERS).items()))
            client.h2.reset_stream(stream)
        client.flush()  # all in one piece
        client.h2.ping(b"all done")
        client.flush()
        await client.until(PingAckReceived)
        assert (await client.status(client.ask("/t/Echo")))[0] == "0"


@pytest.mark.parametrize("what", ["ping", "settings", "reset"])
async def test_frames_that_ask_for_nothing(tmp_path: Path, what: str) -> None:
    async with (
        serving(tmp_path, METHODS, idle_frames=20, idle_frames_rate=1.0) as (_, path),
        connected(path) as client,
    ):
        for number in range(40):
            if what == "ping":
                client.h2.ping(b"%08d" % number)
            elif what == "settings":
                client.h2.update_settings({4: 1000 + number})
            else:
                client.h2.reset_stream(client.ask("/t/Patient", end=False))
        client.flush()
        assert await client.farewell() == (ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")


async def test_a_ping_after_each_answer_measures_the_line(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, METHODS, idle_frames=5, idle_frames_rate=0.0) as (_, path),
        connected(path) as client,
    ):
        for number in range(20):
            assert (await client.status(client.ask("/t/Echo")))[0] == "0"
            client.h2.ping(b"%08d" % number)
            client.flush()
            await client.until(PingAckReceived, lambda event, number=number: event.ping_data == b"%08d" % number)


async def test_what_waits_to_be_read_is_bounded(tmp_path: Path) -> None:
    async def reads(call: Call) -> None:
        await went.wait()
        async for _ in call.messages():
            pass

    went = asyncio.Event()
    async with serving(tmp_path, {"/t/Reads": reads}) as (_, path), connected(path) as client:
        stream = client.ask("/t/Reads", end=False)
        for _ in range(REQUEST_MAX // 10000 + 1):
            while client.h2.local_flow_control_window(stream) < 10005:
                await client.hear()
            client.h2.send_data(stream, framed([b"x" * 10000]))
            client.flush()
        client.h2.ping(b"all sent")
        client.flush()
        await client.until(PingAckReceived)
        went.set()
        assert await client.status(stream) == ("8", f"more than {REQUEST_MAX} bytes wait to be answered")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_client_sends_others_are_served(tmp_path: Path, data: st.DataObject) -> None:
    """Random frames after a proper beginning: known and unknown kinds, any flags, any stream, any content."""
    kinds = st.one_of(st.integers(0, 10), st.integers(0, 255))
    frames = data.draw(
        st.lists(st.tuples(kinds, st.integers(0, 255), st.integers(0, 9), st.binary(max_size=60)), max_size=12)
    )
    noise = data.draw(st.binary(max_size=60))
    greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    content = b"".join(
        len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body
        for kind, flags, stream, body in frames
    )

    async def story() -> None:
        async with serving(tmp_path, METHODS) as (_, path):
            for sent in (greeting + content + noise, noise):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(sent)
                writer.write_eof()
                async with asyncio.timeout(BOUND):
                    while await reader.read(1 << 16):
                        pass
                writer.close()
            async with connected(path) as client:
                assert (await client.status(client.ask("/t/Echo")))[0] == "0"

    asyncio.run(story())
