"""How the stock command line is run on recorded responses, and what we do in its place.

testdata/responses.jsonl holds the responses; testdata/NAME.txt is what hubble 1.19.4 printed for them. They are
recordings: `HUBBLE_CLI=path pytest tests/flows/test_hubble_cli.py --goldens` records them anew.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import json_format
from observer import observer_pb2

from flows.printer import Printer, Style

TESTDATA = Path(__file__).parent / "testdata"
RESPONSES = TESTDATA / "responses.jsonl"

# name -> (arguments of hubble observe, our style)
RUNS: dict[str, tuple[list[str], Style]] = {
    "compact": ([], Style()),
    "compact-colour": (
        ["--color", "always", "--print-node-name", "--print-policy-names"],
        Style(colour=True, node_name=True, policy_names=True),
    ),
    "compact-numeric": (
        ["--numeric", "--time-format", "RFC3339Nano"],
        Style(ip_translation=False, time_format="RFC3339Nano"),
    ),
    "dict": (["-o", "dict"], Style("dict")),
    "dict-colour": (
        ["-o", "dict", "--color", "always", "--print-node-name", "--time-format", "RFC1123Z"],
        Style("dict", colour=True, node_name=True, time_format="RFC1123Z"),
    ),
    "json": (["-o", "json"], Style("json")),
    "table": (["-o", "table"], Style("table")),
    "table-node": (
        ["-o", "tab", "--print-node-name", "--color", "always", "--time-format", "YearMonthDayHourMinute"],
        Style("tab", colour=True, node_name=True, time_format="YearMonthDayHourMinute"),
    ),
}


def responses() -> list[observer_pb2.GetFlowsResponse]:
    lines = RESPONSES.read_text(encoding="utf-8").split("\n")
    return [json_format.Parse(line, observer_pb2.GetFlowsResponse()) for line in lines if line]


def printed(style: Style) -> str:
    """What our printer makes of the recorded responses: output, then notices."""
    printer = Printer(style)
    out, notices = "", ""
    for response in responses():
        out += printer.text(response)
        notices += printer.notice(response)
    return out + printer.close() + notices
