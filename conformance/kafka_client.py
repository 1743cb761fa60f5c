"""One errand of a real Kafka client. Runs alone inside a pod's network namespace.

    python -m conformance.kafka_client '{"courier": "librdkafka", "job": "produce", "topics": ["empire-announce"], …}'

Prints what came of it, one JSON object a line: `Outcome`. One that `repeats` does it once for every line on stdin.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from conformance.relay import Relay

MODULES = {"librdkafka": "by_librdkafka", "aiokafka": "by_aiokafka", "by-hand": "by_hand"}


@dataclass(frozen=True, slots=True)
class Order:
    """An errand as a client gets it. `advertised` is what the broker takes for its address, `remote` where it is
    reached; `patience` in seconds; `repeats`: once for every line on stdin."""

    courier: str
    job: str
    topics: tuple[str, ...]
    advertised: tuple[str, int]
    remote: tuple[str, int]
    group: str = ""
    client_id: str = ""
    count: int = 1
    patience: float = 5.0
    repeats: bool = False

    @classmethod
    def of(cls, text: str) -> Order:
        """What `text` gives back."""
        plain = json.loads(text)
        lists = {name: tuple(plain[name]) for name in ("topics", "advertised", "remote")}
        return cls(**(plain | lists))

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @property
    def bootstrap(self) -> str:
        return f"{self.advertised[0]}:{self.advertised[1]}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an errand. `errors`: names of Kafka's errors, or the client's own, by topic; "" is all of it.
    `values`: how many messages were sent or got, by topic. `seen`: topics that were listed. `ports`: from which it has
    connected so far. Times are of the monotonic clock."""

    errors: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, int] = field(default_factory=dict)
    seen: tuple[str, ...] = ()
    note: str = ""
    ports: tuple[int, ...] = ()
    begun: float = 0.0
    ended: float = 0.0

    @classmethod
    def of(cls, text: str) -> Outcome:
        """What `text` gives back. Raises ValueError."""
        plain = json.loads(text)
        return cls(**(plain | {name: tuple(plain[name]) for name in ("seen", "ports")}))

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        parts = [f"{topic or 'all of it'}: {error}" for topic, error in sorted(self.errors.items())]
        parts += [f"{topic}: {count} messages" for topic, count in sorted(self.values.items())]
        parts += [f"topics {' '.join(self.seen)}"] if self.seen else []
        return "; ".join(parts + ([self.note] if self.note else [])) or "nothing"


def _client(order: Order) -> Callable[[], Outcome]:
    module = importlib.import_module(f"conformance.{MODULES[order.courier]}")
    made: Callable[[], Outcome] = module.client(order)
    return made


def _timed(work: Callable[[], Outcome], relay: Relay) -> Outcome:
    begun = time.monotonic()
    outcome = work()
    return replace(outcome, ports=tuple(relay.ports), begun=begun, ended=time.monotonic())


def main() -> None:
    order = Order.of(sys.argv[1])
    relay = Relay(order.remote)
    relay.listen_in_background(order.advertised)
    work = _client(order)
    for _ in sys.stdin if order.repeats else [""]:
        print(_timed(work, relay).text, flush=True)
    os._exit(0)  # whatever a client would still do at its end is no part of the errand


if __name__ == "__main__":
    main()
