"""Throws millions of inputs at a connection: `python -m tests.l7proxy.kafka.millions 10000000 [seed]`.

Real requests and answers of every API and version (kio's) with bytes changed, cut, doubled or taken from each other,
and plain noise, in pieces, from both sides. The invariant: what the codec says is a message, or the protocol error; the
connection forwards, answers or ends. Nothing else ever escapes. Prints what came of them.
"""

from __future__ import annotations

import random
import struct
import sys
from collections import Counter

from l7proxy.kafka import schema
from l7proxy.kafka.codec import decode
from l7proxy.kafka.request import HOLD_MAX
from l7proxy.kafka.wire import WireError
from tests.l7proxy.kafka.kio_messages import anything, entity, every, wire
from tests.l7proxy.kafka.make import ANNOUNCE, PLANS, Wire, rule
from tests.l7proxy.kafka.make import wire as connection

POOL = 6000  # messages that inputs are made of
PER_CONNECTION = 40


class Pool:
    """Bodies of messages, by key, version and kind."""

    def __init__(self, source: random.Random) -> None:
        kinds = every()
        self.bodies = []
        self.answers: dict[tuple[int, int], list[bytes]] = {}
        for _ in range(POOL):
            key, version, kind = source.choice(kinds)
            body = wire(anything(source, entity(key, version, kind)))
            for word in (b"empire-announce", b"deathstar-plans"):
                if source.random() < 0.3:
                    body = body.replace(word, (ANNOUNCE if source.random() < 0.7 else PLANS).encode())
            self.bodies.append((key, version, kind, body))
            if kind == "response":
                self.answers.setdefault((key, version), []).append(body)


def mangled(source: random.Random, pool: Pool, content: bytes) -> bytes:
    """Some bytes of it changed, cut, doubled, or another's."""
    message = bytearray(content)
    for _ in range(source.choice((0, 0, 1, 1, 2, 4))):
        at = source.randrange(len(message) + 1)
        match source.randrange(5):
            case 0 | 1 if at < len(message):
                message[at] = source.choice((0, 1, 2, 0x7F, 0x80, 0xFF, source.randrange(256)))
            case 2:
                del message[at:]
            case 3:
                message[at:at] = message[max(0, at - source.randrange(20)) : at]
            case _:
                other = source.choice(pool.bodies)[3]
                message[at:] = other[source.randrange(len(other) + 1) :]
    return bytes(message)


def framed(source: random.Random, key: int, version: int, body: bytes, number: int) -> bytes:
    """As a request."""
    flexible = schema.is_known(key, version) and schema.is_flexible(key, version)
    header = struct.pack(">hhih", key, version, number, 3) + b"tie" + (b"\0" if flexible else b"")
    size = len(header) + len(body)
    if source.random() < 0.01:
        size = source.choice((0, -1, 7, 0x7FFFFFFF, size + 1, max(size - 1, 0)))
    return struct.pack(">i", size) + header + body


def one(source: random.Random, pool: Pool, there: Wire, number: int) -> str:
    """One input for the connection, and one for the codec; what came of it."""
    key, version, kind, body = source.choice(pool.bodies)
    body = mangled(source, pool, body)
    table = schema.request if kind == "request" else schema.response
    outcome = "message"
    try:
        decode(table(key, version), body)
    except WireError:
        outcome = "malformed"
    if source.random() < 0.02:
        body = source.randbytes(source.randrange(80))
    piece = source.choice((0, 0, 1, 7))
    if kind == "request":
        there.says(framed(source, key, version, body, number), piece)
    else:
        expected = there.exchange.answers._queue
        if not expected and source.random() < 0.95:
            return outcome
        correlation = number
        if expected and not isinstance(expected[0], bytes):
            correlation = expected[0].correlation
            same = pool.answers.get((expected[0].key, expected[0].version))
            if same and source.random() < 0.7:
                body = mangled(source, pool, source.choice(same))
        size = 4 + len(body) if source.random() < 0.99 else source.choice((0, 3, -1, 0x7FFFFFFF))
        there.answers(struct.pack(">ii", size, correlation) + body, piece)
    assert there.exchange.held <= HOLD_MAX
    there.to_server()
    there.to_client()
    return outcome


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    source, seen = random.Random(seed), Counter[str]()
    pool = Pool(source)
    kinds = [
        lambda: connection(rule(role="produce", topic=ANNOUNCE), rule(role="consume", topic=ANNOUNCE)),
        lambda: connection(rule(topic=ANNOUNCE)),
        lambda: connection(rule()),
        connection,
    ]
    there, age = kinds[0](), 0
    for number in range(count):
        try:
            seen[one(source, pool, there, number & 0x7FFFFFFF)] += 1
        except Exception:
            print(f"broken by input {number} of seed {seed}", file=sys.stderr)
            raise
        age += 1
        if there.exchange.is_over or there.exchange.is_broken or age > PER_CONNECTION:
            seen["connections"] += 1
            for record in there.records:
                seen[f"records: {record.reason or 'allowed'}"] += 1
            there, age = source.choice(kinds)(), 0
    for what, times in sorted(seen.items()):
        print(f"{times:12,} {what}")


if __name__ == "__main__":
    main()
