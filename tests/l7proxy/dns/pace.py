"""Queries per second through the proxy, against the same server without it: `python -m tests.l7proxy.dns.pace`.

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
from l7proxy.dns.configuration import Configuration, NameRules, Slot
from l7proxy.dns.proxy import DnsProxy, Settings, Wiring
from l7proxy.dns.records import AccessRecord, Endpoint
from policies.types import IDENTITY_WORLD, Protocol
from tests.bpf.galaxy import WORLD4, Galaxy, inside
from tests.l7proxy.dns.town import TCP_PORT, UDP_PORT, redirect

QUERIES: Final = 40_000
WINDOW: Final = 32  # queries on their way
NAMES: Final = 500
_ANSWER: Final = Struct("!HHHIH4s")


class Everybody:
    """All are one endpoint; what is learned and seen is taken, and thrown away."""

    def endpoint(self, _: str) -> Endpoint | None:
        return Endpoint(2, 4711)

    def identity(self, _: str) -> int:
        return IDENTITY_WORLD

    def learned(self, _: Endpoint, names: tuple[Learned, ...]) -> asyncio.Future[bool] | None:
        return None

    def seen(self, record: AccessRecord) -> None:
        pass


def serve() -> None:
    """The fastest server there is: the query with an address behind it."""
    record = _ANSWER.pack(0xC00C, 1, 1, 30, 4, bytes((192, 0, 2, 7)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
        served.bind((WORLD4, 53))
        while True:
            message, peer = served.recvfrom(4096)
            served.sendto(message[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + message[12:] + record, peer)


def proxy() -> None:
    """One worker; says what it has spent when its input ends."""

    before: list[float] = []

    async def main() -> None:
        everybody = Everybody()
        made = DnsProxy(Wiring(everybody, everybody, everybody), Settings())
        made.start()
        rules = (NameRules("rule", tuple(f"n{i}.test" for i in range(NAMES)), ("*.example.org", "**.example.net")),)
        slots = (Slot("udp", UDP_PORT, Protocol.UDP, rules), Slot("tcp", TCP_PORT, Protocol.TCP, rules))
        made.apply(Configuration("1", slots))
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        before.append(_spent())
        loop.add_reader(0, lambda: over.done() or over.set_result(None))
        await over
        made.stop()

    asyncio.run(main())
    print(_spent() - before[0], flush=True)


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def load(count: int) -> None:
    """Asks `count` times, WINDOW at a time, each from a socket of its own; says how long it took, and what was lost."""
    tail = bytes.fromhex("00010001 000029 04d0000000000000")  # A, IN, and an OPT record
    questions = [b"\1\0\0\1\0\0\0\0\0\1" + _name(f"n{i}.test") + tail for i in range(NAMES)]
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(WINDOW)]
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
            by_fd[fd].recv(4096)
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


def measure(count: int = QUERIES) -> dict[str, float]:
    """Direct and through the proxy, in one town."""
    galaxy = Galaxy(f"pace{os.getpid() % 10_000}")
    running: list[subprocess.Popen[str]] = []

    def run(namespace: str, role: str, **more: int) -> subprocess.Popen[str]:
        with inside(namespace):
            made = subprocess.Popen(
                [sys.executable, "-m", "tests.l7proxy.dns.pace", role],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        running.append(made)
        return made

    try:
        pod = galaxy.pod("asker")
        run(galaxy.world, "serve")
        time.sleep(1.0)
        direct = _figures(run(pod.namespace, "load"))
        redirect(galaxy, "pod2")
        worker = run(galaxy.node, "proxy")
        time.sleep(1.5)
        through = _figures(run(pod.namespace, "load"))
        spent = float(worker.communicate("", timeout=30)[0])
    finally:
        for one in running:
            one.kill()
            one.wait()
        galaxy.close()
    return {
        "direct_qps": count / direct[0], "through_qps": count / through[0], "lost": through[1],
        "proxy_us_per_query": spent / count * 1e6, "direct_p50_us": direct[2] * 1e6, "through_p50_us": through[2] * 1e6,
        "through_p99_us": through[3] * 1e6,
    }  # fmt: skip


def _figures(loading: subprocess.Popen[str]) -> list[float]:
    return [float(word) for word in loading.communicate(timeout=120)[0].split()]


if __name__ == "__main__":
    roles = {"serve": serve, "proxy": proxy, "load": lambda: load(QUERIES)}
    if len(sys.argv) > 1:
        roles[sys.argv[1]]()
    else:
        for what, figure in measure().items():
            print(f"{what:20} {figure:12.1f}")
