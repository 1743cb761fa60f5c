"""Several workers of one proxy: the first is told by ADS and tells the others, which follow it over a pair of sockets.

A worker that cannot do what it is told refuses for all of them: those that have done it already go back. A follower
whose leader has gone ends, and so does a leader that loses a follower: whoever started it starts all anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from agent.proxies.inside.judging import Judging
from agent.proxies.supervised import STOP_TIMEOUT, ProcessId, ended
from xds import last
from xds.client import Told

_SIZE: Final = struct.Struct(">I")


class Follower:
    """One more worker, as its leader sees it."""

    def __init__(self, command: Sequence[str]) -> None:
        """`command` is that of the leader; --follow and the number of a descriptor are put behind it."""
        mine, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "agent", *command, "--follow", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = mine
        self._wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def apply(self, told: Told) -> None:
        """ValueError where it refuses, or is no more."""
        if self._wire is None:
            self._wire = await asyncio.open_connection(sock=self._socket)
        reader, writer = self._wire
        _write(writer, last.packed(told))
        try:
            refused = await _read(reader)
        except (asyncio.IncompleteReadError, OSError):
            raise ValueError("a worker has ended") from None
        if refused:
            raise ValueError(refused.decode())

    async def ended(self) -> None:
        """Wait until it ends."""
        process = ProcessId.of(self._process.pid)
        if process is not None:
            await ended(process)

    def stop(self) -> None:
        """It ends when nobody leads it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Team:
    """A judge and its followers, which do the same."""

    def __init__(self, judging: Judging, followers: Sequence[Follower]) -> None:
        self._judging = judging
        self._followers = followers
        self._told = Told()

    async def apply(self, wanted: Told) -> None:
        """All of them, or none. ValueError where one cannot."""
        self._judging.apply(wanted)
        done: list[Follower] = []
        try:
            for follower in self._followers:
                await follower.apply(wanted)
                done.append(follower)
        except ValueError:
            self._judging.apply(self._told)
            for follower in done:
                await follower.apply(self._told)
            raise
        self._told = wanted


async def follow(judging: Judging, descriptor: int) -> None:
    """Do what the leader at the other end says, until it has gone."""
    leader = socket.socket(fileno=descriptor)
    reader, writer = await asyncio.open_connection(sock=leader)
    while True:
        try:
            told = last.unpacked(await _read(reader))
        except (asyncio.IncompleteReadError, OSError):
            return
        try:
            judging.apply(told)
        except ValueError as error:
            _write(writer, str(error).encode())
        else:
            _write(writer, b"")


def _write(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(_SIZE.pack(len(content)) + content)


async def _read(reader: asyncio.StreamReader) -> bytes:
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    return await reader.readexactly(size)
