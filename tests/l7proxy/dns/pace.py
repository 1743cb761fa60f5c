"""Queries per second through the proxy, against the same server without it: `python -m tests.l7proxy.dns.pace`.

With `measure 2`, by two workers.

Needs root. Three processes beside each other (server, proxy, load), so wall time says little on a small machine that is
shared; what the proxy's process spends per query is what counts, and what it would do on a core of its own.
"""

from __future__ import annotations

import asyncio
import os
import resource
import select
import socket
import subprocess
import sys
import time
from struct import Struct
from typing import Final

from l7proxy.dns.answers import Learned
from l7proxy.dns.configuration import Configuration
from l7proxy.dns.proxy import DnsProxy, Settings
from l7proxy.dns.records import AccessRecord
from policies.ir import DnsRule, Listening
from policies.types import Protocol
from tests.bpf.galaxy import WORLD4, Galaxy, inside
from tests.l7proxy.dns.make import allowing, slot
from tests.l7proxy.dns.town import TCP_PORT, UDP_PORT, redirect

QUERIES: Final = 40_000
WINDOW: Final = 32  # queries on their way
NAMES: Final = 500
ONE_BY_ONE: Final = 5_000  # queries that have the proxy to themselves
OPT: Final = bytes.fromhex("000029 04d0 0000 0000 0000")
_ANSWER: Final = Struct("!HHHIH4s")


class Everybody:
    """What is learned and seen is taken, and thrown away."""

    def learned(self, _: str, names: tuple[Learned, ...]) -> asyncio.Future[bool] | None:
        return None

    def seen(self, record: AccessRecord) -> None:
        pass


def serve() -> None:
    """The fastest server there is: the question with an address behind it."""
    record = _ANSWER.pack(0xC00C, 1, 1, 30, 4, bytes((192, 0, 2, 7)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
        served.bind((WORLD4, 53))
        print("ready", flush=True)
        while True:
            message, peer = served.recvfrom(4096)
            served.sendto(message[:2] + b"\x81\x80\0\1\0\1\0\0\0\1" + message[12:-11] + record + OPT, peer)


def proxy() -> None:
    """One worker; says what it has spent when its input ends."""

    before: list[float] = []

    async def main() -> None:
        everybody = Everybody()
        made = DnsProxy(everybody, everybody, Settings(shared=True))
        made.start()
        patterns = (DnsRule(pattern="*.example.org."), DnsRule(pattern="**.example.net."))
        rules = allowing(*(DnsRule(f"n{i}.test.") for i in range(NAMES)), *patterns)
        udp, tcp = slot(rules=rules), slot(protocol=Protocol.TCP, rules=rules)
        made.apply(Configuration((Listening(udp, UDP_PORT), Listening(tcp, TCP_PORT))))
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        print("ready", flush=True)
        before.append(_spent())
        loop.add_reader(0, lambda: over.done() or over.set_result(None))
        await over
        made.stop()

    asyncio.run(main())
    print(_spent() - before[0], flush=True)


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def load(count: int, window: int) -> None:
    """Asks `count` times, `window` at a time, each from its own socket; says how long it took, and what was lost."""
    questions = [b"\1\0\0\1\0\0\0\0\0\1" + _name(f"n{i}.test") + b"\0\1\0\1" + OPT for i in range(NAMES)]
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(window)]
    poll = select.epoll()
    by_fd = {}
    for one in sockets:
        one.connect((WORLD4, 53))
        poll.register(one.fileno(), select.EPOLLIN)
        by_fd[one.fileno()] = one
    sent = done = 0
    began = time.monotonic()
    delays = []
    started = {}
    for fd, one in by_fd.items():
        started[fd] = time.monotonic()
        one.send(sent.to_bytes(4, "big")[2:] + questions[sent % NAMES])
        sent += 1
    while done < count:
        ready = poll.poll(2.0)
        if not ready:
            break
        for fd, _ in ready:
            assert by_fd[fd].recv(4096)[3] & 0xF == 0, "refused, or withheld"
            now = time.monotonic()
            delays.append(now - started[fd])
            done += 1
            if sent < count:
                started[fd] = now
                by_fd[fd].send(sent.to_bytes(4, "big")[2:] + questions[sent % NAMES])
                sent += 1
    took = time.monotonic() - began
    delays.sort()
    print(took, sent - done, delays[len(delays) // 2], delays[len(delays) * 99 // 100], flush=True)


def _name(text: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in text.split(".")) + b"\0"


def measure(workers: int = 1, count: int = QUERIES) -> dict[str, float]:
    """Direct and through the proxy, in one town; under load, and one query at a time."""
    galaxy = Galaxy(f"pace{os.getpid() % 10_000}")
    running: list[subprocess.Popen[str]] = []

    def run(namespace: str, *role: object) -> subprocess.Popen[str]:
        with inside(namespace):
            made = subprocess.Popen(
                [sys.executable, "-m", "tests.l7proxy.dns.pace", *map(str, role)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        running.append(made)
        return made

    def figures(queries: int, window: int) -> list[float]:
        return [float(word) for word in run(pod.namespace, "load", queries, window).communicate(timeout=120)[0].split()]

    try:
        pod = galaxy.pod("asker")
        _started(run(galaxy.world, "serve"))
        direct, alone = figures(count, WINDOW), figures(ONE_BY_ONE, 1)
        redirect(galaxy, "pod2")
        proxies = [run(galaxy.node, "proxy") for _ in range(workers)]
        for one in proxies:
            _started(one)
        through, through_alone = figures(count, WINDOW), figures(ONE_BY_ONE, 1)
        spent = [float(one.communicate("", timeout=30)[0]) for one in proxies]
    finally:
        for one in running:
            one.kill()
            one.wait()
        galaxy.close()
    return {
        "direct: queries/s": count / direct[0],
        "through: queries/s": count / through[0],
        "through: lost": through[1],
        "proxy: CPU us/query": sum(spent) / (count + ONE_BY_ONE) * 1e6,
        "proxy: busiest worker %": max(spent) / sum(spent) * 100,
        "added when idle: p50 us": (through_alone[2] - alone[2]) * 1e6,
        "added when idle: p99 us": (through_alone[3] - alone[3]) * 1e6,
    }


def _started(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


if __name__ == "__main__":
    role, *numbers = sys.argv[1:] or ["measure"]
    if role == "measure":
        for what, figure in measure(*map(int, numbers)).items():
            print(f"{what:24} {figure:12.1f}")
    else:
        {"serve": serve, "proxy": proxy, "load": load}[role](*map(int, numbers))
