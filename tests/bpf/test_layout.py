"""Bytes of keys, values and events."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.constants import EVENT_VERSION
from bpf.encoding import PolicyKey, Settings, address_bytes, address_text, endpoint_value, ipcache_key, service_key
from bpf.event import LayoutError, unpack_event
from bpf.layout import EVENT, MAPS, STRUCTS, c_assertions, source_digest


def test_an_address_comes_back_as_it_went() -> None:
    assert address_bytes("10.0.0.7") == (4, bytes([10, 0, 0, 7]) + bytes(12))
    for text in ("10.0.0.7", "fd00::7", "::ffff:a00:7"):
        assert address_text(*address_bytes(text)) == text


def test_a_prefix_counts_the_bits_before_the_address() -> None:
    assert ipcache_key("10.0.0.0/8") == struct.pack("=IB3x", 40, 4) + bytes([10]) + bytes(15)
    assert ipcache_key("fd00::/64")[:8] == struct.pack("=IB3x", 96, 6)
    with pytest.raises(ValueError, match="host bits"):
        ipcache_key("10.0.0.1/8")


@given(st.builds(PolicyKey, *[st.integers(0, 2**32 - 1)] * 3, *[st.integers(0, 255)] * 2, st.integers(0, 65535)))
def test_policy_keys_go_both_ways(key: PolicyKey) -> None:
    assert PolicyKey.unpack(key.pack()) == key


def test_an_endpoint_has_four_places_for_addresses_and_a_fifth_is_closed() -> None:
    five = tuple(f"10.0.0.{n}" for n in range(1, 6))
    assert endpoint_value(1, 3, five) == endpoint_value(1, 3, five[:4])
    assert endpoint_value(1, 3, ("fd00::1",))[8:12] == b"\x06\0\0\0"


def test_ports_are_in_network_order() -> None:
    assert service_key("10.96.0.1", 80, 6)[16:] == b"\0\x50\x06\x04"


def test_generations_never_come_to_zero() -> None:
    """0 stands for a verdict that nobody may rely on."""
    assert Settings(7, 0).after_change() == Settings(7, 1)
    assert Settings(7, 2**32 - 1).after_change() == Settings(7, 1)
    assert Settings.unpack(Settings(7, 9).pack()) == Settings(7, 9)


EVENT_BYTES = struct.pack(
    EVENT.format,
    *(EVENT_VERSION, 5, 0, 0, 1, 0, 4, 6),
    *(1_000, 7, 9, 301, 300),
    bytes([10, 0, 0, 8]) + bytes(12),
    bytes([10, 0, 0, 7]) + bytes(12),
    *(40000, 80, 2, 0, 0, 2, 15001, 74, 15001),
    b"\x02\0\0\0\0\1",
    b"\x02\0\0\0\0\2",
)


def test_an_event_reads_as_it_was_written() -> None:
    event = unpack_event(EVENT_BYTES, clock_offset_ns=500)
    assert (event.source, event.source_port, event.source_identity) == ("10.0.0.8", 40000, 301)
    assert (event.destination, event.destination_port, event.destination_identity) == ("10.0.0.7", 80, 300)
    assert (event.type, event.direction, event.verdict, event.match_type) == (5, 1, 15001, 2)
    assert (event.endpoint, event.ifindex, event.length, event.proxy_port) == (7, 9, 74, 15001)
    assert event.time_ns == 1_500
    assert event.source_mac == b"\x02\0\0\0\0\1"


@given(st.binary(max_size=200))
def test_any_other_bytes_are_the_layout_error(raw: bytes) -> None:
    try:
        unpack_event(raw)
    except LayoutError:
        return
    assert len(raw) == len(EVENT_BYTES)
    assert raw[0] == EVENT_VERSION


def test_every_member_is_asserted_in_c() -> None:
    text = c_assertions()
    for s in STRUCTS:
        assert f"sizeof(struct {s.name}) == {s.size}" in text
    assert text.count("_Static_assert") == sum(1 + len(s.members) for s in STRUCTS)


def test_maps_have_the_sizes_of_their_structs_and_names_that_fit() -> None:
    assert len({m.name for m in MAPS}) == len(MAPS)
    assert all(len(m.name) <= 15 for m in MAPS)


def test_a_change_of_one_source_changes_the_digest() -> None:
    assert source_digest({"a.h": b"1"}) != source_digest({"a.h": b"2"})
    assert source_digest({"a.h": b"1", "b.h": b""}) != source_digest({"a.h": b"1b.h"})
