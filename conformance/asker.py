"""The clients of a pod, inside that pod: reads what to ask from standard input and writes what came of it.

    kubectl exec -i POD -- python -m conformance.asker

Uses the network namespace that it is in. Ends when its input does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from conformance import plain
from conformance.asker_lines import (
    LINE_MAX,
    VERSION,
    Garbled,
    Message,
    decode,
    encode,
    from_answer,
    to_address,
    to_attempt,
    to_request,
)
from conformance.http1 import LiveConnection
from conformance.probes import PATIENCE


class Asker:
    """Does what it is told, all at once; live connections stay open until they are closed."""

    def __init__(self, write: Any) -> None:
        self._write = write
        self._connections: dict[str, LiveConnection] = {}

    async def hear(self, message: Message) -> None:
        """Do what one line says, and say what came of it."""
        number = message.get("id")
        try:
            self._write({"id": number, **await self._did(message)})
        except (Garbled, KeyError) as error:
            self._write({"id": number, "failed": f"not understood: {error}"})

    def close(self, name: str) -> None:
        """Close a live connection, if it is there."""
        connection = self._connections.pop(name, None)
        if connection is not None:
            connection.close()

    async def _did(self, message: Message) -> Message:
        if "attempt" in message:
            return {"answer": from_answer(await plain.ask(to_attempt(message["attempt"])))}
        if "over" in message:
            request = to_request(message["request"])
            answer = await self._connections[message["over"]].ask(request, float(message["patience"]))
            return {"answer": from_answer(answer)}
        return await self._open(str(message["open"]), message)

    async def _open(self, name: str, message: Message) -> Message:
        local, remote = to_address(message["local"]), to_address(message["remote"])
        try:
            async with asyncio.timeout(PATIENCE):
                connection = await LiveConnection.open(plain.HERE, local, remote)
        except TimeoutError:
            return {"failed": f"no connection within {PATIENCE:g} s"}
        except OSError as error:
            return {"failed": error.strerror or str(error)}
        self._connections[name] = connection
        return {"port": connection.client_port}


async def listen() -> None:
    """Serve standard input until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def write(message: Message) -> None:
        sys.stdout.buffer.write(encode(message))
        sys.stdout.buffer.flush()

    asker = Asker(write)
    write({"ready": VERSION})
    under_way: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        message = decode(line)
        if "close" in message:
            asker.close(str(message["close"]))
            continue
        task = loop.create_task(asker.hear(message))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    for task in under_way:
        task.cancel()


def main() -> None:
    try:
        asyncio.run(listen())
    except (Garbled, BrokenPipeError, KeyboardInterrupt) as error:
        sys.exit(f"asker: {error or type(error).__name__}")


if __name__ == "__main__":
    main()
