"""Throws millions of messages at the codec: `python -m tests.l7proxy.dns.millions 10000000 [seed]`.

Real messages with bytes changed, cut, doubled or taken from each other, and plain noise. The invariant: a query, an
answer and what it teaches, or the protocol error; never anything else. Prints what came of them.
"""

from __future__ import annotations

import random
import sys
from collections import Counter

from l7proxy.dns.answers import ForeignAnswer, gist
from l7proxy.dns.names_on_wire import WireError
from l7proxy.dns.replies import format_error, refusal
from l7proxy.dns.wire import Query, Response, read_query, read_response
from tests.l7proxy.dns.make import answer, query

_SEEDS = [
    query("www.example.org", use_edns=True),
    query("a.b.c.d.example.org", "AAAA", want_dnssec=True),
    query("x", "ANY"),
    answer(query("www.example.org"), "www.example.org. 30 IN A 192.0.2.1", "www.example.org. 30 IN A 192.0.2.2"),
    answer(
        query("www.example.org", use_edns=True),
        "www.example.org. 30 IN CNAME a.cdn.net.",
        "a.cdn.net. 30 IN CNAME b.cdn.net.",
        "b.cdn.net. 30 IN AAAA 2001:db8::1",
        'b.cdn.net. 30 IN TXT "x"',
    ),
    b"\0\1\x81\x80\0\1\0\2\0\0\0\0\1a\0\0\1\0\1\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x0c\xc0\x1a\0\1\0\1\0\0\0\1\0\4abcd",
]


def messages(source: random.Random) -> bytes:
    """The next one."""
    if source.random() < 0.05:
        return source.randbytes(source.randrange(80))
    message = bytearray(source.choice(_SEEDS))
    for _ in range(source.randrange(5)):
        at = source.randrange(len(message) + 1)
        match source.randrange(5):
            case 0 | 1 if at < len(message):
                message[at] = source.choice((0, 1, 0x0C, 0x3F, 0x40, 0xC0, 0xFF, source.randrange(256)))
            case 2:
                del message[at:]
            case 3:
                message[at:at] = message[max(0, at - source.randrange(20)) : at]
            case _:
                other = source.choice(_SEEDS)
                message[at:] = other[source.randrange(len(other)) :]
    return bytes(message)


def try_one(message: bytes) -> str:
    """What the codec makes of it, in a word."""
    outcome = "malformed"
    try:
        asked: Query = read_query(message)
        read_query(refusal(message, asked, 5)[:2] + b"\0\0" + refusal(message, asked, 5)[4:])
        outcome = "query"
    except WireError:
        format_error(message)
    try:
        said: Response = read_response(message)
        outcome = "answer"
        gist(said.questions, said)
    except WireError:
        pass
    except ForeignAnswer:
        outcome = "foreign answer"
    return outcome


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    source, seen = random.Random(seed), Counter[str]()
    for _ in range(count):
        message = messages(source)
        try:
            seen[try_one(message)] += 1
        except Exception:
            print(f"broken by {message.hex()}", file=sys.stderr)
            raise
    print(f"{count} messages: {dict(sorted(seen.items()))}")


if __name__ == "__main__":
    main()
