"""A town for the DNS proxy: a pod, a DNS server in the world, and the proxy between them on a node.

The redirect is nftables' tproxy here, so nothing of the data path is needed. The server is dnspython's and ours: what
it answers is a function of the query, told by the test.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dns.exception
import dns.message
import dns.rdatatype
import dns.rrset

from l7proxy.dns.answers import Learned
from l7proxy.dns.configuration import Configuration, Options
from l7proxy.dns.framing import frame
from l7proxy.dns.proxy import DnsProxy, Settings
from l7proxy.dns.records import AccessRecord
from l7proxy.dns.transactions import Limits
from policies.ir import DnsRule, Listening
from policies.types import Protocol
from tests.bpf.galaxy import WORLD4, WORLD6, Galaxy, Pod, inside
from tests.l7proxy.dns.make import ORIGIN, allowing, slot

WAIT_SECONDS = 10.0
UDP_PORT, TCP_PORT = 15353, 15354
SERVERS = {4: WORLD4, 6: WORLD6}
PER_POD = 100  # open queries
NOBODY4, NOBODY6 = "203.0.113.3", "2001:db8::3"  # a machine without a DNS server
RULES = (
    *(DnsRule(f"{name}.example.org.", origins=(ORIGIN,)) for name in ("allowed", "big", "slow")),
    DnsRule(pattern="*.open.example.org.", origins=(ORIGIN,)),
)

Reply = bytes | list[bytes] | None  # one message, several, none
Answering = Callable[[bytes, bool], Reply]  # (message, over TCP)


def wait(condition: Callable[[], bool], text: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, f"{text} did not come within {WAIT_SECONDS:g} s"
        time.sleep(0.005)


def ask(name: str, rdtype: str = "A", **more: object) -> bytes:
    return dns.message.make_query(name, rdtype, **more).to_wire()  # type: ignore[arg-type]


def answer_with(*texts: str) -> Answering:
    """Answers every query with these addresses."""

    def answer(message: bytes, _: bool) -> bytes:
        try:
            query = dns.message.from_wire(message)
        except dns.exception.DNSException:
            return message[:2] + b"\x81\x81" + bytes(8)  # as servers do with what they cannot read
        reply = dns.message.make_response(query)
        asked = query.question[0] if query.question else None
        if texts and asked is not None and asked.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            reply.answer.append(dns.rrset.from_text(asked.name, 30, "IN", dns.rdatatype.to_text(asked.rdtype), *texts))
        return reply.to_wire()

    return answer


@dataclass
class World:
    """Who is who, what was learned and seen. `gate`: answers wait until it is opened."""

    names: list[Learned] = field(default_factory=list)
    records: list[AccessRecord] = field(default_factory=list)
    waiting: list[asyncio.Future[bool]] = field(default_factory=list)
    gated: bool = False

    def learned(self, pod: str, names: tuple[Learned, ...]) -> asyncio.Future[bool] | None:
        self.names += names
        if not self.gated:
            return None
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    def seen(self, record: AccessRecord) -> None:
        self.records.append(record)


@dataclass
class Town:
    galaxy: Galaxy
    pod: Pod
    world: World
    answer: Answering = field(default_factory=lambda: answer_with("192.0.2.7"))
    asked: list[bytes] = field(default_factory=list)
    asked_from: list[tuple[str, int]] = field(default_factory=list)
    proxy: DnsProxy | None = None
    loop: asyncio.AbstractEventLoop | None = None

    # --- the pod ---

    def udp(self, family: int, message: bytes, timeout: float = 5.0) -> bytes:
        """Ask over UDP from a connected socket: an answer from any other address would not reach it."""
        with self.client(family) as client:
            client.settimeout(timeout)
            client.send(message)
            return client.recv(65535)

    @contextmanager
    def client(self, family: int, server: str = "") -> Iterator[socket.socket]:
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        with inside(self.pod.namespace):
            made = socket.socket(kind, socket.SOCK_DGRAM)
        with made:
            made.settimeout(5.0)
            made.connect((server or SERVERS[family], 53))
            yield made

    def tcp(self, family: int, *messages: bytes) -> list[bytes]:
        """Ask all at once over one connection, and read as many answers."""
        connection = self.galaxy.connect(self.pod.namespace, (SERVERS[family], 53), timeout=5.0)
        with connection:
            connection.sendall(b"".join(map(frame, messages)))
            return [read_frame(connection) for _ in messages]

    # --- the node ---

    def apply(self, rules: tuple[DnsRule, ...] = RULES, **options: object) -> None:
        listening = (
            Listening(slot(rules=allowing(*rules)), UDP_PORT),
            Listening(slot(protocol=Protocol.TCP, rules=allowing(*rules)), TCP_PORT),
        )
        configuration = Configuration(listening, Options(**options))  # type: ignore[arg-type]
        self.on_loop(lambda proxy: proxy.apply(configuration))

    def on_loop(self, action: Callable[[DnsProxy], object]) -> object:
        assert self.loop is not None

        async def act() -> object:
            assert self.proxy is not None
            return action(self.proxy)

        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(WAIT_SECONDS)

    def reset(self) -> None:
        self.answer = answer_with("192.0.2.7")
        self.asked.clear()
        self.asked_from.clear()
        self.world.gated = False
        for past in (self.world.names, self.world.records, self.world.waiting):
            past.clear()
        self.apply()

    def last(self) -> AccessRecord:
        return self.world.records[-1]

    # --- the world ---

    def serve(self) -> None:
        for family in (4, 6):
            served = self.galaxy.udp(self.galaxy.world, SERVERS[family], 53)
            served.settimeout(None)
            threading.Thread(target=self._serve_udp, args=(served,), daemon=True).start()
            self.galaxy.serve(self.galaxy.world, SERVERS[family], 53, self._serve_tcp)

    def _serve_udp(self, served: socket.socket) -> None:
        while True:
            try:
                message, peer = served.recvfrom(65535)
            except OSError:
                return
            self.asked.append(message)
            self.asked_from.append(peer[:2])
            reply = self.answer(message, False)
            for one in [reply] if isinstance(reply, bytes) else reply or ():
                served.sendto(one, peer)

    def _serve_tcp(self, connection: socket.socket) -> None:
        with connection:
            try:
                while True:
                    message = read_frame(connection)
                    self.asked.append(message)
                    self.asked_from.append(connection.getpeername()[:2])
                    if (reply := self.answer(message, True)) is not None:
                        connection.sendall(
                            b"".join(frame(one) for one in ([reply] if isinstance(reply, bytes) else reply))
                        )
            except (OSError, EOFError):
                return


def read_frame(connection: socket.socket) -> bytes:
    size = int.from_bytes(_read(connection, 2), "big")
    return _read(connection, size)


def _read(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = connection.recv(size - len(content))
        if not more:
            raise EOFError
        content += more
    return content


def redirect(galaxy: Galaxy, device: str) -> None:
    """What the pod sends to port 53 goes to the proxy; so do answers for sockets that have the pod's address."""
    for family in ("-4", "-6"):
        galaxy.on_node("ip", family, "rule", "add", "priority", "9", "fwmark", "0x200/0xf00", "lookup", "2004")
        galaxy.on_node("ip", family, "route", "add", "local", "default", "dev", "lo", "table", "2004")
    rules = "".join(
        f'add rule inet town pre iifname "{device}" {protocol} dport 53 tproxy {family} to :{port} '
        "meta mark set 0x200 accept\n"
        for protocol, port in (("udp", UDP_PORT), ("tcp", TCP_PORT))
        for family in ("ip", "ip6")
    )
    galaxy.on_node(
        "nft", "-f", "-",
        text="add table inet town\n"
        "add chain inet town pre { type filter hook prerouting priority mangle; }\n"
        f"{rules}"
        'add rule inet town pre iifname "uplink" socket transparent 1 meta mark set 0x200 accept\n',
    )  # fmt: skip


@contextmanager
def founded(name: str) -> Iterator[Town]:
    """A town with its proxy running in a thread of its own; nothing is left of it."""
    galaxy = Galaxy(name)
    try:
        pod = galaxy.pod("asker")
        galaxy.configure(galaxy.world, "eth0", f"{NOBODY4}/24", f"{NOBODY6}/64")
        redirect(galaxy, "pod2")
        town = Town(galaxy, pod, World())
        town.serve()
        with _running(town):
            yield town
    finally:
        galaxy.close()


@contextmanager
def _running(town: Town) -> Iterator[None]:
    started = threading.Event()
    done: list[asyncio.Event] = []

    async def main() -> None:
        town.loop = asyncio.get_running_loop()
        settings = Settings(Limits(per_pod=PER_POD))
        town.proxy = DnsProxy(town.world, town.world, settings)
        done.append(asyncio.Event())
        town.proxy.start()
        started.set()
        await done[0].wait()
        town.proxy.stop()

    def run() -> None:
        with inside(town.galaxy.node):
            asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(WAIT_SECONDS)
        yield
    finally:
        assert town.loop is not None
        town.loop.call_soon_threadsafe(done[0].set)
        thread.join(WAIT_SECONDS)
