"""The processes that `benchmarks.kafka` starts inside a network namespace: `python -m benchmarks.kafka_roles ROLE ...`.

    broker                   a broker that we did not write: librdkafka's mock cluster; says where it is
    proxy PORT               the proxy, with rules for both topics; says when it is ready, and what it has spent
    produce SERVER COUNT     produces messages of 1 KB in batches; says how long that took, seconds
    one_by_one SERVER COUNT  a message at a time, each when the last is acknowledged; says how long each took, seconds

`broker` and `proxy` end with their input.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from l7proxy.kafka.configuration import Configuration
from l7proxy.kafka.proxy import KafkaProxy
from l7proxy.kafka.records import AccessRecord
from policies.ir import KafkaRule, L7Parser, Listening, RuleSet, Slot
from policies.kafka_keys import role_keys
from policies.types import Direction, PortRange, Protocol

TOPIC, OTHER_TOPIC = "empire-announce", "deathstar-plans"
MESSAGE = bytes(1024)
WARM = 200  # messages before it counts
PATIENCE = 30.0  # seconds


def broker() -> None:
    """Ends with its input."""
    made = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (first,) = made.list_topics(TOPIC, timeout=PATIENCE).brokers.values()
    print(f"{first.host}:{first.port}", flush=True)
    sys.stdin.read()


class Sink:
    """Takes records, and throws them away."""

    def __init__(self) -> None:
        self.denied = 0

    def seen(self, record: AccessRecord) -> None:
        self.denied += record.is_denial


def proxy(port: str) -> None:
    """Ends with its input."""
    rules = tuple(
        KafkaRule(role_keys(role), topic=topic) for role in ("produce", "consume") for topic in (TOPIC, OTHER_TOPIC)
    )
    ports = PortRange(0, 65535)
    slot = Slot("bench", Direction.INGRESS, 1, Protocol.TCP, ports, RuleSet(kafka=rules), parser=L7Parser.KAFKA)

    async def main() -> None:
        made = KafkaProxy(Sink())
        made.start()
        made.apply(Configuration((Listening(slot, int(port)),)))
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(0, over.set)
        gc.freeze()
        print("ready", flush=True)
        await over.wait()
        made.stop()

    before = _spent()
    asyncio.run(main())
    print(_spent() - before, flush=True)


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _producer(server: str, **more: Any) -> Producer:
    made = Producer({"bootstrap.servers": server, "log_level": 0, "enable.metrics.push": False} | more)
    for _ in range(WARM):
        made.produce(TOPIC, MESSAGE, partition=0)
    if made.flush(PATIENCE):
        raise SystemExit("the broker does not answer")
    return made


def produce(server: str, count: str) -> None:
    """As fast as librdkafka can: batches of up to 1 MB."""
    made = _producer(server, **{"queue.buffering.max.messages": 1_000_000, "linger.ms": 5, "batch.size": 1_000_000})
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    began = time.monotonic()
    for number in range(int(count)):
        made.produce(TOPIC, MESSAGE, partition=number % 4, on_delivery=delivered)
        if not number % 1000:
            made.poll(0)
    left = made.flush(PATIENCE)
    took = time.monotonic() - began
    if failed or left:
        raise SystemExit(f"{len(failed) + left} messages were not delivered")
    print(took, flush=True)


def one_by_one(server: str, count: str) -> None:
    """Each message is a request of its own."""
    made = _producer(server, **{"linger.ms": 0})
    taken = []
    for _ in range(int(count)):
        began = time.monotonic()
        made.produce(TOPIC, MESSAGE, partition=0)
        if made.flush(PATIENCE):
            raise SystemExit("a message was not delivered")
        taken.append(time.monotonic() - began)
    print(*taken, flush=True)


ROLES: dict[str, Callable[..., None]] = {
    "broker": broker,
    "proxy": proxy,
    "produce": produce,
    "one_by_one": one_by_one,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
