"""DnsAccess messages, written by hand. Pure.

A protobuf library makes one in twice the time, and every query pays for two: most of it goes into calls that set a
field each. What repeats (who asks whom, by which rule) is encoded once for a page. Numbers and types are those of
xds/protos/deflector/l7/v1/reports.proto, and a test holds every message against the library.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from agent.proxies.inside.wire_format import blob, number, varint
from l7proxy.dns.answers import Gist
from l7proxy.dns.transactions import Client
from l7proxy.dns.wire import Question
from policies.types import Protocol

_CACHED: Final = 1024  # of what was encoded last: most of it comes again
_CACHED_RECORDS: Final = 32  # of one answer; longer ones are encoded each time


def common(slot: int, rule: int, client: Client) -> bytes:
    """What the accesses of one pod to one server have in common."""
    return b"".join(
        (
            number(b"\x08", slot),
            blob(b"\x12", client.pod.encode()),
            blob(b"\x22", client.server.encode()),
            number(b"\x28", client.server_port),
            b"\x30\x01" if client.protocol is Protocol.TCP else b"",
            number(b"\x50", rule),
        )
    )


def asked(client: Client, questions: tuple[Question, ...]) -> bytes:
    """What differs from query to query. The first question's name stands for all."""
    return b"\x1d" + client.pod_port.to_bytes(4, "little") + _questions(questions)


@lru_cache(_CACHED)
def _questions(questions: tuple[Question, ...]) -> bytes:
    if not questions:
        return b""
    name = questions[0].name.encode()
    types = (questions[0].qtype,) if len(questions) == 1 else tuple([question.qtype for question in questions])
    return b"\x3a" + varint(len(name)) + name + _types(b"\x42", types)


def refused(verdict: int, reason: str) -> bytes:
    """Why it came to nothing."""
    return number(b"\x48", verdict) + (blob(b"\x5a", reason.encode()) if reason else b"")


def answered(rcode: int, gist: Gist, rrtypes: tuple[int, ...]) -> bytes:
    """The answer."""
    encode = _answer if len(gist.addresses) + len(gist.cnames) <= _CACHED_RECORDS else _answer.__wrapped__
    return encode(rcode, gist, rrtypes)


@lru_cache(_CACHED)
def _answer(rcode: int, gist: Gist, rrtypes: tuple[int, ...]) -> bytes:
    parts = [number(b"\x08", rcode)]
    parts += [b"\x12" + varint(len(address)) + address for address in gist.addresses]
    parts += [blob(b"\x1a", cname.encode()) for cname in gist.cnames]
    parts += [number(b"\x20", gist.ttl), _types(b"\x2a", rrtypes)]
    return blob(b"\x62", b"".join(parts))


@lru_cache(_CACHED)
def _types(tag: bytes, types: tuple[int, ...]) -> bytes:
    return blob(tag, b"".join(map(varint, types))) if types else b""
