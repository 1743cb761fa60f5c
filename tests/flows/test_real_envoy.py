"""The access log of the real Envoy, with the listeners that we serve it, as flows."""

from __future__ import annotations

import asyncio
from pathlib import Path

from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from flow import flow_pb2

from flows.accesslog.decode import DOWNSTREAM_END
from tests.features.live import HttpClient, control_plane, live_envoy, on_loopback, origin
from tests.flows.make import Galaxy, flows_in, intake
from tests.xds.make import node, rule, slot
from xds.resources import FILTER, LISTENER
from xds.translator import Options, translate

SLOT = "ingress:4711:tcp:80"


async def test_allowed_denied_malformed_and_failed_requests(tmp_path: Path, unused_tcp_port: int) -> None:
    table = translate(node(slot(SLOT, rule("GET", "/a.*"))), {SLOT: unused_tcp_port}, Options(ipv6=False))
    async with control_plane(tmp_path) as plane, live_envoy(tmp_path, plane.socket):
        async with origin() as server:
            plane.cache.publish(on_loopback(table, server.port))
            await plane.ads.wait_acked({LISTENER: (SLOT,), FILTER: (SLOT,)}, 10)
            client = await HttpClient.connect(unused_tcp_port)
            await client.get("/a?q=1", headers=(("User-Agent", "tie"), ("X-Request-Id", "r1")))
            await client.get("/b")
            await client.get("/a%2Fb")
            await (await HttpClient.connect(unused_tcp_port)).send(b"no request\r\n\r\n")
        plane.cache.publish(on_loopback(table, 1))  # nobody listens there
        await plane.ads.wait_acked({LISTENER: (SLOT,), FILTER: (SLOT,)}, 10)
        await (await HttpClient.connect(unused_tcp_port)).get("/a")
        entries = await plane.logs.until(lambda seen: len(seen) >= 5)
    entries.sort(key=lambda entry: entry.common_properties.start_time.ToNanoseconds())  # streams keep no common order
    made = intake(Galaxy())
    made.access_log(StreamAccessLogsMessage(http_logs={"log_entry": entries}).SerializeToString())
    assert made.complaint == ""
    assert [(flow_pb2.Verdict.Name(flow.verdict), told(flow)) for flow in flows_in(made.ring)] == [
        ("FORWARDED", "HTTP/1.1 GET http://h/a"),
        ("FORWARDED", "HTTP/1.1 200 (GET http://h/a)"),
        ("DROPPED", "HTTP/1.1 GET http://h/b"),
        ("FORWARDED", "HTTP/1.1 403 (GET http://h/b)"),
        ("DROPPED", "HTTP/1.1 GET http://h/a/b"),
        ("FORWARDED", "HTTP/1.1 307 (GET http://h/a/b)"),
        ("DROPPED", "HTTP/1.1  http://"),
        ("FORWARDED", "HTTP/1.1 400 ( http://)"),
        ("FORWARDED", "HTTP/1.1 GET http://h/a"),
        ("FORWARDED", "HTTP/1.1 503 (GET http://h/a)"),
    ]
    request, response = flows_in(made.ring)[:2]
    assert [(header.key, header.value) for header in request.l7.http.headers] == [
        ("User-Agent", "tie"),
        ("X-Request-Id", "r1"),
    ]
    assert [(header.key, header.value) for header in response.l7.http.headers] == [("X-Request-Id", "r1")]
    assert 0 < response.l7.latency_ns < 10**9
    assert request.l4.TCP.source_port == response.l4.TCP.destination_port > 0


async def test_a_request_that_stays_open_is_told_of_while_it_lasts(tmp_path: Path, unused_tcp_port: int) -> None:
    table = translate(node(slot(SLOT, rule("GET", "/a"))), {SLOT: unused_tcp_port}, Options(ipv6=False))
    made = intake(Galaxy())
    async with control_plane(tmp_path) as plane, live_envoy(tmp_path, plane.socket), origin(answer=b"") as server:
        plane.cache.publish(on_loopback(table, server.port))
        await plane.ads.wait_acked({LISTENER: (SLOT,), FILTER: (SLOT,)}, 10)
        _, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        entries = list(await plane.logs.until(bool))
        made.access_log(StreamAccessLogsMessage(http_logs={"log_entry": entries}).SerializeToString())
        assert [told(flow) for flow in flows_in(made.ring)] == ["HTTP/1.1 GET http://h/a"]
        writer.close()
        await plane.logs.until(lambda seen: seen[-1].common_properties.access_log_type == DOWNSTREAM_END)
    rest = plane.logs.entries[len(entries) :]
    made.access_log(StreamAccessLogsMessage(http_logs={"log_entry": rest}).SerializeToString())
    assert [told(flow) for flow in flows_in(made.ring)] == ["HTTP/1.1 GET http://h/a"], "told once, and never answered"


def told(flow: flow_pb2.Flow) -> str:
    """The summary without its latency."""
    return " ".join(word for word in flow.Summary.split(" ") if not word.endswith("ms"))
