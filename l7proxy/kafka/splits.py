"""Requests without the topics that are refused, and answers that have them again; answers without what is not to be
seen. Pure.

Two ways to complete an answer: `Insert`, into one that passes by, for all APIs whose topics are an array at its top;
`merge`, of one that was decoded, where topics are within groups.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from l7proxy.kafka import schema
from l7proxy.kafka.apis import SELF, Each, conduct
from l7proxy.kafka.codec import Message, write
from l7proxy.kafka.refusals import CodeOf, mirror
from l7proxy.kafka.scan import Plan, plan
from l7proxy.kafka.subjects import Subject, entries, subject

IsAllowed = Callable[[Subject], bool]


def cut(key: int, version: int, message: Message, is_allowed: IsAllowed) -> Message:
    """The request without the topics that are not allowed. Arrays that are null stay so."""
    made = dict(message)
    for each in conduct(key).due(schema.request(key, version)):
        if each.is_of_topics:
            made[each.asked] = _cut(each, message, is_allowed)
    return made


def _cut(each: Each, message: Message, is_allowed: IsAllowed) -> list[Any] | None:
    listed = entries(each.asked, message)
    if listed is None:
        return None
    if each.topic or each.id:
        return [entry for entry in listed if (about := subject(each, entry)) is None or is_allowed(about)]
    assert each.inner is not None
    return [{**entry, each.inner.asked: _cut(each.inner, entry, is_allowed)} for entry in listed]


# --- completing an answer on its way ---


class Insertion:
    """Entries for the array of an answer's topics, ready to be written before its own."""

    def __init__(self, array: str, followed: Plan, count: int, content: bytes) -> None:
        self.array = array
        self.plan = followed
        self.count = count
        self.content = content


def insertion(key: int, version: int, message: Message, code_of: CodeOf) -> Insertion | None:
    """What the answer to `cut` lacks: the refused topics of the whole request. None if topics are not at its top."""
    each = _flat(key, version)
    if each is None:
        return None
    struct = schema.response(key, version)
    inner = _inner(struct, each.answer)
    made = []
    for entry in entries(each.asked, message) or ():
        about = subject(each, entry)
        if about is not None and (code := code_of(about)):
            made.append(mirror(each, entry, inner, code_of, code))
    content: list[bytes | memoryview] = []
    for one in made:
        write(inner, one, content)
    return Insertion(each.answer, _until(key, version, each.answer), len(made), b"".join(content))


def _flat(key: int, version: int) -> Each | None:
    due = [each for each in conduct(key).due(schema.request(key, version)) if each.is_of_topics]
    return due[0] if len(due) == 1 and (due[0].topic or due[0].id) else None


@lru_cache(256)
def _until(key: int, version: int, array: str) -> Plan:
    return plan(schema.response(key, version), (array,))


# --- changing an answer that was decoded ---


def merge(key: int, version: int, message: Message, answered: Message, code_of: CodeOf) -> None:
    """Add to the answer, which was to `cut`, the topics of the request that are refused."""
    for each in conduct(key).due(schema.request(key, version)):
        if each.is_of_topics and each.inner is not None:
            _merge(each, message, answered, _inner(schema.response(key, version), each.answer), code_of)


def _merge(each: Each, message: Message, answered: Message, struct: schema.Struct, code_of: CodeOf) -> None:
    inner = each.inner
    assert inner is not None
    for entry in entries(each.asked, message) or ():
        same = [one for one in answered[each.answer] if _is_answer(each, entry, one)]
        for topic in entries(inner.asked, entry) or ():
            about = subject(inner, topic)
            if same and about is not None and (code := code_of(about)):
                same[0][inner.answer].append(mirror(inner, topic, _inner(struct, inner.answer), code_of, code))


def _is_answer(each: Each, entry: Any, answered: Message) -> bool:
    return all(answered.get(field) == (entry if of == SELF else entry.get(of)) for field, of in each.copy)


def hide(key: int, version: int, answered: Message, is_allowed: IsAllowed) -> None:
    """Take out of the answer what it says of topics that are not allowed."""
    for each in conduct(key).due(schema.request(key, version)):
        if each.is_of_topics and each.answer in answered:
            answered[each.answer] = _hide(each, answered[each.answer], is_allowed)


def _hide(each: Each, answered: list[Message], is_allowed: IsAllowed) -> list[Message]:
    if each.topic or each.id:
        name, number = each.names
        return [one for one in answered if is_allowed(_named(one.get(name), one.get(number)))]
    inner = each.inner
    assert inner is not None
    return [{**one, inner.answer: _hide(inner, one[inner.answer], is_allowed)} for one in answered]


def _named(name: str | None, number: bytes | None) -> Subject:
    return Subject(name) if name is not None else Subject(None, number)


def _inner(struct: schema.Struct, name: str) -> schema.Struct:
    field = struct.field(name)
    assert field is not None
    assert field.struct is not None
    return field.struct
