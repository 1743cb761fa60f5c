"""Passes TCP connections on. A broker that knows itself by a loopback address only is heard at any address of its pod,
and its clients find it, wherever it is, at the address by which it knows itself. Opens the sockets that it is told to.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence

Address = tuple[str, int]
PIECE = 1 << 16  # bytes that are passed on at once
START = 5.0  # seconds until it listens


class Relay:
    """Passes on to one target. `ports` are those from which it has connected."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self.ports: list[int] = []
        self._running: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold of them

    async def listen(self, addresses: Sequence[Address]) -> list[asyncio.Server]:
        """Raises OSError."""
        return [await asyncio.start_server(self._begin, host, port) for host, port in addresses]

    def listen_in_background(self, address: Address) -> None:
        """The same in a thread of its own, until the process ends. Raises OSError."""
        ready = threading.Event()
        failed: list[OSError] = []

        async def main() -> None:
            try:
                servers = await self.listen([address])
            except OSError as error:
                failed.append(error)
                return
            finally:
                ready.set()
            await servers[0].serve_forever()

        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        if not ready.wait(START):
            raise OSError(f"the relay at {address} does not listen")
        if failed:
            raise failed[0]

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._pass_on(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, there))
                tasks.create_task(_pump(there_reader, writer))
        except* OSError:
            pass  # one side is gone: so is the other
        finally:
            writer.transport.abort()
            there.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The port is known before anything is sent: perhaps nothing will ever be answered."""
        is_v6 = ":" in self._target[0]
        own = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
        try:
            own.setblocking(False)
            own.bind(("::" if is_v6 else "0.0.0.0", 0))
            self.ports.append(own.getsockname()[1])
            await asyncio.get_running_loop().sock_connect(own, self._target)
            return await asyncio.open_connection(sock=own)
        except BaseException:
            own.close()
            raise


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
