"""Messages off the wire: what a well-kept library reads, we read; whatever else comes is the protocol error."""

from __future__ import annotations

from time import process_time

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l7proxy.dns import wire
from l7proxy.dns.names_on_wire import WireError, read_name, skip_name
from l7proxy.dns.wire import Asking, Edns, Query, Question, Response, read_query, read_response
from tests.l7proxy.dns.make import answer, names, query

HEAD = bytes(12)
RESPONSE = b"\0\1\x81\x80"
TYPES = ("A", "AAAA", "TXT", "SRV", "HTTPS", "ANY", "MX", "SOA")


def lower(name: dns.name.Name) -> str:
    return name.to_text().lower()


class TestNames:
    @given(names())
    def test_text_is_that_of_master_files_in_lower_case(self, name: dns.name.Name) -> None:
        written = name.to_wire()
        assert read_name(HEAD + written + b"tail", 12) == (lower(dns.name.Name(name.labels)), 12 + len(written))
        assert skip_name(HEAD + written + b"tail", 12) == 12 + len(written)

    def test_a_dot_within_a_label_is_none_between_labels(self) -> None:
        assert read_name(HEAD + b"\x0bexample.org\0", 12)[0] == "example\\.org."

    def test_a_pointer_leads_back_and_the_name_ends_behind_the_first_one(self) -> None:
        message = HEAD + b"\3org\0" + b"\7example\xc0\x0c" + b"\3www\xc0\x11"
        assert read_name(message, 27) == ("www.example.org.", 33)
        assert skip_name(message, 27) == 33

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"\xc0\x0c", "lead back"),  # itself
            (b"\1a\xc0\x0c", "lead back"),  # round and round
            (b"\xc0\x0e\0", "lead back"),  # forward
            (b"\xc0\x00", "lead back"),  # into the header
            (b"\xc0", "cut short"),
            (b"\x03ab", "cut short"),
            (b"\x03abc", "cut short"),
            (b"", "cut short"),
            (b"\x40abc\0", "unknown type"),
            (b"\x80abc\0", "unknown type"),
            (b"\x3f" + b"a" * 63 + b"\x3f" + b"b" * 63 + b"\x3f" + b"c" * 63 + b"\x3f" + b"d" * 63 + b"\0", "255"),
        ],
    )
    def test_what_is_no_name(self, content: bytes, why: str) -> None:
        with pytest.raises(WireError, match=why):
            read_name(HEAD + content, 12)

    def test_a_name_of_255_bytes_is_the_longest(self) -> None:
        labels = b"".join(b"\x3f" + bytes((c,)) * 63 for c in b"abc") + b"\x3d" + b"d" * 61 + b"\0"
        assert len(labels) == 255
        assert len(read_name(HEAD + labels, 12)[0]) == 254
        with pytest.raises(WireError, match="255"):
            read_name(HEAD + labels.replace(b"\x3d" + b"d", b"\x3e" + b"dd"), 12)

    def test_three_thousand_chained_pointers_are_refused_in_no_time(self) -> None:
        """The message that makes a recursive reader overflow its stack."""
        chain = b"\0\0" + b"".join((0xC000 | 12 + 2 * i).to_bytes(2, "big") for i in range(3000))
        with pytest.raises(WireError, match="lead back"):
            read_name(HEAD + chain, 12 + 2 * 3000)


