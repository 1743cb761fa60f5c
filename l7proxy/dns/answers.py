"""What an answer teaches: which addresses belong to the name that was asked for (facts 6.3). Pure.

Addresses count for a name only along the chain of CNAMEs that begins at it, in whatever order the records come. An
address or alias of any other name makes the whole answer foreign: no policy allowed asking for that name.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from l7proxy.dns.wire import NOERROR, TRANSFERS, TYPE_CNAME, Question, Record, Response

_REMEMBERED: Final = 1024  # answers that were looked at last: most come again as they were
_REMEMBERED_RECORDS: Final = 32  # of one; more are looked at each time
NO_TTL: Final = 0xFFFFFFFF  # Cilium's lowest TTL of an answer without records (facts, hubble.md 5.2)


class ForeignAnswer(Exception):
    """The answer speaks of names that the question does not lead to; the text is the first of them."""


class Learned(NamedTuple):
    """A name that was asked for, and its addresses (packed, 4 or 16 bytes) for `ttl` seconds. `targets` are the other
    names of its chain."""

    name: str
    addresses: tuple[bytes, ...]
    ttl: int
    targets: tuple[str, ...] = ()


class Gist(NamedTuple):
    """What is told about an answer."""

    learned: tuple[Learned, ...] = ()
    addresses: tuple[bytes, ...] = ()
    cnames: tuple[str, ...] = ()
    ttl: int = NO_TTL  # seconds, the lowest


_NOTHING: Final = Gist()


def gist(questions: tuple[Question, ...], response: Response) -> Gist:
    """What the answer to these questions teaches; ForeignAnswer where it goes beyond them. Only NOERROR teaches."""
    records = response.records
    if response.rcode != NOERROR or not records:
        return _NOTHING
    look = _gist if len(records) <= _REMEMBERED_RECORDS else _gist.__wrapped__
    return look(questions, records)


@lru_cache(_REMEMBERED)
def _gist(questions: tuple[Question, ...], records: tuple[Record, ...]) -> Gist:
    if any(q.qtype in TRANSFERS for q in questions):
        return _NOTHING
    if len(questions) == 1 and {record.owner if record.address else "" for record in records} == {questions[0].name}:
        addresses, ttl = tuple([record.address for record in records]), min([record.ttl for record in records])
        return Gist((Learned(questions[0].name, tuple(dict.fromkeys(addresses)), ttl),), addresses, (), ttl)
    chains = _chains(questions, records)
    reached = set().union(*chains.values())
    for record in records:
        if record.owner not in reached:
            raise ForeignAnswer(record.owner)
    learned = tuple(one for name, chain in chains.items() if (one := _learn(name, chain, records)) is not None)
    return Gist(
        learned,
        tuple(record.address for record in records if record.address),
        tuple(record.target for record in records if record.rrtype == TYPE_CNAME),
        min(record.ttl for record in records),
    )


def _chains(questions: tuple[Question, ...], records: tuple[Record, ...]) -> dict[str, tuple[str, ...]]:
    """For each name that was asked for, itself and all that it leads to."""
    aliases: dict[str, list[str]] = {}
    for record in records:
        if record.rrtype == TYPE_CNAME:
            aliases.setdefault(record.owner, []).append(record.target)
    return {question.name: _chain(question.name, aliases) for question in questions}


def _chain(name: str, aliases: dict[str, list[str]]) -> tuple[str, ...]:
    """The name and all that it leads to. Ends, as each name is followed once, and names are bounded by the message."""
    chain = {name: None}
    waiting = [name] if aliases else []
    while waiting:
        for target in aliases.get(waiting.pop(), ()):
            if target not in chain:
                chain[target] = None
                waiting.append(target)
    return tuple(chain)


def _learn(name: str, chain: tuple[str, ...], records: tuple[Record, ...]) -> Learned | None:
    ours = [record for record in records if record.owner in chain]
    addresses = tuple(dict.fromkeys(record.address for record in ours if record.address))
    if not addresses:
        return None
    return Learned(name, addresses, min(record.ttl for record in ours), chain[1:])
