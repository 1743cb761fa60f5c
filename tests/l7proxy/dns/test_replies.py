"""What the proxy answers itself, read by dnspython."""

from __future__ import annotations

import dns.flags
import dns.message
import pytest

from l7proxy.dns.replies import format_error, refusal
from l7proxy.dns.wire import NXDOMAIN, REFUSED, SERVFAIL, read_query
from tests.l7proxy.dns.make import answer, query


@pytest.mark.parametrize("rcode", [REFUSED, NXDOMAIN, SERVFAIL])
@pytest.mark.parametrize("edns", [False, True])
def test_a_refusal_is_the_question_with_a_code(rcode: int, edns: bool) -> None:
    asked = query("wWw.ExAmple.org", "AAAA", use_edns=edns, id=4711)
    reply = dns.message.from_wire(refusal(asked, read_query(asked), rcode))
    assert (reply.id, reply.rcode()) == (4711, rcode)
    assert str(reply.question[0].name) == "wWw.ExAmple.org."  # byte for byte: 0x20
    assert dns.message.from_wire(asked).is_response(reply)
    assert dns.flags.to_text(reply.flags) == "QR RD RA"
    assert (reply.edns >= 0) == edns
    assert not reply.answer
    assert not reply.authority


def test_do_and_cd_are_given_back_and_options_are_not() -> None:
    asked = dns.message.make_query("a.org", "A", want_dnssec=True)
    asked.flags |= dns.flags.CD
    wire = asked.to_wire()
    reply = dns.message.from_wire(refusal(wire, read_query(wire), REFUSED))
    assert reply.ednsflags == dns.flags.DO
    assert reply.flags & dns.flags.CD
    assert reply.options == ()


def test_several_questions_are_given_back_with_their_compression() -> None:
    asked = bytes.fromhex("0001010000020000 00000000") + b"\1a\3org\0\0\1\0\1" + b"\1b\xc0\x0e\0\x1c\0\1"
    reply = refusal(asked, read_query(asked), REFUSED)
    assert reply[12:] == asked[12:]
    assert reply[:12].hex() == "000181850002" + "0000" * 3


def test_what_cannot_be_read_is_a_format_error() -> None:
    reply = format_error(query("a.org", id=7)[:14])
    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.FORMERR
    assert reply[:2] == b"\0\7"


def test_neither_answers_nor_scraps_are_answered() -> None:
    assert format_error(answer(query("a.org"))) is None
    assert format_error(b"\0" * 11) is None
