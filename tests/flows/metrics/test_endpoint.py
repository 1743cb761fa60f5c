"""The page over HTTP: where it is, in which form, and what a busy port says."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter

from flows.metrics.endpoint import CLIENTS_MAX, MetricsServeError, MetricsServer


@contextmanager
def served(with_openmetrics: bool = False) -> Iterator[tuple[str, CollectorRegistry]]:
    registry = CollectorRegistry()
    Counter("hubble_drop_total", "Number of drops", registry=registry).inc()
    server = MetricsServer("127.0.0.1:0", registry, with_openmetrics)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.port}", registry
    finally:
        server.stop()


def get(url: str, accept: str = "*/*") -> tuple[str, str]:
    with urlopen(Request(url, headers={"Accept": accept}), timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def test_the_page_is_prometheus_text() -> None:
    with served() as (url, registry):
        kind, text = get(f"{url}/metrics", OPENMETRICS)
        assert kind.startswith("text/plain")
        assert "hubble_drop_total 1.0" in text
        get(f"{url}/metrics")
        assert registry.get_sample_value("hubble_metrics_http_handler_requests_total", {"code": "200"}) == 2


def test_openmetrics_for_those_who_ask_if_it_is_on() -> None:
    with served(with_openmetrics=True) as (url, _):
        kind, text = get(f"{url}/metrics", OPENMETRICS)
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        assert get(f"{url}/metrics")[0].startswith("text/plain")


def test_there_is_nothing_else_here() -> None:
    with served() as (url, registry), pytest.raises(HTTPError) as refused:
        get(f"{url}/")
    assert refused.value.code == 404
    assert registry.get_sample_value("hubble_metrics_http_handler_requests_total", {"code": "404"}) == 1


def test_a_busy_port_is_one_line() -> None:
    with served() as (url, _), pytest.raises(MetricsServeError, match="in use; choose another"):
        MetricsServer(url.removeprefix("http://"), CollectorRegistry())
    with pytest.raises(MetricsServeError, match="is no host:port"):
        MetricsServer("nowhere", CollectorRegistry())


def test_an_address_without_a_host_is_for_both_families() -> None:
    server = MetricsServer(":0", CollectorRegistry())
    server.start()
    try:
        for host in ("127.0.0.1", "[::1]"):
            with urlopen(f"http://{host}:{server.port}/metrics", timeout=5) as answer:
                assert answer.status == 200
    finally:
        server.stop()


def test_too_many_clients_are_closed_and_those_that_go_make_room() -> None:
    server = MetricsServer("127.0.0.1:0", CollectorRegistry())
    server.start()
    try:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CLIENTS_MAX)]
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as late:
            assert late.recv(1) == b""
        for one in silent:
            one.close()
        end = time.monotonic() + 5
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.02)
    finally:
        server.stop()
