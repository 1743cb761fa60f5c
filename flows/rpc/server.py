"""A gRPC server in the event loop of its caller: calls are coroutines, and what they send leaves in large frames.

grpc.aio hands every message to another thread and back and makes a system call of it: 60 to 100 us of CPU for each,
which is most of what a follower of flows costs. HTTP/2 allows as many messages in a frame as fit: 2 to 3 us for each.
No compression.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from flows.rpc.call import Method
from flows.rpc.connection import Connection
from flows.rpc.limits import Limits
from flows.rpc.tls import Held, ServerTls, secured

UNIX = "unix:"
BACKLOG = 100  # connections that wait to be accepted
# A client whose machine has gone says nothing: seconds until it is asked, between questions, and how many.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class Server:
    """Serves methods, each by its full path: /package.Service/Method."""

    def __init__(self, methods: Mapping[str, Method], limits: Limits | None = None) -> None:
        self._methods, self._limits = dict(methods), limits or Limits()
        self._listeners: list[asyncio.Server] = []
        self._sockets: list[tuple[Path, int | None]] = []  # and their inodes
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._greeting: dict[asyncio.Task[None], None] = {}  # connections in their handshake, the oldest first
        self._is_stopping = False

    @property
    def ports(self) -> list[int]:
        """The TCP ports that it listens on, in the order of its addresses."""
        names = [one.getsockname() for listener in self._listeners for one in listener.sockets[:1]]
        return [name[1] for name in names if isinstance(name, tuple)]

    @property
    def connections(self) -> int:
        """Clients that are served."""
        return len(self._connections)

    @property
    def calls(self) -> int:
        """Calls that are open."""
        return sum(connection.calls for connection in self._connections.values())

    async def listen(self, address: str, tls: ServerTls | None = None) -> None:
        """Accept connections at `unix:///path`, always without TLS, or `host:port`. Raises OSError or ValueError."""
        if address.startswith(UNIX):
            path = Path(address.removeprefix(UNIX).replace("///", "/", 1))
            bound = _unix_socket(path)
            self._sockets.append((path, _inode(path)))
            self._listeners.append(await asyncio.start_unix_server(self._accept, sock=bound, backlog=BACKLOG))
        else:
            host, _, port = address.rpartition(":")
            host = host.removeprefix("[").removesuffix("]")
            loop, callback = asyncio.get_running_loop(), self._accept if tls is None else partial(self._greet, tls)
            kind = asyncio.StreamReaderProtocol if tls is None else Held
            self._listeners.append(
                await loop.create_server(
                    lambda: kind(asyncio.StreamReader(), callback), host or None, int(port), backlog=BACKLOG
                )
            )

    async def stop(self, grace: float | None) -> None:
        """Accept no more; after `grace` seconds (None: at once) end what is still open."""
        self._is_stopping = True
        for listener in self._listeners:
            listener.close()
        for path, inode in self._sockets:
            if _inode(path) == inode:  # it is not that of a server that came after us
                path.unlink(missing_ok=True)
        for connection in self._connections.values():
            connection.announce_end()
        try:
            async with asyncio.timeout(grace or 0):
                for connection in list(self._connections.values()):
                    await connection.finished()
        except TimeoutError:
            pass  # what is open now has had its time
        left = list(self._connections)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _has_room(self, asking: Connection) -> bool:
        """Whether one more call may begin. Where all are taken, one of whoever has the most makes room for who has
        fewer: a client cannot keep others out by asking for much."""
        alike = [one for one in self._connections.values() if one.is_local is asking.is_local]
        if sum(one.calls for one in alike) < self._limits.calls:
            return True
        busiest = max(alike, key=lambda one: one.calls, default=asking)
        if busiest.calls <= asking.calls + 1:
            return False
        busiest.shed(f"others need room: {busiest.calls} calls of this client are open")
        return True

    async def _greet(self, tls: ServerTls, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The handshake first. Who does not come through it is no client, and there are not many at a time: who has
        been at it for longest gives way, so that nobody keeps others out by doing nothing."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._greeting) >= self._limits.connections:
            slowest = next(iter(self._greeting))
            del self._greeting[slowest]
            slowest.cancel()
        self._greeting[task] = None
        try:
            streams = await secured(writer.transport, tls.context())
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            if task in self._greeting:
                raise  # not by who came after it
            return
        finally:
            self._greeting.pop(task, None)
        await self._accept(*streams)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        _keep_alive(writer)
        connection = Connection(self._methods, self._limits, (reader, writer), lambda: self._has_room(connection))
        try:
            if self._is_stopping:
                await connection.turn_away("the server is stopping")
                return
            if not self._make_room(connection):
                await connection.turn_away(f"{self._limits.connections} clients are connected")
                return
            self._connections[task] = connection
            await connection.run()
        except asyncio.CancelledError:
            pass  # by `stop` or `_make_room`: asyncio would report it as a failure of this callback
        finally:
            self._connections.pop(task, None)

    def _make_room(self, coming: Connection) -> bool:
        """Whether one more connection may come; the one without calls that has been of no use for longest gives way."""
        alike = [one for one in self._connections.items() if one[1].is_local is coming.is_local]
        if len(alike) < self._limits.connections:
            return True
        unused = [(connection.used, task) for task, connection in alike if not connection.calls]
        if not unused:
            return False
        _, task = min(unused, key=lambda one: one[0])
        del self._connections[task]
        task.cancel()
        return True


def _unix_socket(path: Path) -> socket.socket:
    """A bound socket, for its owner only. A file at which nobody listens any more is replaced."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left_behind(path):
            path.unlink()
        made.bind(str(path))
        os.chmod(path, 0o600)
    except OSError:
        made.close()
        raise
    return made


def _is_left_behind(path: Path) -> bool:
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    connected: socket.socket = writer.get_extra_info("socket")
    if connected.family != socket.AF_UNIX:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
