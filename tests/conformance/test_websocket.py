"""WebSocket frames: what goes in comes out, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.websocket import CLOSE, TEXT, FrameError, FrameReader, accept_key, encode_frame

PAYLOADS = st.lists(st.binary(max_size=125), max_size=4)


def test_the_key_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        (encode_frame(b"Hello"), "810548656c6c6f"),
        (encode_frame(b"Hello", bytes.fromhex("37fa213d")), "818537fa213d7f9f4d5158"),
        (encode_frame(b"", opcode=CLOSE), "8800"),
    ],
)
def test_frames_of_the_rfc(frame: bytes, wire: str) -> None:
    assert frame.hex() == wire


@given(payloads=PAYLOADS, mask=st.binary(min_size=4, max_size=4) | st.just(b""), cut=st.integers(1, 9))
def test_frames_arrive_whole_however_they_are_cut(payloads: list[bytes], mask: bytes, cut: int) -> None:
    wire = b"".join(encode_frame(payload, mask) for payload in payloads)
    reader = FrameReader()
    frames = [frame for n in range(0, len(wire), cut) for frame in reader.feed(wire[n : n + cut])]
    assert frames == [(TEXT, payload) for payload in payloads]


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_the_frame_error(data: bytes) -> None:
    try:
        FrameReader().feed(data)
    except FrameError:
        pass


def test_long_payloads_are_not_sent() -> None:
    with pytest.raises(FrameError):
        encode_frame(bytes(126))
