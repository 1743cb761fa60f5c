"""A world in which every name is new and has an address of its own: for whoever wants to know whether the first packet
to a freshly learned address is ever lost. `python -m tests.agent.fresh_names 10000` asks for so many names and connects
to each at once, while policies are edited and other pods do the same; it takes two minutes.

The nameserver answers `a-N.fresh.test` with 198.18.0.0/15 + N, all of which live in the world's network namespace;
`m-N.fresh.test` has sixty of them.
"""

from __future__ import annotations

import asyncio
import itertools
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, Final

import yaml

from conformance import netns
from conformance.blueprint import WORLD_V4, star_wars
from conformance.galaxy import NODE, WORLD, Galaxy, galaxy
from conformance.node import Node, running

FIRST: Final = int(IPv4Address("198.18.0.0"))
NET: Final = "198.18.0.0/15"
PORT: Final = 443
CLIENT, OTHER = "tiefighter", "xwing"
TTL: Final = 60
MANY: Final = 60
PATIENCE: Final = 3.0  # seconds; a SYN that was lost comes again after one
_TCP_INFO_TOTAL_RETRANS: Final = 100
_LOCAL_NAME: Final = b"\x05fresh\x04test\x00"


def policy(name: str, selectors: list[dict[str, str]], pods: dict[str, str], port: int = PORT) -> str:
    """These pods may ask everything of the world's nameserver, and connect to what these selectors select."""
    ports = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}
    asking = {"toEntities": ["world"], "toPorts": [ports]}
    going = {"toFQDNs": selectors, "toPorts": [{"ports": [{"port": str(port), "protocol": "TCP"}]}]}
    spec = {"endpointSelector": {"matchLabels": pods}, "egress": [asking, going]}
    body: dict[str, Any] = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy"}
    return yaml.safe_dump({**body, "metadata": {"name": name, "namespace": "default"}, "spec": spec})


