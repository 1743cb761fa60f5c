"""gRPC's frames and headers as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.rpc.framing import REQUEST_MAX, Code, Messages, Refusal, framed, http_refusal, timeout, trailers

MESSAGES = st.lists(st.binary(max_size=300), max_size=6)


@given(MESSAGES, st.data())
def test_messages_come_out_as_they_went_in_wherever_they_are_cut(messages: list[bytes], data: st.DataObject) -> None:
    stream = framed(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = Messages()
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[begin:end])
    assert found == messages
    assert len(parser) == 0


@given(MESSAGES)
def test_byte_by_byte_and_with_the_beginning_of_another(messages: list[bytes]) -> None:
    parser = Messages()
    found = [message for byte in framed(messages) for message in parser.feed(bytes((byte,)))]
    assert found == messages
    assert parser.feed(b"\0\0\0\0\2a") == []
    assert len(parser) == 6


@given(st.binary(max_size=4000), st.sampled_from(("identity", "gzip")))
def test_whatever_comes_is_messages_or_a_refusal(content: bytes, encoding: str) -> None:
    parser = Messages(encoding)
    try:
        found = parser.feed(content)
    except Refusal:
        return
    assert len(framed(found)) + len(parser) == len(content)


@pytest.mark.parametrize(
    ("encoding", "content", "code"),
    [
        ("gzip", b"\1\0\0\0\1x", Code.UNIMPLEMENTED),
        ("identity", b"\1\0\0\0\1x", Code.INTERNAL),
        ("identity", b"\0" + (REQUEST_MAX + 1).to_bytes(4, "big"), Code.RESOURCE_EXHAUSTED),
        ("identity", b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED),
    ],
)
def test_what_is_refused(encoding: str, content: bytes, code: Code) -> None:
    with pytest.raises(Refusal) as refused:
        Messages(encoding).feed(content)
    assert refused.value.code is code


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("2S", 2.0),
        ("100m", 0.1),
        ("99999999H", 99999999 * 3600.0),
        ("0n", 0.0),
        ("1M", 60.0),
        ("5u", 5e-6),
    ],
)
def test_timeouts(text: str | None, seconds: float | None) -> None:
    assert timeout({} if text is None else {"grpc-timeout": text}) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "S", "1", "1s", "-1S", "123456789S", "1S ", "1S\n", "٣S"])
def test_timeouts_that_are_none(text: str) -> None:
    with pytest.raises(Refusal, match="is not a number and a unit"):
        timeout({"grpc-timeout": text})


@given(st.text(max_size=3000))
def test_a_reason_fits_into_a_header(text: str) -> None:
    (_, status), *reason = trailers(Code.UNKNOWN, text)
    assert status == "2"
    for _, value in reason:
        assert all(" " <= char <= "~" for char in value)
        assert len(value) <= 12000
        assert value == value.strip()


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc;a=b"])
def test_requests_that_are_grpc(content_type: str) -> None:
    assert http_refusal({":method": "POST", "content-type": content_type}) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({":method": "GET"}, "405"),
        ({":method": "POST"}, "415"),
        ({":method": "POST", "content-type": "application/grpc+json"}, "415"),
        ({":method": "POST", "content-type": "application/grpcx"}, "415"),
    ],
)
def test_requests_that_are_not(headers: dict[str, str], status: str) -> None:
    assert (http_refusal(headers) or [])[0] == (":status", status)
