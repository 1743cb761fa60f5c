"""One keep-alive HTTP/1.1 connection on a raw socket inside a namespace: cheap, and it never reconnects in silence."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from benchmarks.errors import NotMeasured
from conformance import netns

TIMEOUT = 5.0  # seconds for one answer
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
HEAD_MAX = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """Status of a response, and when it was asked for and complete (time.monotonic, seconds)."""

    status: int
    asked: float
    answered: float


class Connection:
    """Connects at once. Raises NotMeasured whenever the connection does not do what a living one does."""

    def __init__(self, namespace: str, host: str, port: int) -> None:
        self._where = f"{host}:{port}"
        self._head = f"Host: {host}\r\n\r\n".encode()
        self._socket = netns.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.connect((host, port))
        except OSError as error:
            self.close()
            raise NotMeasured(f"no connection to {self._where}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def get(self, path: str) -> Answer:
        """Ask and wait for the whole answer."""
        asked = time.monotonic()
        try:
            self._socket.sendall(f"GET {path} HTTP/1.1\r\n".encode() + self._head)
            status = self._read_response()
        except OSError as error:
            raise NotMeasured(f"the connection to {self._where} broke: {error}") from None
        return Answer(status, asked, time.monotonic())

    def _read_response(self) -> int:
        got = b""
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._more()
            if len(got) > HEAD_MAX:
                raise NotMeasured(f"{self._where} answers with a head of more than {HEAD_MAX} bytes")
        length = LENGTH.search(got, 0, end + 2)
        if not got.startswith(b"HTTP/1.1 ") or length is None:
            raise NotMeasured(f"{self._where} answers something else than HTTP/1.1 with a length: {got[:60]!r}")
        missing = end + 4 + int(length[1]) - len(got)
        while missing > 0:
            missing -= len(self._more())
        return int(got[9:12])

    def _more(self) -> bytes:
        part = self._socket.recv(HEAD_MAX)
        if not part:
            raise ConnectionResetError("closed by the other side")
        return part