def question(number: int, prefix: str = "a") -> bytes:
    """A query for the address of `prefix-number.fresh.test`."""
    label = f"{prefix}-{number}".encode()
    header = struct.pack(">6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0)
    return header + bytes([len(label)]) + label + _LOCAL_NAME + struct.pack(">2H", 1, 1)


def reply(query: bytes, ttl: int) -> bytes:
    """The answer to a query for a name of this world."""
    label = query[13 : 13 + query[12]]
    number = int(label.rpartition(b"-")[2])
    addresses = [number] if not label.startswith(b"m") else range(number * MANY, (number + 1) * MANY)
    end = query.index(b"\0", 12) + 5
    head = query[:2] + struct.pack(">5H", 0x8180, 1, len(addresses), 0, 0) + query[12:end]
    return head + b"".join(
        struct.pack(">3HIH4s", 0xC00C, 1, 1, ttl, 4, (FIRST + address).to_bytes(4, "big")) for address in addresses
    )


@dataclass
class World:
    """The nameserver, and a server at every address. Threads of this process."""

    made: Galaxy
    ttl: int = TTL
    hold: list[socket.socket] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def serve(self) -> None:
        space = self.made.namespace(WORLD)
        netns.ip_batch(space, [f"route add local {NET} dev lo"])
        netns.ip_batch(self.made.namespace(NODE), [f"route add {NET} via {WORLD_V4}"])
        asked = netns.socket_in(space, socket.AF_INET, socket.SOCK_DGRAM)
        asked.bind((WORLD_V4, 53))
        listener = netns.socket_in(space, socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", PORT))
        listener.listen(4096)
        threading.Thread(target=self._loop, args=(asked, listener), daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def _loop(self, asked: socket.socket, listener: socket.socket) -> None:
        while not self._over.is_set():
            for ready in select.select([asked, listener], [], [], 0.1)[0]:
                if ready is asked:
                    query, who = asked.recvfrom(512)
                    asked.sendto(reply(query, self.ttl), who)
                else:
                    self.hold.append(listener.accept()[0])
                    if len(self.hold) > 256:
                        self.hold.pop(0).close()
        for one in (asked, listener, *self.hold):
            one.close()


@dataclass
class Tries:
    """What became of names that were asked for and connected to. Times in seconds, of whatever succeeded."""

    asked: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # no answer, or no address
    lost: list[str] = field(default_factory=list)  # the first SYN did not arrive

    def __str__(self) -> str:
        def line(name: str, times: list[float]) -> str:
            some = sorted(times) or [0.0]
            p50, p99 = some[len(some) // 2], some[min(len(some) - 1, len(some) * 99 // 100)]
            return f"{name} p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms, max {some[-1] * 1000:.2f} ms"

        count = len(self.asked) + len(self.refused)
        return (
            f"{count} names, {len(self.refused)} without an address, {len(self.lost)} first packets lost; "
            f"{line('answer', self.asked)}; {line('connect', self.connected)}"
        )


class Client:
    """A pod that asks, and connects at once."""

    def __init__(self, made: Galaxy, who: str = CLIENT) -> None:
        self._space = made.namespace(who)
        self._asking = netns.socket_in(self._space, socket.AF_INET, socket.SOCK_DGRAM)
        self._asking.settimeout(PATIENCE)
        self._asking.connect((WORLD_V4, 53))

    def ask(self, number: int, prefix: str = "a") -> str:
        """The address of a name; "" if there is none."""
        self._asking.send(question(number, prefix))
        while True:
            try:
                answer = self._asking.recv(4096)
            except TimeoutError:
                return ""
            if answer[:2] == (number & 0xFFFF).to_bytes(2, "big"):
                return str(IPv4Address(answer[-4:])) if answer[3] & 15 == 0 and answer[7] else ""

    def connect(self, address: str, port: int = PORT) -> tuple[socket.socket, int]:
        """A connection, and how many of its packets had to be sent again. TimeoutError if there is none."""
        made = netns.socket_in(self._space, socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(PATIENCE)
        try:
            made.connect((address, port))
        except OSError:
            made.close()
            raise
        info = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return made, int(struct.unpack_from("=I", info, _TCP_INFO_TOTAL_RETRANS)[0])

    def may(self, address: str, patience: float = 0.3) -> bool:
        """Whether a connection comes about in that time."""
        made = netns.socket_in(self._space, socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(patience)
        with made:
            try:
                made.connect((address, PORT))
            except OSError:
                return False
            return True

    def close(self) -> None:
        self._asking.close()

    def run(self, numbers: range, tries: Tries, prefix: str = "a") -> None:
        """Ask for each name, and connect."""
        for number in numbers:
            begun = time.perf_counter()
            address = self.ask(number, prefix)
            answered = time.perf_counter()
            if not address:
                tries.refused.append(f"{prefix}-{number}")
                continue
            tries.asked.append(answered - begun)
            try:
                made, again = self.connect(address)
            except TimeoutError:
                tries.lost.append(f"{address} (never)")
                continue
            tries.connected.append(time.perf_counter() - answered)
            made.close()
            if again:
                tries.lost.append(f"{address} ({again} sent again)")


@contextmanager
def world(prefix: str = "fresh") -> Iterator[tuple[Galaxy, World]]:
    """A galaxy with such a world."""
    with ExitStack() as stack:
        made = stack.enter_context(galaxy(star_wars(), prefix=prefix))
        outside = World(made)
        outside.serve()
        stack.callback(outside.stop)
        yield made, outside


def edit(made: Galaxy, over: threading.Event) -> None:
    """Policies change all the while: selectors come and go, and what is around the addresses."""
    for number in itertools.count():
        if over.wait(0.05):
            return
        selectors = [{"matchName": f"other-{number % 7}.test"}, {"matchPattern": f"*.more-{number % 3}.test"}]
        made.manifests.write("policy-edited.yaml", policy("edited", selectors, {"org": "alliance"}))


async def main(count: int) -> int:
    tries, others, over = Tries(), Tries(), threading.Event()
    with world() as (made, _):
        made.manifests.write(
            "policy-fresh.yaml", policy("fresh", [{"matchPattern": "*.fresh.test"}], {"org": "empire"})
        )
        made.manifests.write("policy-edited.yaml", policy("edited", [{"matchName": "x.test"}], {"org": "alliance"}))
        async with running(made) as node:
            await proxy_is_there(node)
            client = Client(made)
            editor = threading.Thread(target=edit, args=(made, over), daemon=True)
            editor.start()
            await asyncio.to_thread(client.run, range(count), tries)
            over.set()
            editor.join()
            client.close()
            status = await node.status()
            print(tries)
            print({key: (status or {}).get("names", {}).get(key) for key in NUMBERS})
            print("\n".join([*tries.lost[:10], *tries.refused[:10], *map(str, (status or {}).get("problems", [])[:5])]))
    return 1 if tries.lost or tries.refused or others.lost else 0


NUMBERS: Final = ("held", "learned", "waited", "refused", "latency_p50_ms", "latency_p99_ms")


async def proxy_is_there(node: Node) -> None:
    """Until the DNS proxy judges."""
    for _ in range(500):
        status = await node.status()
        if status is not None and status["proxies"]["dns-proxy"]["connected"] and not status["pending"]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(("the DNS proxy does not come", node.log_tail()))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)))
