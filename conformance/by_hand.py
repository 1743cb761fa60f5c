"""Errands by a socket, in the oldest versions of Kafka's protocol: clients do not ask a broker for what it does not
offer, but what is refused to them is refused whatever the broker offers. Runs inside conformance.kafka_client only.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence

from conformance.kafka_client import Order, Outcome

CREATE, DELETE, CORRELATION, TIMEOUT_MS = 19, 20, 66, 1000
ERRORS = {29: "TOPIC_AUTHORIZATION_FAILED", 31: "CLUSTER_AUTHORIZATION_FAILED"}


def client(order: Order) -> Callable[[], Outcome]:
    """What does the job, on a connection of its own each time."""
    return lambda: _ask(order)


def _ask(order: Order) -> Outcome:
    try:
        with socket.create_connection(order.advertised, order.patience) as asked:
            asked.sendall(request(order))
            said = asked.recv(1 << 16)
    except TimeoutError:
        return Outcome({"": "TIMED_OUT"})
    except OSError as error:
        return Outcome({"": "CLOSED"}, note=str(error))
    return read(said) if said else Outcome({"": "CLOSED"})


def request(order: Order) -> bytes:
    """CreateTopics or DeleteTopics, version 0, with its length."""
    key = {"create": CREATE, "delete": DELETE}[order.job]
    # one partition, one replica; no assignments, no settings
    more = struct.pack(">ihii", 1, 1, 0, 0) if key == CREATE else b""
    topics = [_text(topic) + more for topic in order.topics]
    head = struct.pack(">hhi", key, 0, CORRELATION) + _text(order.client_id or "by-hand")
    return _framed(head + _array(topics) + struct.pack(">i", TIMEOUT_MS))


def read(said: bytes) -> Outcome:
    """The error of each topic of an answer."""
    errors, values = {}, {}
    (count,) = struct.unpack_from(">i", said, 8)  # behind length and correlation id
    at = 12
    for _ in range(count):
        (length,) = struct.unpack_from(">h", said, at)
        topic = said[at + 2 : at + 2 + length].decode()
        (code,) = struct.unpack_from(">h", said, at + 2 + length)
        at += 4 + length
        if code:
            errors[topic] = ERRORS.get(code, str(code))
        else:
            values[topic] = 1
    return Outcome(errors, values)


def _framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _array(entries: Sequence[bytes]) -> bytes:
    return struct.pack(">i", len(entries)) + b"".join(entries)
