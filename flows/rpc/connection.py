"""One client of a server: reads its frames, runs its calls, sends what they say within the windows that it grants."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from flows.rpc.call import Call, Method
from flows.rpc.framing import Code, Headers, Refusal, http_refusal, timeout
from flows.rpc.limits import Allowance, Limits
from flows.rpc.line import Line

log = logging.getLogger("deflector.hubble")
READ_SIZE = 1 << 16
HEADERS_MAX = 1 << 14  # bytes of the headers of one request
BURST = 1 << 16  # bytes that are written to the socket at once
SHARE = 1 << 14  # bytes that a stream sends in its turn while others wait for theirs
LINGER = 0.5  # seconds in which a client may take the last words and go
_IDLE = (PriorityUpdated, RemoteSettingsChanged, StreamReset)


class Connection:
    """`has_room` says whether the server takes one more call. Times are of time.monotonic."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        limits: Limits,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        has_room: Callable[[], bool],
    ) -> None:
        self._methods, self._limits, self._has_room = methods, limits, has_room
        self._reader, self._writer = streams
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADERS_MAX,
            },
        )
        self._h2.decoder.max_header_list_size = HEADERS_MAX
        self._calls: dict[int, tuple[Call, asyncio.Task[None]]] = {}
        self._is_leaving = self._is_told = False
        self._has_sent = False  # anything of an answer since the last ping
        self._line = Line()
        self._done = asyncio.Event()  # set, and made anew, when a call has ended
        connected: socket.socket = self._writer.get_extra_info("socket")
        self.is_local = connected.family == socket.AF_UNIX
        now = time.monotonic()
        self._idle_frames = Allowance(limits.idle_frames, limits.idle_frames_rate, now)
        self.used = now  # when a call last began or ended

    @property
    def calls(self) -> int:
        """How many are open."""
        return len(self._calls)

    async def run(self) -> None:
        """Until the client goes; cancelled: until now."""
        self._h2.initiate_connection()
        self._flush()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._read(tasks)
                for _, task in self._calls.values():
                    task.cancel()
        finally:
            await self._leave()

    def shed(self, reason: str) -> None:
        """End the call that began last."""
        stream = max(self._calls)
        call, task = self._calls.pop(stream)
        call.close(Code.RESOURCE_EXHAUSTED, reason)
        task.cancel()

    def announce_end(self) -> None:
        """Tell the client that no further call is taken; those that are open go on."""
        self._is_leaving = True
        self._say_goodbye(ErrorCodes.NO_ERROR, "the server is stopping")

    async def finished(self) -> None:
        """Wait until no call is open."""
        while self._calls:
            await self._done.wait()

    async def turn_away(self, reason: str) -> None:
        """Serve nothing."""
        self._h2.initiate_connection()
        self._say_goodbye(ErrorCodes.ENHANCE_YOUR_CALM, reason)
        await self._leave()

    # What arrives

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        try:
            while content := await self._reader.read(READ_SIZE):
                if not self._take(content, tasks):
                    return
                await self._drained()
        except OSError:
            pass  # the client has gone without a word: it is no news

    def _take(self, content: bytes, tasks: asyncio.TaskGroup) -> bool:
        """Whether the connection goes on."""
        try:
            for event in self._h2.receive_data(content):
                if not self._obey(event, tasks):
                    return False
                if self._costs(event) and not self._idle_frames.spend(time.monotonic()):
                    self._disconnect(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")
                    return False
        except ProtocolError as error:
            self._h2.clear_outbound_data_buffer()  # a farewell without a reason
            self._disconnect(ErrorCodes(error.error_code), str(error))
            return False
        self._flush()
        self._line.call_next(self._window)
        return True

    def _obey(self, event: Event, tasks: asyncio.TaskGroup) -> bool:
        match event:
            case RequestReceived():
                self._begin(event.stream_id, event.headers, tasks)
            case DataReceived():
                if event.stream_id in self._calls:
                    self._calls[event.stream_id][0].take(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded() if event.stream_id in self._calls:
                self._calls[event.stream_id][0].take_end()
            case StreamReset() if event.stream_id in self._calls:
                _, task = self._calls.pop(event.stream_id)
                task.cancel()
            case ConnectionTerminated():
                return False
        return True

    def _costs(self, event: Event) -> bool:
        """Whether this is work for nothing. Clients measure their bandwidth with pings while they receive answers."""
        if isinstance(event, PingReceived):
            has_sent, self._has_sent = self._has_sent, False
            return not has_sent
        if isinstance(event, DataReceived):
            return not event.data and event.stream_ended is None
        return isinstance(event, _IDLE)

    def _begin(self, stream: int, headers: Iterable[tuple[bytes, bytes]], tasks: asyncio.TaskGroup) -> None:
        if self._is_leaving:
            self.reset(stream, ErrorCodes.REFUSED_STREAM)
            return
        call = Call(_Stream(self, stream), {name.decode("latin-1"): value.decode("latin-1") for name, value in headers})
        if not self._has_room():
            call.close(Code.RESOURCE_EXHAUSTED, f"{self._limits.calls} calls are open: end one, or try again later")
            return
        task = tasks.create_task(self._answer(call))
        self._calls[stream] = call, task
        self.used = time.monotonic()
        task.add_done_callback(lambda _: self._end(stream))  # a task that was cancelled at once has run nothing

    def _end(self, stream: int) -> None:
        self._calls.pop(stream, None)
        self.used = time.monotonic()
        done, self._done = self._done, asyncio.Event()
        done.set()

    async def _answer(self, call: Call) -> None:
        """Run the method of a call, and say how it ended. Never raises but when it is cancelled."""
        try:
            if (refusal := http_refusal(call.headers)) is not None:
                call.close_with(refusal)
                return
            await self._run(call)
            call.close(Code.OK)
        except Refusal as refused:
            call.close(refused.code, str(refused))
        except TimeoutError:
            call.close(Code.DEADLINE_EXCEEDED, "deadline exceeded")
        except OSError:
            pass  # the client has gone
        except asyncio.CancelledError:
            call.close(Code.UNAVAILABLE, "the server is stopping")  # heard unless it is the client who has gone
            raise
        except Exception:  # one call's fault, ours to hear of: the others go on
            log.exception("a call of %s failed", call.headers.get(":path"))
            call.close(Code.INTERNAL, "internal error")

    async def _run(self, call: Call) -> None:
        method = self._methods.get(path := call.headers.get(":path", ""))
        if method is None:
            raise Refusal(Code.UNIMPLEMENTED, f"unknown method {path}")
        async with asyncio.timeout(timeout(call.headers)):
            await method(call)

    # What is sent

    def headers(self, stream: int, headers: Headers, *, end: bool = False) -> None:
        """Send headers, or trailers; a stream that is closed already hears nothing."""
        try:
            self._h2.send_headers(stream, headers, end_stream=end)
        except ProtocolError:
            return
        self._has_sent = True
        self._flush()

    def reset(self, stream: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Take no more of a request."""
        try:
            self._h2.reset_stream(stream, code)
        except ProtocolError:
            return
        self._flush()

    async def send(self, stream: int, content: bytes) -> None:
        """Send bytes of an answer. Raises OSError if the client has gone, Refusal if it takes nothing."""
        try:
            async with asyncio.timeout(self._limits.stall) as patience:
                at = 0
                while at < len(content):
                    if self._window(stream) <= 0:
                        await self._line.turn(stream)
                    if taken := self._write(stream, content, at):
                        patience.reschedule(asyncio.get_running_loop().time() + self._limits.stall)
                        at += taken
                    if self._line.call_next(self._window) and at < len(content):
                        await self._line.turn(stream)
                    await self._writer.drain()
        except TimeoutError:
            if self._writer.transport.get_write_buffer_size() > BURST:
                self._abort()
            raise Refusal(Code.RESOURCE_EXHAUSTED, self._complaint()) from None
        finally:
            self._line.leave(stream)
            self._line.call_next(self._window)

    def _write(self, stream: int, content: bytes, at: int) -> int:
        """Write what the windows and a burst allow of content[at:]; how many bytes that is."""
        size = min(len(content) - at, self._window(stream), SHARE if self._line else BURST)
        most = self._h2.max_outbound_frame_size
        try:
            for begin in range(at, at + size, most):
                self._h2.send_data(stream, content[begin : min(begin + most, at + size)])
                self._has_sent = True
        except ProtocolError as error:
            raise ConnectionResetError(str(error)) from None
        self._flush()
        return max(0, size)

    def _window(self, stream: int) -> int:
        """Bytes that a stream may send now; one whose stream has gone may try, and learn of it."""
        try:
            return self._h2.local_flow_control_window(stream)
        except ProtocolError:
            return 1

    async def _drained(self) -> None:
        """Until the socket has taken what was written. Raises OSError if the client has gone or does not read."""
        if self._writer.transport.get_write_buffer_size() <= BURST:
            return
        try:
            async with asyncio.timeout(self._limits.stall):
                await self._writer.drain()
        except TimeoutError:
            self._abort()
            raise ConnectionAbortedError from None

    def _abort(self) -> None:
        """The client does not read its socket, so it cannot be told."""
        log.warning("disconnected a client of the Hubble API: %s", self._complaint())
        self._writer.transport.abort()

    def _complaint(self) -> str:
        return f"nothing of the answer was taken for {self._limits.stall:g} s"

    def _flush(self) -> None:
        if (frames := self._h2.data_to_send()) and not self._writer.is_closing():
            self._writer.write(frames)

    # The end

    def _disconnect(self, code: ErrorCodes, reason: str) -> None:
        log.warning("disconnected a client of the Hubble API: %s", reason)
        self._say_goodbye(code, reason)

    def _say_goodbye(self, code: ErrorCodes, reason: str) -> None:
        """GOAWAY by hand: after h2's own nothing can be sent, and it has no room for a reason."""
        if self._is_told:
            return
        self._is_told = True
        self._flush()
        if not self._writer.is_closing():
            frame = GoAwayFrame(0, self._h2.highest_inbound_stream_id, code, reason.encode()[:READ_SIZE])
            self._writer.write(frame.serialize())

    async def _leave(self) -> None:
        """Say goodbye, and read on for a while: what is closed with something unread loses its last words."""
        self._say_goodbye(ErrorCodes.NO_ERROR, "")
        try:
            async with asyncio.timeout(LINGER):
                if self._writer.can_write_eof() and not self._writer.is_closing():
                    self._writer.write_eof()
                while await self._reader.read(READ_SIZE):
                    pass
                self._writer.close()
                await self._writer.wait_closed()
        except OSError:  # also when it takes too long
            self._writer.transport.abort()
        finally:
            self._writer.close()


class _Stream:
    """One stream of a connection, for one call."""

    def __init__(self, connection: Connection, stream: int) -> None:
        self._connection, self._stream = connection, stream

    def headers(self, headers: Headers, *, end: bool = False) -> None:
        self._connection.headers(self._stream, headers, end=end)

    def reset(self) -> None:
        self._connection.reset(self._stream)

    async def send(self, content: bytes) -> None:
        await self._connection.send(self._stream, content)
