"""The status of a server, as `hubble status` prints it."""

from __future__ import annotations

import pytest
from observer import observer_pb2

from flows.status import status_text, unhealthy_text

STATUS = observer_pb2.ServerStatusResponse(
    num_flows=1234, max_flows=4095, seen_flows=9_876_543, uptime_ns=90 * 10**9, version="v1", flows_rate=12.345
)
RELAY = observer_pb2.ServerStatusResponse(
    num_flows=1,
    num_connected_nodes={"value": 2},
    num_unavailable_nodes={"value": 3},
    unavailable_nodes=["n4", "n3"],
)


def test_compact() -> None:
    assert status_text("127.0.0.1:4245", STATUS) == (
        "Healthcheck (via 127.0.0.1:4245): Ok\nCurrent/Max Flows: 1,234/4,095 (30.13%)\nFlows/s: 12.35\n"
    )
    assert status_text("t", RELAY) == (
        "Healthcheck (via t): Ok\nCurrent/Max Flows: 1/0\nFlows/s: N/A\nConnected Nodes: 2/5\n"
        "Unavailable Nodes: 3\n  - n3\n  - n4\n  - and 1 more...\n"
    )
    assert unhealthy_text("t", "NOT_SERVING") == "Healthcheck (via t): Unavailable: NOT_SERVING\n"


def test_without_a_rate_it_is_what_was_seen_over_the_uptime() -> None:
    quiet = observer_pb2.ServerStatusResponse(seen_flows=45, uptime_ns=90 * 10**9)
    assert "Flows/s: 0.50\n" in status_text("t", quiet)


def test_other_formats() -> None:
    assert status_text("t", STATUS, "dict") == (
        "          NUM FLOWS: 1,234\n"
        "          MAX FLOWS: 4,095\n"
        "         SEEN FLOWS: 9,876,543\n"
        "   FLOWS PER SECOND: 12.35\n"
        "             UPTIME: 1m30s\n"
        "NUM CONNECTED NODES: N/A\n"
        " NUM UNAVAIL. NODES: N/A\n"
        "            VERSION: v1\n"
    )
    heading, cells = status_text("t", STATUS, "table").splitlines()
    assert heading.split("   ")[:2] == ["NUM FLOWS", "MAX FLOWS"]
    assert cells.split()[:4] == ["1,234", "4,095", "9,876,543", "12.35"]
    assert status_text("t", STATUS, "json").startswith('{"num_flows":"1234","max_flows":"4095"')
    with pytest.raises(ValueError, match="invalid output format: yaml"):
        status_text("t", STATUS, "yaml")
