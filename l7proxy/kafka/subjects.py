"""Which topics a request names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from l7proxy.kafka import schema
from l7proxy.kafka.apis import SELF, Conduct, Each, conduct
from l7proxy.kafka.codec import Message
from l7proxy.kafka.scan import Found, Plan, plan


class Subject(NamedTuple):
    """A topic, by name or id. One with neither is something that nobody can say the topics of; one that is `all` asks
    for every topic that there is."""

    name: str | None = None
    id: bytes | None = None
    all: bool = False


ALL: Final = Subject(all=True)
UNKNOWABLE: Final = Subject()


def subjects(key: int, version: int, message: Message) -> list[Subject]:
    """What a request asks about, in its order; empty if it names no topic."""
    found: list[Subject] = []
    for each in conduct(key).due(schema.request(key, version)):
        if each.is_of_topics:
            found += _of(each, message, version)
    return found


def subject(each: Each, entry: Any) -> Subject | None:
    """That of one entry of such an array; None if it names none."""
    if each.topic == SELF:
        return UNKNOWABLE if each.pattern else Subject(entry)
    if any(entry.get(field, value) != value for field, value in each.only):
        return UNKNOWABLE
    name = entry.get(each.topic)
    if name is not None:
        if each.pattern:
            return UNKNOWABLE if name else None
        return Subject(name)
    if each.pattern:
        return None
    number = entry.get(each.id)
    return UNKNOWABLE if number is None else Subject(None, number)


def entries(asked: str, message: Message) -> list[Any] | None:
    """The entries of an array, by its path ("": the request itself); None if it, or what it is in, is null."""
    if not asked:
        return [message]
    first, _, rest = asked.partition(".")
    value = message.get(first)
    if not rest or value is None:
        return value
    inside = value if isinstance(value, list) else [value]
    return [entry for one in inside for entry in entries(rest, one) or ()]


def _of(each: Each, message: Message, version: int) -> Iterator[Subject]:
    if not each.asked:
        found = subject(each, message)
        if found is not None:
            yield found
        return
    listed = entries(each.asked, message)
    if listed is None:
        if each.null_is_all:
            yield ALL
        return
    if not listed and version <= each.empty_is_all:
        yield ALL
    for entry in listed:
        if each.topic or each.id:
            found = subject(each, entry)
            if found is not None:
                yield found
        elif each.inner is not None:
            yield from _of(each.inner, entry, version)


# --- the same of a message that is scanned as it arrives: of the APIs whose requests may be large ---


class Scannable(NamedTuple):
    """A plan whose finds are the topics, and the paths of these: "" for what the version does not have."""

    plan: Plan
    array: str
    name: str
    id: str
    null_is_all: bool
    empty_is_all: bool


@lru_cache(512)
def scannable(key: int, version: int, more: tuple[str, ...] = ()) -> Scannable | None:
    """How to find the topics of a request on its way; `more`: other paths to pick out. None if it cannot be done: they
    are not the entries of one array."""
    struct = schema.request(key, version)
    due = [each for each in conduct(key).due(struct) if each.is_of_topics]
    if len(due) != 1:
        return None
    (each,) = due
    array = struct.field(each.asked)
    if array is None or array.struct is None or each.only or each.pattern:
        return None
    name, number = (
        f"{each.asked}.{field}" if field and array.struct.field(field) is not None else ""
        for field in (each.topic, each.id)
    )
    if not name and not number:
        return None
    followed = plan(struct, (each.asked, name, number, *more))
    return Scannable(followed, each.asked, name, number, each.null_is_all, version <= each.empty_is_all)


def scanned(made: Scannable, found: Sequence[Found]) -> tuple[list[Subject], bool]:
    """The topics that were found, and whether these are all."""
    count = next((value for path, value in found if path == made.array), None)
    if count is None:
        return [], False
    if (count < 0 and made.null_is_all) or (count == 0 and made.empty_is_all):
        return [ALL], True
    names = [value for path, value in found if path == made.name] if made.name else []
    numbers = [value for path, value in found if path == made.id] if made.id else []
    if not made.id:
        named = [Subject(name) for name in names]
    elif not made.name:
        named = [Subject(None, number) for number in numbers]
    else:
        both = zip(names, numbers, strict=False)
        named = [Subject(None, number) if name is None else Subject(name) for name, number in both]
    return named, len(named) >= count


def is_of_topics(key: int) -> bool:
    """Whether requests of the API may name topics."""
    made: Conduct = conduct(key)
    return made.is_of_topics
