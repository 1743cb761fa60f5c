"""An outpost of the empire: a network namespace with a broker that we did not write, clients, and the proxy in between.

The broker is librdkafka's mock cluster. What clients send to it is redirected by nftables' tproxy, so nothing of the
data path is needed; the proxy's own connections are known by their marks, as on a node.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from confluent_kafka import Producer

from l7proxy.kafka.configuration import Configuration, Options
from l7proxy.kafka.proxy import KafkaProxy
from l7proxy.kafka.records import AccessRecord
from policies.ir import KafkaRule, Listening, Slot, SlotState
from tests.bpf.galaxy import inside, run
from tests.l7proxy.kafka.make import slot

WAIT_SECONDS = 20.0
PROXY_PORT = 15500
NOBODY_PORT = 9  # nobody listens there


def wait(condition: Callable[[], object], text: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, f"{text} did not come within {WAIT_SECONDS:g} s"
        time.sleep(0.01)


@dataclass
class Outpost:
    name: str
    broker: Producer
    bootstrap: str
    records: list[AccessRecord] = field(default_factory=list)
    proxy: KafkaProxy | None = None
    loop: asyncio.AbstractEventLoop | None = None
    applied: Slot | None = None

    def seen(self, record: AccessRecord) -> None:
        self.records.append(record)

    def apply(self, *rules: KafkaRule, hide_topics: bool = True, **more: Any) -> None:
        """These rules hold from now on."""
        self.serve(slot(*rules, **more), hide_topics=hide_topics)

    def serve(self, served: Slot, *, hide_topics: bool = True) -> None:
        self.applied = served
        configuration = Configuration((Listening(served, PROXY_PORT),), Options(hide_topics))
        self.on_loop(lambda proxy: proxy.apply(configuration))

    def retire(self) -> None:
        assert self.applied is not None
        self.serve(replace(self.applied, state=SlotState.RETIRED))

    def on_loop(self, action: Callable[[KafkaProxy], object]) -> object:
        assert self.loop is not None

        async def act() -> object:
            assert self.proxy is not None
            return action(self.proxy)

        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(WAIT_SECONDS)

    def client(self, **more: Any) -> dict[str, Any]:
        """Settings of a client of librdkafka."""
        return {"bootstrap.servers": self.bootstrap, "log_level": 0, "socket.timeout.ms": 10_000} | {
            key.replace("_", "."): value for key, value in more.items()
        }

    def denials(self) -> set[tuple[int, str]]:
        """API keys and topics that were refused."""
        return {(record.api_key, record.topic) for record in self.records if record.is_denial}

    def allowed(self) -> set[tuple[int, str]]:
        """API keys and topics that were forwarded."""
        return {(record.api_key, record.topic) for record in self.records if not record.is_denial}


def redirect(namespace: str, port: int) -> None:
    """What is sent to the broker's port goes to the proxy, unless the proxy sends it."""

    def on_node(*words: str, text: str | None = None) -> None:
        run("nsenter", f"--net=/run/netns/{namespace}", "--", *words, text=text)

    on_node("ip", "rule", "add", "priority", "9", "fwmark", "0x200/0xf00", "lookup", "2004")
    on_node("ip", "route", "add", "local", "default", "dev", "lo", "table", "2004")
    served = f"tcp dport {{ {port}, {NOBODY_PORT} }} meta mark and 0xf00 =="
    on_node(
        "nft", "-f", "-",
        text="add table ip outpost\n"
        "add chain ip outpost out { type route hook output priority mangle; }\n"
        "add chain ip outpost pre { type filter hook prerouting priority mangle; }\n"
        f"add rule ip outpost out {served} 0 meta mark set 0x200\n"
        f"add rule ip outpost pre {served} 0x200 tproxy to :{PROXY_PORT} accept\n",
    )  # fmt: skip


@contextmanager
def founded(name: str) -> Iterator[Outpost]:
    """An outpost with its proxy in a thread of its own; the calling thread is inside. Nothing is left of it."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        with inside(name):
            broker = Producer({"test.mock.num.brokers": 1, "log_level": 0})
            (first,) = broker.list_topics(timeout=WAIT_SECONDS).brokers.values()
            redirect(name, first.port)
            outpost = Outpost(name, broker, f"{first.host}:{first.port}")
            with _running(outpost):
                yield outpost
    finally:
        run("ip", "netns", "del", name)


@contextmanager
def _running(outpost: Outpost) -> Iterator[None]:
    started = threading.Event()
    done: list[asyncio.Event] = []

    async def main() -> None:
        outpost.loop = asyncio.get_running_loop()
        outpost.proxy = KafkaProxy(outpost)
        done.append(asyncio.Event())
        outpost.proxy.start()
        started.set()
        await done[0].wait()
        outpost.proxy.stop()

    def go() -> None:
        with inside(outpost.name):
            asyncio.run(main())

    thread = threading.Thread(target=go)
    thread.start()
    try:
        assert started.wait(WAIT_SECONDS)
        yield
    finally:
        assert outpost.loop is not None
        outpost.loop.call_soon_threadsafe(done[0].set)
        thread.join(WAIT_SECONDS)
