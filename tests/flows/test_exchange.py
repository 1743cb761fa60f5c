"""Flows that are serialised by hand say what the same flows say that are filled field by field."""

from __future__ import annotations

from flow import flow_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from flows.exchange import request, response, shared
from flows.record import HttpExchange, HttpRecord, SlotRef
from flows.wire import VARINTS, counted, tag, varint
from policies.types import Direction

UUID = b"00000000-0000-4000-8000-000000000001"
SLOT = SlotRef("ingress:1:tcp:80", Direction.INGRESS, 1)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.text("aü", min_size=120, max_size=300)
)
HEADERS = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(lambda pairs: tuple(sorted(pairs)))


def exchanges() -> st.SearchStrategy[HttpExchange]:
    return st.builds(
        lambda port, method: HttpExchange("10.0.0.2", port, "10.0.0.7", 80, method, "deathstar", "/"),
        st.integers(1, 65535),
        TEXT,
    )


RECORDS = st.builds(
    HttpRecord,
    exchange=exchanges(),
    slot=st.just(SLOT),
    ended=st.just(True),
    url=st.one_of(TEXT, st.text("a", min_size=5000, max_size=5000)),
    protocol=st.sampled_from(("HTTP/1", "HTTP/1.1", "HTTP/2", "Unknown")),
    request_headers=HEADERS,
    trace_id=st.sampled_from(("", "4bf92f3577b34da6a3ce929d0e0e4736")),
    code=st.integers(1, 999),
    latency_ns=st.integers(0, 10**18 - 1),
    response_headers=HEADERS,
)
TIMES = st.integers(0, 2**33 * 10**9)


def filled(record: HttpRecord, time_ns: int, *, is_response: bool) -> flow_pb2.Flow:
    """The slow reference: a message, filled field by field."""
    flow = flow_pb2.Flow(uuid=UUID.decode())
    flow.time.FromNanoseconds(time_ns)
    http = flow.l7.http
    http.method, http.url, http.protocol = record.exchange.method, record.url, record.protocol
    asked = f"{record.exchange.method} {record.url}"
    if is_response:
        flow.l4.TCP.destination_port = record.exchange.client_port
        flow.l7.latency_ns = record.latency_ns
        http.code = record.code
        flow.Summary = f"{record.protocol} {record.code} {record.latency_ns // 10**6}ms ({asked})"
    else:
        flow.l4.TCP.source_port = record.exchange.client_port
        flow.Summary = f"{record.protocol} {asked}"
    for key, value in record.response_headers if is_response else record.request_headers:
        http.headers.add(key=key, value=value)
    if record.trace_id:
        flow.trace_context.parent.trace_id = record.trace_id
    return flow


@given(RECORDS, TIMES)
def test_both_flows_of_any_exchange(record: HttpRecord, time_ns: int) -> None:
    parts = shared(record)
    asked, answered = request(record, parts, time_ns, UUID), response(record, parts, time_ns, UUID)
    assert flow_pb2.Flow.FromString(asked) == filled(record, time_ns, is_response=False)
    assert flow_pb2.Flow.FromString(answered) == filled(record, time_ns, is_response=True)


@given(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 70000)))
@example(127)
@example(128)
@example(16383)
@example(16384)
def test_numbers_are_written_as_protobuf_writes_them(number: int) -> None:
    field = tag(flow_pb2.Layer7, "latency_ns")
    expected = flow_pb2.Layer7(latency_ns=number).SerializeToString() or field + b"\0"
    assert field + varint(number) == field + VARINTS[number] == expected


@given(TEXT)
def test_texts_are_written_as_protobuf_writes_them(text: str) -> None:
    wire = counted(tag(flow_pb2.Flow, "Summary"), text.encode())
    assert flow_pb2.Flow.FromString(wire).Summary == text
