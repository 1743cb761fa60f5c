"""UDP answers as packets; test_proxy lets the kernel judge them."""

from __future__ import annotations

from struct import unpack

from hypothesis import given
from hypothesis import strategies as st

from l7proxy.dns.packets import SMALLEST_MTU, Way, fragments, packet

FOUR = Way(bytes((10, 96, 0, 10)), 53, bytes((10, 0, 0, 2)), 40000)
SIX = Way(bytes.fromhex("20010db8" + "00" * 11 + "02"), 53, bytes.fromhex("fd00" + "00" * 13 + "02"), 40000)
WAYS = st.sampled_from([FOUR, SIX])


def sum_of(content: bytes) -> int:
    """The sum in one's complement, word by word (RFC 1071)."""
    total = 0
    for word in unpack(f"!{len(content) // 2}H", content):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def datagram_of(way: Way, content: bytes) -> bytes:
    return content[20:] if len(way.source) == 4 else content[40:]


@given(WAYS, st.binary(max_size=300))
def test_the_checksum_covers_addresses_ports_and_payload(way: Way, payload: bytes) -> None:
    datagram = datagram_of(way, packet(way, payload))
    size = len(datagram).to_bytes(4, "big")
    pseudo = way.source + way.destination + size + b"\0\0\0\x11"
    assert sum_of(pseudo + datagram + bytes(len(datagram) & 1)) == 0xFFFF
    assert datagram[6:8] != b"\0\0"
    assert (datagram[:6], datagram[8:]) == (b"\0\x35\x9c\x40" + size[2:], payload)


def test_a_packet_has_the_server_as_its_source() -> None:
    made = packet(FOUR, b"answer")
    assert made[12:20] == FOUR.source + FOUR.destination
    assert packet(SIX, b"answer")[8:40] == SIX.source + SIX.destination


@given(WAYS, st.binary(min_size=1, max_size=9000), st.integers(0, 2**32 - 1))
def test_fragments_put_together_are_the_datagram(way: Way, payload: bytes, number: int) -> None:
    pieces = {}
    made = fragments(way, payload, number)
    for i, one in enumerate(made):
        assert len(one) <= SMALLEST_MTU
        if len(way.source) == 4:
            total, identity, offset = unpack("!HHH", one[2:8])
            assert (total, identity, bool(offset & 0x2000)) == (len(one), number & 0xFFFF, i < len(made) - 1)
            pieces[(offset & 0x1FFF) * 8] = one[20:]
        else:
            protocol, offset, identity = unpack("!BxHI", one[40:48])
            assert (protocol, identity, bool(offset & 1)) == (17, number, i < len(made) - 1)
            assert (one[6], int.from_bytes(one[4:6], "big")) == (44, len(one) - 40)
            pieces[offset & ~7] = one[48:]
    whole = b""
    for at in sorted(pieces):
        assert at == len(whole)
        whole += pieces[at]
    assert whole == datagram_of(way, packet(way, payload))
