"""Where reasons stand in flows: fields that Hubble has for allowed ones, the policy log for all; stock lines stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flow import flow_pb2
from observer import observer_pb2

from flows.accesslog.decode import judged
from flows.lookups import PolicyRef, Reason
from flows.observer import Observer
from flows.printer import Printer, Style
from flows.reader import Clock, Reader
from flows.reading import compile_request
from flows.server import start
from tests.flows.make import Galaxy, denied, entry, flows_in, intake, message
from tests.flows.test_hubble_cli import HUBBLE, hubble

RULE1 = PolicyRef("rule1", "default", "CiliumNetworkPolicy", logs=("watch this",))
ALLOWED = Reason((RULE1,), ("allowed by rule1",))
DENIED = Reason((), ("none of 1 HTTP rule matches: 403", "nearest rule1: method is PUT, not POST"))


def seen(why: Reason, *entries: object) -> list[flow_pb2.Flow]:
    taker = intake(Galaxy(why=why))
    taker.access_log(message(*entries))
    return flows_in(taker.ring)


def test_both_flows_of_an_exchange_name_the_policy_that_allowed_it() -> None:
    for flow in seen(ALLOWED, entry()):
        assert [policy.name for policy in flow.ingress_allowed_by] == ["rule1"]
        assert list(flow.policy_log) == ["watch this", "allowed by rule1"]
        assert not flow.egress_allowed_by
        assert not flow.ingress_denied_by


def test_an_egress_slot_names_egress_policies() -> None:
    (request, _) = seen(ALLOWED, entry(slot="egress:2222:tcp:80"))
    assert [policy.name for policy in request.egress_allowed_by] == ["rule1"]


def test_a_denial_says_why_and_blames_no_policy_by_name() -> None:
    for flow in seen(DENIED, denied()):
        assert list(flow.policy_log) == list(DENIED.log)
        assert not flow.ingress_denied_by
        assert not flow.ingress_allowed_by


def test_reasons_differ_where_all_else_is_alike() -> None:
    galaxy = Galaxy(why=ALLOWED)
    taker = intake(galaxy)
    taker.access_log(message(entry()))
    object.__setattr__(galaxy, "why", Reason((RULE1,), ("allowed by rule2",)))
    taker.access_log(message(entry(port=40001)))
    assert [flow.policy_log[-1] for flow in flows_in(taker.ring)] == ["allowed by rule1"] * 2 + ["allowed by rule2"] * 2


def test_a_reason_is_kept_by_a_filter_and_by_a_mask() -> None:
    taker = intake(Galaxy(why=DENIED))
    taker.access_log(message(denied()))
    request = observer_pb2.GetFlowsRequest(whitelist=[flow_pb2.FlowFilter(http_method=["PUT"])])
    request.field_mask.paths.append("policy_log")
    reader = Reader(taker.ring, compile_request(request), "n1", Clock(lambda: 0.0, lambda: 0))
    (wire, *_) = reader.piece(1.0)
    assert list(observer_pb2.GetFlowsResponse.FromString(wire).flow.policy_log) == list(DENIED.log)


def test_the_name_of_the_leaf_is_read_from_the_metadata() -> None:
    made = entry()
    assert judged(made.common_properties.metadata.SerializeToString()) == ("allowed", "")
    assert judged(b"") == ("", "")


def lines(flows: list[flow_pb2.Flow], style: Style) -> str:
    printer = Printer(style)
    return "".join(printer.text(observer_pb2.GetFlowsResponse(flow=flow)) for flow in flows) + printer.close()


@pytest.mark.parametrize("output", ["compact", "dict", "tab"])
def test_lines_without_why_are_as_if_there_was_no_reason(output: str) -> None:
    with_reason = seen(DENIED, denied()) + seen(ALLOWED, entry())
    without = seen(Reason(), denied()) + seen(Reason(), entry())
    for flow, bare in zip(with_reason, without, strict=True):
        bare.time.CopyFrom(flow.time)
    assert lines(with_reason, Style(output=output)) == lines(without, Style(output=output))


@pytest.mark.skipif(not os.environ.get("HUBBLE_CLI"), reason="HUBBLE_CLI names no stock command line")
async def test_the_stock_command_line_prints_them_as_ever_and_reads_them_back(tmp_path: Path) -> None:
    assert HUBBLE
    observer = Observer(lambda: Galaxy(why=DENIED), version="0.1.0")
    observer.access_log(message(denied()))
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    try:
        code, out, err = await hubble("observe", "--server", target, "--print-policy-names")
        assert (code, err) == (0, "")
        assert [line.partition(") ")[2].partition("(HTTP")[0] for line in out.splitlines()] == [
            "-> default/deathstar-1:80 (ID:4711) http-request DROPPED ",
            "<- default/deathstar-1:80 (ID:4711) http-response FORWARDED ",
        ]
        _, ours, _ = await hubble("observe", "--server", target, "-o", "json")
    finally:
        await server.stop(None)
    assert all(DENIED.log[1] in line for line in ours.splitlines())
    code, again, err = await hubble("observe", "--input-file", "-", "-o", "json", stdin=ours.encode())
    assert (code, again, err) == (0, ours, "")
