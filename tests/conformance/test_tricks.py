"""The bypass suite has teeth: without a proxy in between, tricks arrive and are found out."""

from __future__ import annotations

import socket

import pytest

from conformance import suites
from conformance.bypass import CLOSED, Trick, Wire, corpus, trespass
from conformance.flow_view import SeenFlow
from conformance.recorder import listening, recording
from conformance.scenario import Sneak
from conformance.sneak import sneak
from conformance.tricks import Tried, flow_faults, flows_missing
from conformance.wire import Way

HERE = ("127.0.0.1", 0)
TRICKS = [trick for trick in corpus().tricks if trick.answers != ("200",) and CLOSED not in trick.answers]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(HERE)
        port: int = probe.getsockname()[1]
        return port


def way(port: int) -> Way:
    return Way("", HERE, (HERE[0], port))


@pytest.mark.parametrize(
    ("wire", "sent", "target"),
    [
        (Wire.TARGET, "/admin", "/admin"),
        (Wire.HTTP1, "GET /public/%2e%2e/admin HTTP/1.1\r\nHost: public.example\r\n\r\n", "/public/%2e%2e/admin"),
        (Wire.HTTP2, ":method=GET :scheme=http :authority=public.example :path=/admin", "/admin"),
    ],
)
async def test_what_is_sent_arrives_as_it_is(wire: Wire, sent: str, target: str) -> None:
    port = free_port()
    trick = Trick(1, "x", wire, ("403",), sent, "x")
    async with recording(listening("", port)) as seen:
        assert await sneak(way(port), trick) == ("200",)
    assert [request.target for request in seen.received] == [target]
    assert all(trespass(corpus().allowed, request) for request in seen.received)


async def test_a_server_without_a_proxy_is_trespassed_upon() -> None:
    port, caught = free_port(), 0
    async with recording(listening("", port)) as seen:
        for trick in TRICKS:
            before = len(seen.received)
            answers = await sneak(way(port), trick)
            wrong = [r for r in seen.received[before:] if trespass(corpus().allowed, r)]
            caught += bool(wrong) or answers != trick.answers
    assert caught == len(TRICKS)


def test_every_line_of_the_corpus_is_in_one_scenario() -> None:
    steps = [step for scenario in suites.load("bypass").scenarios for step in scenario.steps]
    assert [trick for step in steps if isinstance(step, Sneak) for trick in step.tricks] == list(corpus().tricks)


def test_flows_must_tell_what_the_client_saw() -> None:
    trick = Trick(1, "x", Wire.HTTP1, ("200", "403", CLOSED), "x", "x")
    tried = Tried(trick, 20001, trick.answers, ())
    told = [
        SeenFlow(event="l7", l7="RESPONSE", direction="INGRESS", destination_port="20001", code=code)
        for code in ("200", "403")
    ]
    assert not flows_missing(tried, told)
    assert flow_faults(tried, told) == []
    assert flows_missing(tried, told[:1])
    assert flow_faults(tried, told[::-1]) == ["flows tell of 403, 200, the client saw 200, 403"]