class TestQueries:
    @given(names(), st.sampled_from(TYPES), st.booleans(), st.booleans(), st.integers(0, 65535))
    def test_agrees_with_dnspython(self, name: dns.name.Name, kind: str, edns: bool, dnssec: bool, number: int) -> None:
        made = dns.message.make_query(name, kind, use_edns=edns or dnssec, want_dnssec=dnssec, id=number)
        wire = made.to_wire()
        asked = made.question[0]
        read = read_query(wire)
        assert read.questions == (Question(lower(name), asked.rdtype, asked.rdclass),)
        assert (read.id, read.flags, read.opcode) == (number, int(made.flags), 0)
        assert (read.edns is not None) == (edns or dnssec)
        assert read.end == 12 + len(name.to_wire()) + 4

    def test_case_is_nobody_s_business_but_is_kept_in_the_bytes(self) -> None:
        assert read_query(query("WwW.ExAmPlE.oRg")).questions[0].name == "www.example.org."

    def test_every_question_is_read_and_later_ones_may_point_to_earlier(self) -> None:
        message = bytes.fromhex("0001010000020000 00000000") + b"\1a\3org\0\0\1\0\1" + b"\1b\xc0\x0e\0\x1c\0\1"
        assert read_query(message).questions == (Question("a.org.", 1, 1), Question("b.org.", 28, 1))

    def test_edns_with_its_version_size_and_flags(self) -> None:
        message = query("a.org", use_edns=0, payload=4096, want_dnssec=True)
        assert read_query(message).edns == Edns(4096, 0, 0, 0x8000)

    def test_an_update_is_read_and_left_to_the_judge(self) -> None:
        made = dns.message.make_query("a.org", "SOA")
        made.set_opcode(dns.opcode.UPDATE)
        assert read_query(made.to_wire()).opcode == 5

    @pytest.mark.parametrize(
        ("message", "why"),
        [
            (b"", "size"),
            (b"\0" * 11, "size"),
            (b"\0" * 65536, "size"),
            (answer(query("a.org")), "answer where"),
            (query("a.org") + b"\0", "behind the last"),
            (query("a.org")[:-1], "cut short"),
            (bytes.fromhex("000101000009") + bytes(6), "too many questions"),
            (bytes.fromhex("0001010000010021 00000000") + b"\0\0\1\0\1", "too many records"),
            (bytes.fromhex("0001010000010000 00000002") + b"\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\0\0\0\0\0" * 2, "two OPT"),
            (bytes.fromhex("0001010000010000 00000001") + b"\0\0\1\0\1" + b"\1a\0\0\x29\4\xd0\0\0\0\0\0\0", "a name"),
            (bytes.fromhex("0001010000010000 00000001") + b"\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\0\0\0\0\1", "longer"),
        ],
    )
    def test_what_is_no_query(self, message: bytes, why: str) -> None:
        with pytest.raises(WireError, match=why):
            read_query(message)


RECORDS = (
    "a.org. 30 IN CNAME b.org.",
    "b.org. 20 IN A 192.0.2.1",
    "b.org. 25 IN AAAA 2001:db8::1",
    'a.org. 30 IN TXT "x"',
    "a.org. 30 IN MX 10 b.org.",
)


class TestAnswers:
    @given(names(), st.lists(st.sampled_from(RECORDS), max_size=5), st.integers(0, 23))
    def test_agrees_with_dnspython(self, name: dns.name.Name, records: list[str], rcode: int) -> None:
        asked = dns.message.make_query(name, "A", use_edns=True)
        wire = answer(asked.to_wire(), *records, rcode=rcode)
        theirs, ours = dns.message.from_wire(wire), read_response(wire)
        assert ours.questions == (Question(lower(name), 1, 1),)
        assert ours.rcode == theirs.rcode()
        assert sorted(ours.rrtypes) == sorted({int(rrset.rdtype) for rrset in theirs.answer})
        texts = {(lower(s.name), s.rdtype, str(r).lower()) for s in theirs.answer if s.rdtype in (5,) for r in s}
        assert {(r.owner, r.rrtype, r.target) for r in ours.records if r.target} == texts
        packed = {(lower(s.name), s.ttl, r.to_wire()) for s in theirs.answer if s.rdtype in (1, 28) for r in s}
        assert {(r.owner, r.ttl, r.address) for r in ours.records if r.address} == packed

    @given(names(), names(), st.lists(st.sampled_from(RECORDS), max_size=3))
    def test_knowing_the_question_changes_nothing(
        self, name: dns.name.Name, other: dns.name.Name, records: list[str]
    ) -> None:
        wire = answer(dns.message.make_query(name, "A").to_wire(), *records)
        for guess in (name, other):
            asked = dns.message.make_query(guess, "A").to_wire()
            read = read_query(asked)
            assert read_response(wire, Asking(asked[12 : read.end], read.questions)) == read_response(wire)

    def test_names_in_records_may_be_compressed_or_not(self) -> None:
        plain = b"\1a\3org\0\0\1\0\1\0\0\0\x1e\0\4\xc0\0\2\1"
        short = b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\xc0\0\2\1"
        deeper = b"\1x\xc0\x0e\0\1\0\1\0\0\0\x1e\0\4\xc0\0\2\1"
        message = RESPONSE + bytes.fromhex("0001000300000000") + b"\1a\3org\0\0\1\0\1" + plain + short + deeper
        assert [r.owner for r in read_response(message).records] == ["a.org.", "a.org.", "x.org."]

    def test_a_ttl_beyond_31_bits_is_none(self) -> None:
        """RFC 2181 8."""
        message = RESPONSE + bytes.fromhex("0001000100000000") + b"\0\0\1\0\1" + b"\0\0\1\0\1\x80\0\0\0\0\4\xc0\0\2\1"
        assert read_response(message).records[0].ttl == 0

    def test_a_truncated_answer_is_read_as_far_as_it_goes(self) -> None:
        whole = answer(query("a.org"), "a.org. 30 IN A 192.0.2.1")
        cut = whole[:2] + b"\x83\x80" + whole[4:6] + b"\0\2" + whole[8:] + b"\xc0\x0c\0\1\0"
        assert [r.address for r in read_response(cut).records] == [bytes((192, 0, 2, 1))]
        with pytest.raises(WireError):
            read_response(whole[:2] + b"\x81\x80" + cut[4:])

    def test_addresses_of_other_classes_are_no_addresses(self) -> None:
        chaos = answer(query("a.org")).replace(b"\x00\x01\x00\x00\x00\x00\x00\x00", b"\0\1\0\1\0\0\0\0")
        message = chaos + b"\xc0\x0c\0\1\0\3\0\0\0\x1e\0\4\xc0\0\2\1"
        assert read_response(message).records == ()

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\3\xc0\0\2", "address of the wrong size"),
            (b"\xc0\x0c\0\x1c\0\1\0\0\0\x1e\0\4\xc0\0\2\1", "address of the wrong size"),
            (b"\xc0\x0c\0\5\0\1\0\0\0\x1e\0\3\xc0\x0c\0", "CNAME of the wrong size"),
            (b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\xc0\0\2", "longer than its message"),
            (b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0", "record cut short"),
        ],
    )
    def test_what_is_no_answer(self, content: bytes, why: str) -> None:
        message = RESPONSE + bytes.fromhex("0001000100000000") + b"\1a\3org\0\0\1\0\1" + content
        with pytest.raises(WireError, match=why):
            read_response(message)

    def test_the_worst_message_is_read_in_bounded_time(self) -> None:
        """Every record's name is a chain of as many pointers as are followed."""
        chain = b"\0\0" + b"".join((0xC000 | 12 + 5 + 2 * i).to_bytes(2, "big") for i in range(126))
        records = (0xC000 | 12 + 5 + 2 * 125).to_bytes(2, "big") + b"\0\1\0\1\0\0\0\x1e\0\4\xc0\0\2\1"
        opaque = b"\0\0\x10\0\1\0\0\0\0" + len(chain).to_bytes(2, "big") + chain
        count = 4000
        message = RESPONSE + (1).to_bytes(2, "big") + (count + 1).to_bytes(2, "big") + bytes(4) + b"\0\0\1\0\1" + opaque
        message += records * count
        began = process_time()
        try:
            read_response(message[:65535])
        except WireError:
            pass
        assert process_time() - began < 2.0


