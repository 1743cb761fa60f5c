"""Packets made by hand: checksums as the RFCs have them, and an INIT that is answered."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from conformance.packets import (
    INIT_ACK,
    TAG,
    crc32c,
    icmp_packet,
    internet_checksum,
    sctp_answer,
    sctp_init,
    sctp_payload,
    sctp_ports,
)


def test_checksums_of_the_rfcs() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 B.4
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071 3


@given(st.integers(0, 255), st.integers(0, 65535))
def test_an_icmp_packet_sums_up_to_nothing(kind: int, identifier: int) -> None:
    packet = icmp_packet(kind, identifier, 4)
    assert (packet[0], internet_checksum(packet)) == (kind, 0)


def test_an_init_is_answered_to_where_it_came_from() -> None:
    init = sctp_init(20001, 7007)
    assert sctp_ports(init) == (20001, 7007)
    answer = sctp_answer(init)
    assert answer is not None
    assert (sctp_ports(answer), answer[12], struct.unpack_from("!I", answer, 4)) == ((7007, 20001), INIT_ACK, (TAG,))
    checksum = struct.unpack_from("<I", answer, 8)[0]
    assert checksum == crc32c(answer[:8] + bytes(4) + answer[12:])


@given(st.binary(max_size=64))
def test_nothing_else_is_answered(junk: bytes) -> None:
    payload = sctp_payload(junk, has_ip_header=True)
    assert len(payload) <= len(junk)
    if not (len(junk) >= 32 and junk[12] == 1):
        assert sctp_answer(junk) is None
