"""Our lines against those of the stock hubble command line, recorded and quoted."""

from __future__ import annotations

from typing import Any

import pytest
from flow import flow_pb2
from hypothesis import given
from hypothesis import strategies as st
from observer import observer_pb2
from relay import relay_pb2

from flows.gotext import aligned, duration_text, join_host_port, join_path, quoted
from flows.printer import Printer, PrinterError, Style, cut_off
from tests.flows.hubble_runs import RUNS, TESTDATA, printed
from tests.flows.strategies import notices, responses

TIME = {"seconds": 1_768_385_472, "nanos": 345_678_901}  # 2026-01-14 10:11:12
TIEFIGHTER = {"namespace": "default", "pod_name": "tiefighter", "identity": 1111}
DEATHSTAR = {"namespace": "default", "pod_name": "deathstar-abc", "identity": 2222}
IPS = {"source": "10.0.0.2", "destination": "10.0.0.1"}
EXHAUST = "PUT http://deathstar.default.svc.cluster.local/v1/exhaust-port"


def tcp(source: int, destination: int) -> dict[str, Any]:
    return {"TCP": {"source_port": source, "destination_port": destination}}


def line(style: Style | None = None, **fields: Any) -> str:
    given = {"time": TIME, "IP": IPS, "source": TIEFIGHTER, "destination": DEATHSTAR}
    printer = Printer(style)
    return printer.text(observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow(**(given | fields)))) + printer.close()


@pytest.mark.parametrize("name", RUNS)
def test_recordings(name: str) -> None:
    """Some hundred random responses, in every format, as hubble 1.19.4 printed them."""
    assert printed(RUNS[name][1]) == (TESTDATA / f"{name}.txt").read_bytes().decode()


def test_lines_that_people_know() -> None:
    http = {"type": 1, "http": {"method": "PUT"}}
    assert line(verdict=1, l4=tcp(40000, 80), l7=http, is_reply={"value": False}, Summary=f"HTTP/1.1 {EXHAUST}") == (
        "Jan 14 10:11:12.345: default/tiefighter:40000 (ID:1111) -> default/deathstar-abc:80 (ID:2222) "
        f"http-request FORWARDED (HTTP/1.1 {EXHAUST})\n"
    )
    back = {"source": DEATHSTAR, "destination": TIEFIGHTER, "l4": tcp(80, 40000), "is_reply": {"value": True}}
    assert line(verdict=1, l7={"type": 2, "http": {}}, Summary=f"HTTP/1.1 200 1ms ({EXHAUST})", **back) == (
        "Jan 14 10:11:12.345: default/tiefighter:40000 (ID:1111) <- default/deathstar-abc:80 (ID:2222) "
        f"http-response FORWARDED (HTTP/1.1 200 1ms ({EXHAUST}))\n"
    )
    dns = {"type": 1, "dns": {"observation_source": "proxy"}}
    assert "dns-request proxy FORWARDED" in line(verdict=1, l7=dns)
    dropped = {"verdict": 2, "event_type": {"type": 1, "sub_type": 133}, "destination": {"identity": 2}}
    assert line(l4=tcp(40001, 443), destination_names=["dns.google"], Summary="TCP Flags: SYN", **dropped) == (
        "Jan 14 10:11:12.345: default/tiefighter:40001 (ID:1111) <> dns.google:443 (world) "
        "Policy denied DROPPED (TCP Flags: SYN)\n"
    )
    verdict = {"event_type": {"type": 5}, "policy_match_type": 2, "traffic_direction": 1}
    assert line(verdict=2, l4=tcp(40001, 443), Summary="TCP Flags: SYN", **verdict) == (
        "Jan 14 10:11:12.345: default/tiefighter:40001 (ID:1111) <> default/deathstar-abc:443 (ID:2222) "
        "policy-verdict:L3-L4 INGRESS DENIED (TCP Flags: SYN)\n"
    )


def test_names_of_policies_and_nodes() -> None:
    policies = [
        {"name": "l7", "kind": "CiliumNetworkPolicy"},
        {"name": "cc", "kind": "CiliumClusterwideNetworkPolicy"},
        {"name": "x"},
    ]
    shown = line(
        Style(node_name=True, policy_names=True),
        verdict=1,
        l4=tcp(40001, 80),
        node_name="default/n1",
        event_type={"type": 5},
        policy_match_type=2,
        traffic_direction=1,
        is_reply={"value": False},
        ingress_allowed_by=policies,
        Summary="TCP Flags: SYN",
    )
    assert shown == (
        "Jan 14 10:11:12.345 [default/n1]: default/tiefighter:40001 (ID:1111) -> default/deathstar-abc:80 (ID:2222) "
        "policy-verdict:L3-L4 INGRESS ALLOWED BY l7 (CiliumNetworkPolicy), cc (CiliumClusterwideNetworkPolicy) "
        "(TCP Flags: SYN)\n"
    )


