"""Asks a nameserver as fast as it answers (`window` queries on their way), or at a rate; says what came of it as JSON.

    python -m benchmarks.dns_load SERVER COUNT --window N | --rate QUERIES_PER_SECOND

A process of its own in the pod's network namespace. Each query on its way has a socket of its own, as resolvers have.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import time
from dataclasses import asdict, dataclass, field
from typing import Final

NAMES: Final = 200
DOMAIN: Final = "bench.example"
SOCKETS: Final = 256
PATIENCE: Final = 2.0  # seconds for an answer
REST: Final = 50e-6  # seconds between two looks, at a rate


def name(number: int) -> str:
    """One of the names that are asked for."""
    return f"n{number % NAMES}.{DOMAIN}"


@dataclass
class Report:
    """Seconds; `failed`: answers with another code than NOERROR."""

    seconds: float = 0.0
    answered: int = 0
    lost: int = 0
    failed: int = 0
    p50: float = 0.0
    p99: float = 0.0


@dataclass
class Load:
    """Queries, each from the socket that has waited longest."""

    server: str
    delays: list[float] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        self._questions = [_question(name(number)) for number in range(NAMES)]
        self._poll = select.epoll()
        self._by_fd: dict[int, socket.socket] = {}
        self._free: list[int] = []
        self._sent: dict[int, tuple[float, int]] = {}  # socket -> when, id
        for _ in range(SOCKETS):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect((self.server, 53))
            made.setblocking(False)
            self._poll.register(made.fileno(), select.EPOLLIN)
            self._by_fd[made.fileno()] = made
            self._free.append(made.fileno())

    def press(self, count: int, window: int) -> Report:
        """As fast as it goes, `window` at a time."""
        began, sent = time.monotonic(), 0
        while sent < count or self._sent:
            while sent < count and len(self._sent) < window:
                self._ask(sent, time.monotonic())
                sent += 1
            if not self._take(PATIENCE):
                break
        return self._report(began, count)

    def pace(self, count: int, rate: float) -> Report:
        """One after the other, whatever becomes of those before."""
        began, sent = time.monotonic(), 0
        end = began + 2 * count / rate + PATIENCE  # on a busy machine it may not be held
        while (sent < count or self._sent) and time.monotonic() < end:
            due = began + sent / rate
            now = time.monotonic()
            if sent < count and due <= now and self._free:
                self._ask(sent, due)
                sent += 1
            elif not self._take(0.0):
                time.sleep(REST)
        return self._report(began, count)

    def _ask(self, number: int, since: float) -> None:
        fd = self._free.pop(0)
        self._sent[fd] = (since, number & 0xFFFF)
        self._by_fd[fd].send((number & 0xFFFF).to_bytes(2, "big") + self._questions[number % NAMES])

    def _take(self, seconds: float) -> bool:
        ready = self._poll.poll(seconds)
        for fd, _ in ready:
            message = self._by_fd[fd].recv(4096)
            now = time.monotonic()
            since, number = self._sent.get(fd, (0.0, -1))
            if int.from_bytes(message[:2], "big") != number:
                continue
            del self._sent[fd]
            self._free.append(fd)
            self.delays.append(now - since)
            self.failed += message[3] & 0xF != 0
        return bool(ready)

    def _report(self, began: float, count: int) -> Report:
        took, delays = time.monotonic() - began, sorted(self.delays)
        report = Report(took, len(delays), count - len(delays), self.failed)
        if delays:
            report.p50, report.p99 = delays[len(delays) // 2], delays[len(delays) * 99 // 100]
        return report


def _question(name: str) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("count", type=int)
    parser.add_argument("--window", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0)
    arguments = parser.parse_args()
    load = Load(arguments.server)
    if arguments.window:
        report = load.press(arguments.count, arguments.window)
    else:
        report = load.pace(arguments.count, arguments.rate)
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
