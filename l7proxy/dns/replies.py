"""What the proxy answers itself: refusals, with the question and EDNS given back. The rest is the server's. Pure."""

from __future__ import annotations

from struct import Struct
from typing import Final

from l7proxy.dns.names_on_wire import HEADER_SIZE
from l7proxy.dns.wire import (
    DO_BIT,
    FLAG_CD,
    FLAG_QR,
    FLAG_RA,
    FLAG_RD,
    FORMERR,
    OPCODE_MASK,
    TYPE_OPT,
    Query,
    peek_flags,
)

OUR_UDP_SIZE: Final = 1232  # bytes that we say we take, as servers do since the DNS flag day of 2020
_HEADER: Final = Struct("!6H")
_OPT: Final = Struct("!BHHBBHH")
_KEPT: Final = OPCODE_MASK | FLAG_RD | FLAG_CD


def refusal(message: bytes, query: Query, rcode: int) -> bytes:
    """The answer to a query that is not forwarded: its questions byte for byte (0x20), its RD and CD, no records.

    RA is set: resolvers tell their users about its absence rather than about the refusal.
    """
    flags = FLAG_QR | FLAG_RA | query.flags & _KEPT | rcode & 0xF
    head = _HEADER.pack(query.id, flags, len(query.questions), 0, 0, 1 if query.edns else 0)
    opt = b""
    if query.edns:  # RFC 6891 6.1.1: an answer has an OPT iff the query has; 7: DO is given back
        opt = _OPT.pack(0, TYPE_OPT, OUR_UDP_SIZE, rcode >> 4, 0, query.edns.flags & DO_BIT, 0)
    return head + message[HEADER_SIZE : query.end] + opt


def format_error(message: bytes) -> bytes | None:
    """The answer to what cannot be read: a header and nothing else. None where there is not even a header, or where
    the message calls itself an answer: answering that could go round for ever."""
    flags = peek_flags(message)
    if flags is None or flags & FLAG_QR:
        return None
    number = message[0] << 8 | message[1]
    return _HEADER.pack(number, FLAG_QR | FLAG_RA | flags & _KEPT | FORMERR, 0, 0, 0, 0)
