"""Every request that there is can be refused, in the version that it is asked in, by an answer that kio can read."""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kio.serial import entity_reader

from l7proxy.kafka import schema
from l7proxy.kafka.apis import METADATA, Code, conduct
from l7proxy.kafka.codec import decode
from l7proxy.kafka.refusals import answer, code_of, frame, has_tags
from l7proxy.kafka.splits import cut, insertion
from l7proxy.kafka.subjects import Subject, subjects
from tests.l7proxy.kafka.kio_messages import anything, entity, every, wire

REQUESTS = [(key, version) for key, version, kind in every() if kind == "request"]


STILL_ASKED = [(METADATA, version) for version in range(1, 14)]


def errors(message: Any) -> Iterator[int]:
    """Every error code in an answer as kio reads it."""
    if isinstance(message, enum.Enum):
        yield message.value
    elif isinstance(message, tuple):
        for one in message:
            yield from errors(one)
    elif dataclasses.is_dataclass(message):
        for field in dataclasses.fields(message):
            yield from errors(getattr(message, field.name))


def is_empty(message: dict[str, Any]) -> bool:
    """Whether some list in the request has no entries, so that its answer has no place for an error."""
    return any(not value if isinstance(value, list) else False for value in message.values()) or any(
        is_empty(one) for value in message.values() if isinstance(value, list) for one in value if isinstance(one, dict)
    )


@given(st.integers(0, 2**63))
def test_every_request_can_be_refused(seed: int) -> None:
    source = random.Random(seed)
    key, version = source.choice(REQUESTS)
    message = decode(schema.request(key, version), wire(anything(source, entity(key, version, "request"))))
    code = code_of(key, message)
    said = frame(key, version, 7, answer(key, version, message, code))
    assert said[:8] == (len(said) - 4).to_bytes(4, "big") + (7).to_bytes(4, "big")
    read, size = entity_reader(entity(key, version, "response"))(said[8 + has_tags(key, version) :], 0)
    assert size == len(said) - 8 - has_tags(key, version)
    found = set(errors(read))
    assert found <= {Code.NONE, code}
    assert code in found or is_empty(message) or None in message.values()


@given(st.integers(0, 2**63))
def test_what_is_cut_out_of_a_request_comes_back_in_its_answer(seed: int) -> None:
    """For every API whose requests are forwarded in part."""
    source = random.Random(seed)
    key, version = source.choice([one for one in REQUESTS if conduct(one[0]).split])
    message = decode(schema.request(key, version), wire(anything(source, entity(key, version, "request"))))
    named = subjects(key, version, message)
    refused = {one for one in named if source.random() < 0.5 and not one.all}
    if refused == set(named) and (key, version) not in STILL_ASKED:
        return  # nothing is forwarded then: without topics, some would ask for all

    def codes(one: Subject) -> Code:
        return Code.TOPIC_AUTHORIZATION_FAILED if one in refused else Code.NONE

    kept = cut(key, version, message, lambda one: one not in refused)
    assert subjects(key, version, kept) == [one for one in named if one not in refused] or any(one.all for one in named)
    lacking = insertion(key, version, message, codes)
    if lacking is not None:
        assert lacking.count == sum(one in refused for one in named)
        assert bool(lacking.content) == bool(lacking.count)
