"""Pods that ask without pause on live connections while policy changes under them, and remember every answer."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from conformance import netns
from conformance.galaxy import Galaxy
from tests.agent.galaxy import DROPPED, Request

PATIENCE = 0.5  # seconds for an answer; then the connection is given up
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}).*?content-length: *(\d+).*?\r\n\r\n", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """`status` is DROPPED where none came; monotonic seconds; `fresh`: the first on its connection."""

    request: Request
    status: str
    sent: float
    came: float
    fresh: bool


@dataclass
class Traveller:
    """One thread with one connection at a time."""

    made: Galaxy
    who: str
    to: str
    requests: Sequence[Request]
    answers: list[Answer] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _socket: socket.socket | None = None

    def run(self) -> None:
        """Ask one after the other until the end."""
        while not self._over.is_set():
            for request in self.requests:
                fresh = self._socket is None
                sent = time.monotonic()
                status = self._ask(request)
                self.answers.append(Answer(request, status, sent, time.monotonic(), fresh))
        self._hang_up()

    def stop(self) -> None:
        self._over.set()

    def since(self, moment: float) -> set[tuple[Request, str]]:
        """What was asked after that moment, and how it was answered."""
        return {(a.request, a.status) for a in list(self.answers) if a.sent >= moment}

    def count(self, moment: float) -> int:
        return sum(a.sent >= moment for a in list(self.answers))

    def _ask(self, request: Request) -> str:
        try:
            if self._socket is None:
                self._socket = self._connect()
            words = f"{request[0]} {request[1]} HTTP/1.1\r\nhost: deathstar\r\ncontent-length: 0\r\n\r\n"
            self._socket.sendall(words.encode())
            return self._answer(self._socket)
        except OSError:
            self._hang_up()
            return DROPPED

    def _connect(self) -> socket.socket:
        with netns.entered(self.made.namespace(self.who)):
            made = socket.socket()
        made.settimeout(PATIENCE)
        try:
            made.connect((self.made.address(self.to, 4), 80))
        except OSError:
            made.close()
            raise
        return made

    def _answer(self, connection: socket.socket) -> str:
        raw = b""
        while (found := _STATUS.match(raw)) is None or len(raw) < found.end() + int(found[2]):
            piece = connection.recv(1 << 16)
            if not piece:
                raise ConnectionResetError
            raw += piece
        if b"connection: close" in raw.lower():
            self._hang_up()
        return found[1].decode()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@contextmanager
def travelling(*travellers: Traveller) -> Iterator[None]:
    threads = [threading.Thread(target=traveller.run, daemon=True) for traveller in travellers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for traveller in travellers:
            traveller.stop()
        for thread in threads:
            thread.join()
