"""What is done with answers on their way, beyond passing them: learning, narrowing, hiding, completing. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from l7proxy.kafka import schema
from l7proxy.kafka.answers import Rewrite, Treatment, Watch
from l7proxy.kafka.apis import API_VERSIONS, FETCH, METADATA, SASL_HANDSHAKE, Code
from l7proxy.kafka.codec import Message, encode, read
from l7proxy.kafka.knowledge import Knowledge
from l7proxy.kafka.refusals import CodeOf, frame, has_tags
from l7proxy.kafka.scan import Found, Plan, plan
from l7proxy.kafka.splits import IsAllowed, hide, insertion, merge
from l7proxy.kafka.subjects import Subject
from l7proxy.kafka.wire import INT16, INT32, Cursor

LOOKUP_VERSION: Final = 12  # first of Metadata in which topics can be asked for by id (KIP-516)
LOOKUP_MAX: Final = 10_000  # topics that are asked for at once
_IDS_SINCE: Final = 10  # version of Metadata whose answers have topic ids
_FRAMED_SASL: Final = 1  # version of SaslHandshake since which what follows has frames
_NO_TAGS: Final = schema.Struct(True, (), {})
_CORRELATION: Final = 4
_TOPICS: Final = ("topics.error_code", "topics.name", "topics.topic_id")


def rewrite(key: int, version: int, change: Callable[[Message], None]) -> Rewrite:
    """Decode the answer, change it, and write it again. What comes after its last field stays, as clients do not mind:
    there are brokers that send more."""

    def made(content: memoryview) -> bytes:
        cursor = Cursor(content, _CORRELATION)
        if has_tags(key, version):
            read(_NO_TAGS, cursor)
        message = read(schema.response(key, version), cursor)
        change(message)
        (correlation,) = INT32.unpack_from(content)
        return frame(key, version, correlation, message)[INT32.size :] + content[cursor.at :]

    return Rewrite(made)


def narrowed(version: int) -> Rewrite:
    """ApiVersions without what could not be judged: APIs that are not known, and newer versions. A broker that does not
    know the version of the request says so in its own way (KIP-511; librdkafka's mock in yet another), and the client
    asks again: that passes as it is."""
    made = rewrite(API_VERSIONS, version, _narrow).made

    def narrow(content: memoryview) -> bytes:
        error = content[_CORRELATION : _CORRELATION + INT16.size]
        return bytes(content) if error == INT16.pack(Code.UNSUPPORTED_VERSION) else made(content)

    return Rewrite(narrow)


def _narrow(message: Message) -> None:
    kept = []
    for entry in message["api_keys"]:
        known = schema.api(entry["api_key"])
        first = max(entry["min_version"], _FRAMED_SASL if entry["api_key"] == SASL_HANDSHAKE else 0)
        last = min(entry["max_version"], known.last) if known else -1
        if first <= last:
            kept.append({**entry, "min_version": first, "max_version": last})
    message["api_keys"] = kept


def learning(version: int, known: Knowledge) -> Treatment:
    """Metadata teaches the names of topic ids; None in versions that do not."""
    if version < _IDS_SINCE:
        return None

    def then(found: list[Found]) -> None:
        values = [value for path, value in found if path in _TOPICS]
        for error, name, number in zip(*[iter(values)] * len(_TOPICS), strict=False):
            _learn(known, error, name, number)

    return Watch(_topics_plan(version), then)


def _learn(known: Knowledge, error: int, name: str | None, number: bytes) -> None:
    if error == Code.NONE and name and any(number):
        known.learn(number, name)


@lru_cache(64)
def _topics_plan(version: int) -> Plan:
    return plan(schema.response(METADATA, version), _TOPICS)


def lookup(numbers: list[bytes], correlation: int, client_id: str) -> bytes:
    """A request for the names of these topic ids."""
    topics = [{"topic_id": number, "name": None} for number in numbers]
    asked = {"topics": topics, "allow_auto_topic_creation": False, "include_topic_authorized_operations": False}
    name = client_id.encode()
    header = INT16.pack(METADATA) + INT16.pack(LOOKUP_VERSION) + INT32.pack(correlation)
    header += INT16.pack(len(name)) + name + b"\0"
    body = encode(schema.request(METADATA, LOOKUP_VERSION), asked)
    return INT32.pack(len(header) + len(body)) + header + body


def looked_up(known: Knowledge, then: Callable[[], None]) -> Rewrite:
    """The answer to `lookup`, which nobody else gets."""

    def change(message: Message) -> None:
        for topic in message["topics"]:
            _learn(known, topic["error_code"], topic["name"], topic["topic_id"])

    taught = rewrite(METADATA, LOOKUP_VERSION, change)

    def made(content: memoryview) -> bytes:
        taught.made(content)
        then()
        return b""

    return Rewrite(made)


def opening(version: int, known: Knowledge, topics: list[Subject]) -> Watch:
    """The answer to Fetch says which session holds these topics from now on."""

    def then(found: list[Found]) -> None:
        values = dict(found)
        if values.get("error_code") == Code.NONE and values.get("session_id"):
            known.extend(values["session_id"], topics)

    wanted = ("error_code", "session_id")
    return Watch(plan(schema.response(FETCH, version), wanted), then, len(wanted))


def completing(key: int, version: int, message: Message, code_of: CodeOf, hidden: IsAllowed | None) -> Treatment:
    """The answer to a request from which topics were taken gets them again, with their errors. `hidden`: it asks for
    all topics, too; take out those for which this is not so."""
    if hidden is None and (lacking := insertion(key, version, message, code_of)) is not None:
        return lacking

    def change(answered: Message) -> None:
        if hidden is not None:
            hide(key, version, answered, hidden)
        merge(key, version, message, answered, code_of)

    return rewrite(key, version, change)


def hiding(key: int, version: int, known: Knowledge, is_allowed: IsAllowed) -> Rewrite:
    """The answer to who asks for all topics, without those that are not allowed."""

    def change(answered: Message) -> None:
        if key == METADATA and version >= _IDS_SINCE:
            for topic in answered["topics"]:
                _learn(known, topic["error_code"], topic["name"], topic["topic_id"])
        hide(key, version, answered, is_allowed)

    return rewrite(key, version, change)
