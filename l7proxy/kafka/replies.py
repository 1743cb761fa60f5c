"""What becomes of a request that is not simply forwarded: our answer, or the part that is forwarded. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from l7proxy.kafka import schema, splits
from l7proxy.kafka.answers import Treatment
from l7proxy.kafka.apis import API_VERSIONS, FETCH, FIND_COORDINATOR, INIT_PRODUCER_ID, SHARE_FETCH, Code, conduct
from l7proxy.kafka.codec import encode
from l7proxy.kafka.refusals import Unanswerable, answer, code_of, frame
from l7proxy.kafka.request import Request
from l7proxy.kafka.treatments import completing
from l7proxy.kafka.verdicts import Panel
from l7proxy.kafka.wire import INT32

_NO_SESSION: Final = {"session_id": 0, "session_epoch": -1, "forgotten_topics_data": []}
_SESSION_GONE: Final = {
    FETCH: Code.FETCH_SESSION_ID_NOT_FOUND,
    SHARE_FETCH: Code.SHARE_SESSION_NOT_FOUND,
}


class Denial(NamedTuple):
    """An answer, and the code that it is about."""

    frame: bytes
    code: Code


class Part(NamedTuple):
    """What is forwarded of a request, as a frame, and what is done with the answer to it."""

    frame: bytes
    treatment: Treatment


def needs_body(request: Request) -> bool:
    """Whether our answer depends on more than the head of the request."""
    key = request.head.key
    if not request.is_known:
        return False
    return bool(conduct(key).each) or key in (FIND_COORDINATOR, INIT_PRODUCER_ID)


def denied(request: Request) -> Denial:
    """The answer that refuses all of a request. Unanswerable where there is none; WireError: it is no such request."""
    at = request.head
    if not request.is_known:
        return Denial(_unknown(request), Code.UNSUPPORTED_VERSION)
    message = request.message() if needs_body(request) else {}
    code = code_of(at.key, message)
    return Denial(frame(at.key, at.version, at.correlation, answer(at.key, at.version, message, code)), code)


def denied_by_topic(request: Request, panel: Panel) -> bytes:
    """The answer that refuses all of a request because of some of its topics."""
    at = request.head
    subjects, _ = request.subjects()
    top = next((code for one in subjects if (code := panel.code(one))), conduct(at.key).code)
    message = request.message() if needs_body(request) else {}
    made = answer(at.key, at.version, message, top, panel.code_as_whole)
    return frame(at.key, at.version, at.correlation, made)


def session_gone(request: Request) -> bytes:
    """The answer after which a client opens its session anew."""
    at = request.head
    return frame(at.key, at.version, at.correlation, {"error_code": _SESSION_GONE[at.key]})


def part(request: Request, panel: Panel) -> Part:
    """The request without the topics that are refused. One to fetch gets no session: that would hold other topics than
    the client believes."""
    key, version = request.head.key, request.head.version
    message = request.message()
    kept = splits.cut(key, version, message, panel.is_allowed)
    if key == FETCH:
        kept |= _NO_SESSION
    header, body = request.header(), encode(schema.request(key, version), kept)
    subjects, _ = request.subjects()
    hidden = panel.is_allowed if any(one.all for one in subjects) else None
    treatment = completing(key, version, message, panel.code, hidden)
    return Part(INT32.pack(len(header) + len(body)) + header + body, treatment)


def _unknown(request: Request) -> bytes:
    """Of an API or version that nobody can read: there is an answer only to who asks which versions there are, and that
    is in version 0 (KIP-511)."""
    at = request.head
    if at.key != API_VERSIONS:
        raise Unanswerable("not known")
    known = schema.apis()[API_VERSIONS]
    offered = [{"api_key": API_VERSIONS, "min_version": 0, "max_version": known.last}]
    return frame(at.key, 0, at.correlation, {"error_code": Code.UNSUPPORTED_VERSION, "api_keys": offered})
