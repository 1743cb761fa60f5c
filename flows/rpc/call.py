"""One call as its method sees it: messages in, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from flows.rpc.framing import IDENTITY, REQUEST_MAX, Code, Headers, Messages, Refusal, framed, opening, trailers


class Stream(Protocol):
    """Where the answer goes: one stream of a connection. What is said to a caller who has gone is lost."""

    def headers(self, headers: Headers, *, end: bool = False) -> None:
        """Send headers, or trailers."""

    def reset(self) -> None:
        """Take no more of the request."""

    async def send(self, content: bytes) -> None:
        """Send bytes of an answer. Raises OSError if the client has gone, Refusal if it takes nothing."""


class Call:
    """Made by a connection, which gives it what arrives."""

    def __init__(self, stream: Stream, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._stream = stream
        self._incoming = Messages(headers.get("grpc-encoding", IDENTITY))
        self._unread: asyncio.Queue[bytes | Refusal | None] = asyncio.Queue()  # bounded by REQUEST_MAX
        self._unread_bytes = 0
        self._is_open = self._is_complete = self._is_refused = False

    def take(self, content: bytes) -> None:
        """Bytes of the request."""
        if self._is_refused:
            return
        try:
            for message in self._incoming.feed(content):
                self._unread_bytes += len(message) + 1  # also an empty one is there
                self._unread.put_nowait(message)
            if self._unread_bytes > REQUEST_MAX:
                raise Refusal(Code.RESOURCE_EXHAUSTED, f"more than {REQUEST_MAX} bytes wait to be answered")
        except Refusal as refusal:
            self._is_refused = True
            self._unread.put_nowait(refusal)

    def take_end(self) -> None:
        """The request is complete."""
        self._is_complete = True
        if self._is_refused:
            return
        if len(self._incoming):
            self._unread.put_nowait(Refusal(Code.INTERNAL, "the request ends within a message"))
        self._unread.put_nowait(None)

    async def messages(self) -> AsyncIterator[bytes]:
        """What the caller sends. Raises Refusal."""
        while (message := await self._unread.get()) is not None:
            if isinstance(message, Refusal):
                raise message
            self._unread_bytes -= len(message) + 1
            yield message

    async def message(self) -> bytes:
        """The only message of a request. Raises Refusal."""
        async for message in self.messages():
            return message
        raise Refusal(Code.INTERNAL, "the request holds no message")

    def open(self, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Begin the answer; done by `send` where it has not been done."""
        if not self._is_open:
            self._is_open = True
            self._stream.headers([*opening(), *headers])

    async def send(self, messages: Iterable[bytes]) -> None:
        """Send messages, as fast as the caller takes them. Raises OSError or Refusal."""
        self.open()
        await self._stream.send(framed(messages))

    def close(self, code: Code, text: str = "") -> None:
        """End the answer."""
        self.close_with([*([] if self._is_open else opening()), *trailers(code, text)])

    def close_with(self, headers: Headers) -> None:
        """End the answer with these headers. Who is still asking is told to stop (RFC 9113 8.1)."""
        self._stream.headers(headers, end=True)
        if not self._is_complete:
            self._stream.reset()


Method = Callable[[Call], Awaitable[None]]