def test_other_lines_that_hubble_printed() -> None:
    assert line(
        verdict=1,
        IP={"source": "fd00::1", "destination": "fd00::2"},
        source={"identity": 1},
        destination={"identity": 16777217},
        l4=tcp(40001, 80),
        event_type={"type": 4, "sub_type": 1},
        is_reply={"value": False},
        Summary="TCP Flags: ACK, PSH",
    ) == (
        "Jan 14 10:11:12.345: [fd00::1]:40001 (host) -> [fd00::2]:80 (ID:16777217) to-proxy FORWARDED "
        "(TCP Flags: ACK, PSH)\n"
    )
    assert line(
        verdict=1,
        destination={"identity": 6},
        destination_service={"name": "svc", "namespace": "ns2"},
        l4={"ICMPv4": {"type": 8}},
        event_type={"type": 4},
        is_reply={"value": True},
        Summary="ICMPv4 EchoRequest",
    ) == (
        "Jan 14 10:11:12.345: ns2/svc (remote-node) <- default/tiefighter (ID:1111) to-endpoint FORWARDED "
        "(ICMPv4 EchoRequest)\n"
    )
    lost = observer_pb2.GetFlowsResponse(
        time=TIME, lost_events={"source": 3, "num_events_lost": 7, "first": TIME, "last": TIME}
    )
    assert Printer().text(lost) == (
        "Jan 14 10:11:12.345 EVENTS LOST: HUBBLE_RING_BUFFER CPU(0) 7 "
        "(first: Jan 14 10:11:12.345, last: Jan 14 10:11:12.345)\n"
    )


def test_dict_separates_records() -> None:
    printer = Printer(Style("dict", node_name=True))
    flow = observer_pb2.GetFlowsResponse(
        flow=flow_pb2.Flow(time=TIME, IP=IPS, verdict=1, source=TIEFIGHTER, node_name="n1", Summary="s")
    )
    first, second = printer.text(flow), printer.text(flow)
    assert first == (
        "  TIMESTAMP: Jan 14 10:11:12.345\n"
        "       NODE: n1\n"
        "     SOURCE: default/tiefighter\n"
        "DESTINATION: 10.0.0.1\n"
        "       TYPE: UNKNOWN\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: s\n"
    )
    assert second == f"------------\n{first}"


def test_colours_nest_and_foreign_escapes_are_disarmed() -> None:
    shown = line(Style(colour=True), verdict=2, l4=tcp(1, 80), Summary="\x1b[2Jbad\r\x1b[31mred")
    assert "\x1b[36mdefault/deathstar-abc:\x1b[33m80\x1b[0m\x1b[0m" in shown
    assert "\x1b[31mDROPPED\x1b[0m" in shown
    assert shown.endswith("(^[[2Jbad\\r\x1b[31mred)\n")  # a colour of ours passes, as with hubble
    assert "\x1b" not in line(Style(colour=False), Summary="\x1b[31mred")


def test_notices_about_nodes() -> None:
    def notice(state: int, debug: bool = False) -> str:
        status = {"state_change": state, "node_names": ["a" * 30, "b" * 30, "c"], "message": 'no "way"'}
        response = observer_pb2.GetFlowsResponse(time=TIME, node_name="relay", node_status=status)
        return Printer(Style(debug=debug)).notice(response)

    names = f"{'a' * 30} (and 2 more)"
    assert notice(relay_pb2.NODE_UNAVAILABLE) == f"Jan 14 10:11:12.345 [relay]: 3 nodes are unavailable: {names}\n"
    assert notice(relay_pb2.NODE_ERROR) == f'Jan 14 10:11:12.345 [relay]: Error "no \\"way\\"" on 3 nodes: {names}\n'
    assert notice(relay_pb2.NODE_CONNECTED) == ""
    assert "Receiving flows from 3 nodes" in notice(relay_pb2.NODE_CONNECTED, debug=True)
    assert cut_off(["n1", "n2"]) == "n1, n2"


@pytest.mark.parametrize(
    ("style", "complaint"),
    [(Style("yaml"), "invalid output format: yaml"), (Style(time_format="now"), "invalid time format: now")],
)
def test_styles_that_cannot_be(style: Style, complaint: str) -> None:
    with pytest.raises(PrinterError, match=complaint):
        Printer(style)


def test_text_as_go_makes_it() -> None:
    assert [join_path("", "b"), join_path("a", "../c"), join_path("a", "b")] == ["b", "c", "a/b"]
    assert [join_host_port("::1", "80"), join_host_port("h", "80")] == ["[::1]:80", "h:80"]
    durations = {
        0: "0s",
        999: "999ns",
        1_500: "1.5µs",
        2_000_000: "2ms",
        61_500_000_000: "1m1.5s",
        3600 * 10**9: "1h0m0s",
    }
    assert {number: duration_text(number) for number in durations} == durations
    assert quoted('a"\n\x01é') == '"a\\"\\n\\x01é"'
    assert aligned("a\tbb\tc\nddd\te\tf\n") == "a     bb   c\nddd   e    f\n"
    assert aligned("a\tb\n\nccc\td\n") == "a   b\n\nccc   d\n"


@given(st.lists(st.one_of(responses(), notices()), max_size=4), st.sampled_from([style for _, style in RUNS.values()]))
def test_whatever_comes_is_printed_and_only_our_own_sequences_get_out(
    said: list[observer_pb2.GetFlowsResponse], style: Style
) -> None:
    printer = Printer(style)
    out = "".join(printer.text(response) + printer.notice(response) for response in said) + printer.close()
    if not style.colour:
        assert "\x1b" not in out
    assert "\r" not in out
