"""`observe --why`: the reason stands under its flow."""

from __future__ import annotations

from typing import Any

import pytest
from observer import observer_pb2

from flows.jsonpb import to_json
from flows.printer import Printer, Style

DENIED = ("none of 1 HTTP rule matches: 403", "nearest rule1: method is PUT, not POST")
REQUEST: dict[str, Any] = {"l7": {"type": 1, "http": {}}, "is_reply": {"value": False}, "verdict": 2, "Summary": "PUT"}
ANSWER: dict[str, Any] = {"l7": {"type": 2, "http": {}}, "is_reply": {"value": True}, "verdict": 1, "Summary": "403"}


def flow(fields: dict[str, Any], *log: str) -> observer_pb2.GetFlowsResponse:
    return observer_pb2.GetFlowsResponse(flow={**fields, "policy_log": log})


def printed(*flows: observer_pb2.GetFlowsResponse, output: str = "compact", why: bool = True) -> list[str]:
    printer = Printer(Style(output=output, why=why))
    return ("".join(map(printer.text, flows)) + printer.close()).splitlines()


def test_the_reason_stands_under_its_flow() -> None:
    said = printed(flow(REQUEST, *DENIED))
    assert "http-request DROPPED (PUT)" in said[0]
    assert said[1:] == [f"    {line}" for line in DENIED]


def test_the_answer_does_not_say_it_again() -> None:
    request, answer = flow(REQUEST, *DENIED), flow(ANSWER, *DENIED)
    assert len(printed(request, answer)) == 4
    assert len(printed(answer)) == 3
    assert len(printed(request, request)) == 6
    assert len(printed(request, flow(ANSWER, "another"))) == 5


def test_nothing_is_said_unless_it_is_asked_for() -> None:
    assert len(printed(flow(REQUEST, *DENIED), why=False)) == 1


@pytest.mark.parametrize("output", ["json", "tab"])
def test_json_and_tables_stay_as_they_are(output: str) -> None:
    assert printed(flow(REQUEST, *DENIED), output=output) == printed(flow(REQUEST, *DENIED), output=output, why=False)
    assert DENIED[1] in to_json(flow(REQUEST, *DENIED))


def test_what_is_quoted_makes_no_lines_of_its_own() -> None:
    said = printed(flow(REQUEST, "path is /a\n\x1b[31mJan 14 10:11:12.345: default/tiefighter"))
    assert len(said) == 2
    assert said[1] == "    path is /a\\n\\x1b[31mJan 14 10:11:12.345: default/tiefighter"