class TestWhateverComes:
    """Parse, or WireError; never anything else."""

    @settings(max_examples=300)
    @given(st.binary(max_size=200))
    @example(RESPONSE + b"\0\1\0\1\0\0\0\0" + b"\xc0\x0c" * 40)
    def test_bytes(self, content: bytes) -> None:
        self.read(content)
        self.read(RESPONSE + content)
        self.read(b"\0\1\1\0" + content)

    @settings(max_examples=300)
    @given(st.data())
    def test_good_messages_gone_bad(self, data: st.DataObject) -> None:
        message = bytearray(answer(query("www.a.org", use_edns=True), *RECORDS))
        for _ in range(data.draw(st.integers(1, 6))):
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
        self.read(bytes(message[: data.draw(st.integers(0, len(message)))]))
        self.read(bytes(message))

    @staticmethod
    def read(content: bytes) -> None:
        for reader, kind in ((read_query, Query), (read_response, Response)):
            try:
                assert isinstance(reader(content), kind)
            except WireError:
                pass


class TestWhatIsReadAgain:
    @given(names(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
    def test_only_the_id_differs_where_only_the_id_does(self, name: dns.name.Name, first: int, second: int) -> None:
        asked = query(name.to_text())[2:]
        said = answer(b"\0\0" + asked, "a.example. 30 IN A 192.0.2.1")[2:]
        before, after = (number.to_bytes(2, "big") for number in (first, second))
        assert read_query(before + asked)._replace(id=second) == read_query(after + asked)
        assert read_response(before + said)._replace(id=second) == read_response(after + said)

    @given(st.integers(12, 60), st.integers(0, 255))
    def test_one_other_byte_is_another_message(self, at: int, byte: int) -> None:
        whole = answer(query("www.example.org"), "www.example.org. 30 IN A 192.0.2.1")
        changed = whole[:at] + bytes((byte,)) + whole[at + 1 :]
        outcomes: list[Response | str] = []
        for remembered in (whole, b""):
            wire._response.cache_clear()
            if remembered:
                read_response(remembered)
            try:
                outcomes.append(read_response(changed))
            except WireError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
