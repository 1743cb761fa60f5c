"""No line of the bypass corpus gets past the real Envoy, however the server behind it would read what arrives."""

from __future__ import annotations

import socket
from pathlib import Path

from conformance.bypass import Allowed, Corpus, Trick, Wire, corpus, trespass
from conformance.recorder import Recorder, recording
from policies.ir import HeaderMatch, HttpRule
from tests.features.live import control_plane, live_envoy, on_loopback
from tests.features.test_stories import free_port
from tests.xds.asker import ask_http1, ask_http2
from tests.xds.make import node, slot
from xds.resources import FILTER, LISTENER
from xds.translator import Options, translate


def rule_of(allowed: Allowed) -> HttpRule:
    headers = (HeaderMatch(allowed.header[0].lower(), allowed.header[1]),) if allowed.header else ()
    return HttpRule(allowed.method, allowed.path, allowed.host, headers)


async def answers(port: int, trick: Trick) -> tuple[str, ...]:
    if trick.wire is Wire.HTTP2:
        return (await ask_http2(port, trick.fields()),)
    return tuple(await ask_http1(port, trick.raw(), len(trick.answers)))


async def complaints(port: int, seen: Recorder, read: Corpus) -> list[str]:
    """What is wrong, line by line."""
    found = []
    for trick in read.tricks:
        before = len(seen.received), len(seen.odd)
        got = await answers(port, trick)
        if got != trick.answers:
            found.append(f"line {trick.line} ({trick.why}): answered {got}, not {trick.answers}")
        for request in seen.received[before[0] :]:
            if why := trespass(read.allowed, request):
                found.append(f"line {trick.line} ({trick.why}): {why}")
        found += [f"line {trick.line} ({trick.why}): the server cannot read {odd!r}" for odd in seen.odd[before[1] :]]
    return found


async def test_no_line_of_the_corpus_reaches_what_is_forbidden(tmp_path: Path) -> None:
    read, port, server = corpus(), free_port(), socket.create_server(("127.0.0.1", 0))
    behind = server.getsockname()[1]
    async with control_plane(tmp_path) as plane, live_envoy(tmp_path, plane.socket), recording([server]) as seen:
        table = translate(node(slot("web", *map(rule_of, read.allowed))), {"web": port}, Options(ipv6=False))
        plane.cache.publish(on_loopback(table, behind))
        assert (await plane.ads.wait_acked({LISTENER: ["web"], FILTER: ["web"]}, 10)).is_complete
        wrong = await complaints(port, seen, read)
        assert not wrong, "\n".join(["", *wrong])
        # Nothing that was on its way arrives late: all is judged once more, behind a request that is the last.
        assert await ask_http1(port, read.tricks[0].raw(), 1) == ["200"]
        assert [why for request in seen.received if (why := trespass(read.allowed, request))] == []
        assert len(await plane.logs.until(lambda entries: len(entries) > len(read.tricks))) > len(read.tricks)
