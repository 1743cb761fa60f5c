"""DNS messages as they come off the wire (RFC 1035 4.1, EDNS0 of RFC 6891): bounded, checked, never rewritten. Pure.

Messages are forwarded byte for byte; this codec only looks. It has three outcomes: a value, or WireError (for TCP,
`streams` has waited for the whole message before). Every count is checked against a named bound, every length against
the message, and what is left over at the end is an error: a message that two readers understand differently is none.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from l7proxy.dns.names_on_wire import HEADER_SIZE, WireError, read_name, skip_name

MESSAGE_MAX: Final = 65535  # bytes; TCP's length prefix has 16 bits (RFC 1035 4.2.2)
QUESTIONS_MAX: Final = 8  # every one is judged; servers refuse more than one (RFC 9619)
QUERY_RECORDS_MAX: Final = 32  # a query has an OPT, an IXFR query a SOA, a signed one a TSIG
ANSWER_RECORDS_MAX: Final = 6000  # records of at least 11 bytes that fit into a message

FLAG_QR, FLAG_AA, FLAG_TC, FLAG_RD, FLAG_RA, FLAG_AD, FLAG_CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE_SHIFT, OPCODE_MASK, RCODE_MASK = 11, 0x7800, 0xF
OPCODE_QUERY: Final = 0
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
TYPE_A, TYPE_CNAME, TYPE_AAAA, TYPE_OPT, TYPE_IXFR, TYPE_AXFR = 1, 5, 28, 41, 251, 252
CLASS_IN: Final = 1
TTL_MAX: Final = 0x7FFFFFFF  # seconds; above it a TTL counts as 0 (RFC 2181 8)
TRANSFERS: Final = frozenset((TYPE_IXFR, TYPE_AXFR))  # their answers are many messages
DO_BIT: Final = 0x8000
# Pods ask the same over and over, and are answered the same: messages that differ in their id alone are read once.
REMEMBERED: Final = 1024  # queries, and as many answers; 8 MB where all are as long as they may be
REMEMBERED_SIZE: Final = 512  # bytes; longer messages are read each time

_HEADER: Final = Struct("!6H")
_QUESTION: Final = Struct("!2H")
_RECORD: Final = Struct("!HHIH")
_FIRST_QUESTION: Final = b"\xc0\x0c"  # a pointer to right behind the header
_NO_ID: Final = b"\0\0"
_ADDRESS_SIZES: Final = {TYPE_A: 4, TYPE_AAAA: 16}


class Question(NamedTuple):
    """One question; `name` is text in lower case with a trailing dot."""

    name: str
    qtype: int
    qclass: int


class Edns(NamedTuple):
    """The OPT record of a message, without its options."""

    udp_size: int
    rcode_high: int  # upper eight bits of the answer's code
    version: int
    flags: int


class Query(NamedTuple):
    """A message with QR=0. `end` is the offset behind its questions."""

    id: int
    flags: int
    questions: tuple[Question, ...]
    end: int
    edns: Edns | None

    @property
    def opcode(self) -> int:
        return (self.flags & OPCODE_MASK) >> OPCODE_SHIFT


class Asking(NamedTuple):
    """Questions as bytes (from right behind the header on), and as read."""

    content: bytes
    questions: tuple[Question, ...]


class Record(NamedTuple):
    """A record of the answer section that learning looks at: A, AAAA (`address` packed) or CNAME (`target`)."""

    owner: str
    rrtype: int
    ttl: int  # seconds
    address: bytes
    target: str


class Response(NamedTuple):
    """A message with QR=1. `rrtypes` are those of the answer section, in order, each once."""

    id: int
    flags: int
    rcode: int
    questions: tuple[Question, ...]
    records: tuple[Record, ...]
    rrtypes: tuple[int, ...]


_ResponseBody: TypeAlias = tuple[int, int, tuple[Question, ...], tuple[Record, ...], tuple[int, ...]]


def peek_flags(message: bytes) -> int | None:
    """The flags of a message that has a header at all; None where nothing can be answered."""
    return None if len(message) < HEADER_SIZE else message[2] << 8 | message[3]


def read_query(message: bytes) -> Query:
    """Read a query; WireError when it is malformed, or is not a query."""
    if not HEADER_SIZE <= len(message) <= MESSAGE_MAX:
        raise WireError("message of impossible size")
    read = _query if len(message) <= REMEMBERED_SIZE else _query.__wrapped__
    return Query(message[0] << 8 | message[1], *read(message[2:]))


@lru_cache(REMEMBERED)
def _query(behind_id: bytes) -> tuple[int, tuple[Question, ...], int, Edns | None]:
    """All of a query but its id."""
    message = _NO_ID + behind_id
    _, flags, asked, answered, authority, additional = _HEADER.unpack_from(message)
    if flags & FLAG_QR:
        raise WireError("answer where a query was expected")
    questions, end = _read_questions(message, asked)
    records = answered + authority + additional
    if records > QUERY_RECORDS_MAX:
        raise WireError("too many records in a query")
    edns, at = None, end
    for _ in range(records):
        at, edns = _skip_record(message, at, edns)
    if at != len(message):
        raise WireError("bytes behind the last record")
    return flags, questions, end, edns


def read_response(message: bytes, asked_here: Asking | None = None) -> Response:
    """Read an answer; WireError when it is malformed. One that says it is truncated may end within a record.

    `asked_here`: what it probably answers; questions that are the same bytes are not read again."""
    if not HEADER_SIZE <= len(message) <= MESSAGE_MAX:
        raise WireError("message of impossible size")
    read = _response if len(message) <= REMEMBERED_SIZE else _response.__wrapped__
    return Response(message[0] << 8 | message[1], *read(message[2:], asked_here))


@lru_cache(REMEMBERED)
def _response(behind_id: bytes, asked_here: Asking | None) -> _ResponseBody:
    """All of an answer but its id."""
    message = _NO_ID + behind_id
    _, flags, asked, answered, authority, additional = _HEADER.unpack_from(message)
    if not flags & FLAG_QR:
        raise WireError("query where an answer was expected")
    if answered + authority + additional > ANSWER_RECORDS_MAX:
        raise WireError("too many records in an answer")
    if asked_here and len(asked_here.questions) == asked and message.startswith(asked_here.content, HEADER_SIZE):
        questions, at = asked_here.questions, HEADER_SIZE + len(asked_here.content)
    else:
        questions, at = _read_questions(message, asked)
    section, edns = _AnswerSection(message, questions), None
    try:
        for _ in range(answered):
            at = section.read_record(at)
        for _ in range(authority + additional):
            at, edns = _skip_record(message, at, edns)
        if at != len(message):
            raise WireError("bytes behind the last record")
    except WireError:
        if not flags & FLAG_TC:
            raise
    rcode = flags & RCODE_MASK
    if edns is not None:
        rcode |= edns.rcode_high << 4
    return flags, rcode, questions, tuple(section.records), tuple(dict.fromkeys(section.rrtypes))


def _read_questions(message: bytes, count: int) -> tuple[tuple[Question, ...], int]:
    if count > QUESTIONS_MAX:
        raise WireError("too many questions")
    questions, at = [], HEADER_SIZE
    for _ in range(count):
        name, at = read_name(message, at)
        if at + 4 > len(message):
            raise WireError("question cut short")
        questions.append(Question(name, *_QUESTION.unpack_from(message, at)))
        at += 4
    return tuple(questions), at


def _fixed(message: bytes, at: int) -> tuple[int, int, int, int, int]:
    """Type, class, TTL and the extent of the content of a record, whose name ends here."""
    if at + 10 > len(message):
        raise WireError("record cut short")
    rrtype, rrclass, ttl, size = _RECORD.unpack_from(message, at)
    if at + 10 + size > len(message):
        raise WireError("record longer than its message")
    return rrtype, rrclass, ttl, at + 10, at + 10 + size


class _AnswerSection:
    """Reads records one after the other, and keeps what learning looks at."""

    __slots__ = ("_message", "_questions", "records", "rrtypes")

    def __init__(self, message: bytes, questions: tuple[Question, ...]) -> None:
        self._message = message
        self._questions = questions
        self.records: list[Record] = []
        self.rrtypes: list[int] = []

    def read_record(self, at: int) -> int:
        """Read the record at an offset, and return the offset behind it."""
        message, begin, at = self._message, at, skip_name(self._message, at)
        rrtype, rrclass, ttl, content, end = _fixed(message, at)
        self.rrtypes.append(rrtype)
        if rrclass != CLASS_IN:
            return end
        size = _ADDRESS_SIZES.get(rrtype)
        address, target = b"", ""
        if size is not None:
            if end - content != size:
                raise WireError("address of the wrong size")
            address = message[content:end]
        elif rrtype == TYPE_CNAME:
            target, behind = read_name(message, content)
            if behind != end:
                raise WireError("CNAME of the wrong size")
        else:
            return end
        self.records.append(Record(self._owner(begin), rrtype, ttl if ttl <= TTL_MAX else 0, address, target))
        return end

    def _owner(self, at: int) -> str:
        """The name of a record; mostly the one that was asked for, by a pointer to right behind the header."""
        if self._questions and self._message.startswith(_FIRST_QUESTION, at):
            return self._questions[0].name
        return read_name(self._message, at)[0]


def _skip_record(message: bytes, at: int, edns: Edns | None) -> tuple[int, Edns | None]:
    """The offset behind a record that only matters if it is the OPT, of which there is one at most (RFC 6891 6.1.1)."""
    begin, at = at, skip_name(message, at)
    rrtype, rrclass, ttl, _, end = _fixed(message, at)
    if rrtype != TYPE_OPT:
        return end, edns
    if edns is not None:
        raise WireError("two OPT records")
    if message[begin]:
        raise WireError("OPT record with a name")
    return end, Edns(rrclass, ttl >> 24, ttl >> 16 & 0xFF, ttl & 0xFFFF)
