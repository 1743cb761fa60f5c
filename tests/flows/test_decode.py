"""Access-log entries as Envoy writes them, as it should not write them, and as nobody would."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given
from hypothesis import strategies as st
from seen import seen_pb2

from flows.accesslog.decode import DecodeError, canonical, decode_entry, decode_message, decode_refusal
from flows.record import HttpRecord, SlotRef
from policies.types import Direction
from tests.flows.make import DEATHSTAR, TIEFIGHTER, denied, entry, exchange, message, refused, seen

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def decoded(given_entry: HTTPAccessLogEntry) -> HttpRecord:
    record = decode_entry(seen(given_entry))
    assert record is not None
    return record


def test_a_forwarded_request() -> None:
    made = entry(ended=False)
    record, started = decoded(made), made.common_properties.start_time.SerializeToString()
    assert record.exchange == (TIEFIGHTER, 40000, DEATHSTAR, 80, "PUT", "deathstar", "/v1/exhaust-port", started)
    assert record.slot == SlotRef("ingress:4711:tcp:80", Direction.INGRESS, 4711)
    assert (record.ended, record.url, record.protocol) == (False, "http://deathstar/v1/exhaust-port", "HTTP/1.1")
    assert (record.code, record.denied_by, record.latency_ns) == (0, None, 0)


def test_an_exchange_that_ended() -> None:
    record = decoded(entry(code=204, latency_ns=2_000_000_001))
    assert (record.ended, record.code, record.denied_by, record.latency_ns) == (True, 204, None, 2_000_000_001)


def test_a_denial_names_its_rule() -> None:
    assert decoded(denied("no-put")).denied_by == "no-put"
    assert decoded(entry(code=403, details="rbac_access_denied")).denied_by == ""
    assert decoded(entry(code=403, details="via_upstream")).denied_by is None


def test_what_envoy_refused_before_routing_was_denied_for_its_reason() -> None:
    record = decoded(entry(code=307, details="path_normalization_failed", routed=False))
    assert (record.denied_by, record.slot.group) == ("path_normalization_failed", 4711)


def test_a_client_that_asked_for_nothing_says_nothing() -> None:
    gone = entry(code=0, details="downstream_remote_disconnect", routed=False)
    gone.request.Clear()
    assert decode_entry(seen(gone)) is None


def test_other_kinds_of_entries_say_nothing() -> None:
    start = entry()
    start.common_properties.access_log_type = 4
    assert decode_entry(seen(start)) is None


@pytest.mark.parametrize(("version", "name"), [(0, "Unknown"), (1, "HTTP/1"), (2, "HTTP/1.1"), (3, "HTTP/2")])
def test_protocols(version: int, name: str) -> None:
    made = entry()
    made.protocol_version = version
    assert decoded(made).protocol == name


def test_headers_are_canonical_and_sorted() -> None:
    record = decoded(
        entry(
            headers={"x-token": "1", ":path": "/", "accept": "*/*"},
            answered={"server": "x", "content-length": "5"},
            user_agent="curl/8",
            request_id="r1",
            referer="a",
            forwarded_for="10.9.9.9",
        )
    )
    assert record.request_headers == (
        ("Accept", "*/*"),
        ("Referer", "a"),
        ("User-Agent", "curl/8"),
        ("X-Forwarded-For", "10.9.9.9"),
        ("X-Request-Id", "r1"),
        ("X-Token", "1"),
    )
    assert record.response_headers == (("Content-Length", "5"), ("Server", "x"), ("X-Request-Id", "r1"))


def test_canonical_names() -> None:
    names = {"x-request-id": "X-Request-Id", "ETAG": "Etag", "a b": "a b", "sec-ch-ua": "Sec-Ch-Ua", "": ""}
    assert {name: canonical(name) for name in names} == names


def test_the_scheme_and_the_trace_come_from_headers() -> None:
    record = decoded(entry(headers={"x-forwarded-proto": "https", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}))
    assert record.url == "https://deathstar/v1/exhaust-port"
    assert record.trace_id == TRACE
    assert decoded(entry(headers={"traceparent": "nonsense"})).trace_id == ""


def test_a_method_of_no_name_comes_as_a_header() -> None:
    made = entry(headers={":method": "PROPFIND"})
    made.request.request_method = 0
    assert decoded(made).exchange.method == "PROPFIND"


def test_a_slot_may_be_bytes_or_bare_text() -> None:
    for slot_any in ({"type_url": "", "value": b"egress:7:tcp:80"}, None):
        made = entry(slot=None, details="path_normalization_failed")
        state = made.common_properties.filter_state_objects["deflector.slot"]
        if slot_any:
            state.value = slot_any["value"]
        else:
            state.Pack(BytesValue(value=b"egress:7:tcp:80"))
        assert decoded(made).slot == SlotRef("egress:7:tcp:80", Direction.EGRESS, 7)


def test_ipv4_in_ipv6_is_ipv4() -> None:
    assert decoded(entry(client="::ffff:10.0.0.2")).exchange.client_ip == TIEFIGHTER
    assert decoded(entry(client="FD00:0::1")).exchange.client_ip == "fd00::1"


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (entry(slot=None), "filter_state_objects"),
        (entry(slot="sideways:1:tcp:80"), "direction:group"),
        (entry(slot="ingress:x:tcp:80"), "direction:group"),
        (entry(client="not-an-ip"), "downstream_remote_address"),
        (entry(server=""), "downstream_local_address"),
        (entry(port=0), "downstream_remote_address"),
        (entry(code=70000), "response_code"),
        (entry(latency_ns=10**18), "time_to_first_downstream_tx_byte"),
        (entry(latency_ns=-5), "time_to_first_downstream_tx_byte"),
    ],
)
def test_malformed_entries_name_the_field(made: HTTPAccessLogEntry, field: str) -> None:
    with pytest.raises(DecodeError, match=field):
        decode_entry(seen(made))


def test_a_message_leaves_out_what_is_malformed_and_counts_it() -> None:
    raw = message(*exchange(), entry(slot=None), denied())
    batch = decode_message(seen_pb2.Log.FromString(raw))
    assert [record.ended for record in batch.records] == [False, True, True]
    assert batch.malformed == 1
    assert "deflector.slot" in batch.complaint


def test_tcp_entries_that_refuse_nothing_are_malformed() -> None:
    made = StreamAccessLogsMessage()
    made.tcp_logs.log_entry.add()
    batch = decode_message(seen_pb2.Log.FromString(made.SerializeToString()))
    assert (batch.malformed, batch.refusals) == (1, ())


def test_a_refused_connection_names_its_server() -> None:
    batch = decode_message(seen_pb2.Log.FromString(refused("www.evil.org") + refused()))
    assert [(one.server_name, one.denied_by) for one in batch.refusals] == [("www.evil.org", "deny"), ("", "deny")]
    leg = batch.refusals[0].leg
    assert (leg.slot.name, leg.slot.direction, leg.slot.group) == ("egress:4711:tcp:443:tls", Direction.EGRESS, 4711)
    assert (leg.client_ip, leg.client_port, leg.server_ip, leg.server_port) == (TIEFIGHTER, 40000, "192.0.2.7", 443)
    assert batch.malformed == 0


@given(st.binary(max_size=200))
def test_whatever_comes_is_refused_or_malformed(raw: bytes) -> None:
    with suppress(DecodeError):
        decode_refusal(raw)


TEXT = st.one_of(st.text(max_size=8), st.sampled_from(("10.0.0.1", "::1", "ingress:1:tcp:80", "00-x-y-z")))


def hostile() -> st.SearchStrategy[HTTPAccessLogEntry]:
    """Entries that keep to the wire format and to nothing else."""

    def build(draw: Any) -> HTTPAccessLogEntry:
        made = HTTPAccessLogEntry(protocol_version=draw(st.integers(-1, 9)))
        common = made.common_properties
        common.access_log_type = draw(st.integers(5, 8))
        for address in (common.downstream_remote_address, common.downstream_local_address):
            if draw(st.booleans()):
                address.pipe.path = draw(TEXT)
            else:
                address.socket_address.address = draw(TEXT)
                address.socket_address.port_value = draw(st.integers(0, 2**32 - 1))
        state = common.filter_state_objects["deflector.slot"]
        state.type_url = draw(st.sampled_from(("", "x/google.protobuf.StringValue", "/google.protobuf.BytesValue")))
        state.value = draw(st.one_of(st.binary(max_size=12), TEXT.map(str.encode), st.just(b"\n\x10ingress:1:tcp:80")))
        common.time_to_first_downstream_tx_byte.seconds = draw(st.integers(-(2**63), 2**63 - 1))
        common.time_to_first_downstream_tx_byte.nanos = draw(st.integers(-(2**31), 2**31 - 1))
        made.request.request_method = draw(st.integers(-1, 12))
        made.request.path = draw(TEXT)
        made.request.request_headers.update(draw(st.dictionaries(TEXT, TEXT, max_size=3)))
        made.response.response_code.value = draw(st.integers(0, 2**32 - 1))
        made.response.response_code_details = draw(
            st.sampled_from(("", "rbac_access_denied", "rbac_access_denied_matched_policy[", "x"))
        )
        made.response.response_headers.update(draw(st.dictionaries(TEXT, TEXT, max_size=3)))
        return made

    return st.composite(build)()


@given(hostile())
def test_nothing_but_the_decode_error_escapes(made: HTTPAccessLogEntry) -> None:
    try:
        record = decode_entry(seen(made))
    except DecodeError:
        return
    assert record is None or (0 <= record.code <= 999 and 0 <= record.latency_ns < 10**18)
