"""Messages on a TCP connection: whole, split anywhere, byte by byte, several at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.dns.framing import Frames, frame
from l7proxy.dns.names_on_wire import WireError

MESSAGES = st.lists(st.binary(min_size=12, max_size=60), max_size=5)


@given(MESSAGES, st.lists(st.integers(1, 50)))
def test_however_it_is_split(messages: list[bytes], cuts: list[int]) -> None:
    content, frames, found = b"".join(map(frame, messages)), Frames(), []
    for cut in cuts:
        found += frames.feed(content[:cut])
        content = content[cut:]
    assert found + frames.feed(content) == messages


@given(MESSAGES)
def test_byte_by_byte(messages: list[bytes]) -> None:
    frames = Frames()
    content = b"".join(map(frame, messages))
    assert [m for i in range(len(content)) for m in frames.feed(content[i : i + 1])] == messages


@pytest.mark.parametrize("size", [0, 11])
def test_a_length_without_room_for_a_header_ends_it(size: int) -> None:
    with pytest.raises(WireError):
        Frames().feed(size.to_bytes(2, "big"))


def test_the_longest_message() -> None:
    assert Frames().feed(frame(b"x" * 65535)) == [b"x" * 65535]
