"""Answers that say no, in the version that was asked: of a whole request, or of those topics that are refused. Pure.

A request that names topics is answered topic by topic (and partition by partition); any other at the top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from l7proxy.kafka import schema
from l7proxy.kafka.apis import FIND_COORDINATOR, INIT_PRODUCER_ID, SASL_HANDSHAKE, SELF, Code, Each, conduct
from l7proxy.kafka.codec import Message, encode
from l7proxy.kafka.subjects import Subject, entries, subject
from l7proxy.kafka.wire import INT32

CodeOf = Callable[[Subject], Code]
_ERRORS: Final = ("error_code", "partition_error_code")
_TRANSACTION: Final = 1  # key type of FindCoordinator
_NOTHING: Final = (  # fields whose -1 says that there is nothing, as brokers write them beside an error
    *("base_offset", "high_watermark", "committed_offset", "low_watermark", "node_id", "port", "producer_id"),
    "producer_epoch",
)


class Unanswerable(Exception):
    """The answer of the API has no place for an error."""


def answer(key: int, version: int, message: Message, top: Code, code_of: CodeOf | None = None) -> Message:
    """The answer that says no to a request, by `top`; or, if `code_of` tells them apart, to each topic by its code.
    Unanswerable where the answer has no place for that."""
    code_of = _always(top) if code_of is None else code_of
    struct = schema.response(key, version)
    made = _empty(struct)
    told = False
    for each in conduct(key).due(schema.request(key, version)):
        if each.answer and struct.field(each.answer) is not None:
            listed = _mirrored(each, message, _inner(struct, each.answer), code_of, top)
            made[each.answer] = made.get(each.answer, []) + listed
            told = told or bool(listed)
    error = _error_field(struct)
    if error is not None:
        made[error] = Code.NONE if told else top  # a client that reads an error here reads no further
    elif not told and error is None and not _tells_nothing(key):
        raise Unanswerable(f"{schema.apis()[key].name} version {version}")
    return made


def _mirrored(each: Each, message: Message, struct: schema.Struct, code_of: CodeOf, top: Code) -> list[Message]:
    """The entries of the answer's array, for all entries of the request's."""
    return [mirror(each, entry, struct, code_of, top) for entry in entries(each.asked, message) or ()]


def mirror(each: Each, entry: Any, struct: schema.Struct, code_of: CodeOf, top: Code) -> Message:
    """The answer's entry for an entry of the request."""
    made = _empty(struct)
    for field, of in each.copy:
        value, kept = entry if of == SELF else entry.get(of), struct.field(field)
        if kept is not None and (value is not None or kept.nullable):
            made[field] = value
    if each.topic or each.id:
        about = subject(each, entry)
        top = code_of(about) if about is not None else top
        code_of = _always(top)
    error = _error_field(struct)
    if each.inner is not None and each.inner.answer:
        made[each.inner.answer] = _mirrored(each.inner, entry, _inner(struct, each.inner.answer), code_of, top)
        if made[each.inner.answer]:
            return made
    if error is not None:
        made[error] = top
    return made


def frame(key: int, version: int, correlation: int, message: Message) -> bytes:
    """An answer with its header and length."""
    body = encode(schema.response(key, version), message)
    header = INT32.pack(correlation) + (b"\0" if has_tags(key, version) else b"")
    return INT32.pack(len(header) + len(body)) + header + body


def has_tags(key: int, version: int) -> bool:
    """Whether the header of the answer has tagged fields: not that of ApiVersions, which must be readable for those who
    do not know the version (KIP-511)."""
    return key != _API_VERSIONS and schema.is_flexible(key, version)


_API_VERSIONS: Final = 18


def code_of(key: int, message: Message) -> Code:
    """What a request is refused with as a whole."""
    if key == SASL_HANDSHAKE:
        return Code.UNSUPPORTED_VERSION
    if key == INIT_PRODUCER_ID and message.get("transactional_id") is None:
        return Code.CLUSTER_AUTHORIZATION_FAILED
    if key == FIND_COORDINATOR and message.get("key_type") == _TRANSACTION:
        return Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    return conduct(key).code


def _tells_nothing(key: int) -> bool:
    """Whether a request that names nothing may be answered with nothing."""
    return any(each.answer for each in conduct(key).each)


def _empty(struct: schema.Struct) -> Message:
    return {field.name: -1 for field in struct.fields if field.name in _NOTHING}


def _always(code: Code) -> CodeOf:
    return lambda _: code


def _inner(struct: schema.Struct, name: str) -> schema.Struct:
    field = struct.field(name)
    assert field is not None
    assert field.struct is not None
    return field.struct


def _error_field(struct: schema.Struct) -> str | None:
    return next((field.name for field in struct.fields if field.name in _ERRORS), None)
