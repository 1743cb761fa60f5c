"""The /metrics page, by HTTP. Runs in threads of its own, so that a slow scraper holds up nobody."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from flows.metrics.families import BUCKETS

SCRAPES_MAX: Final = 8  # at once; further ones are told to come later
CLIENTS_MAX: Final = 64  # connections at once; further ones are closed
CLIENT_TIMEOUT: Final = 10.0  # seconds that a client may take to send its request or to read the page

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class MetricsServeError(Exception):
    """The address cannot be served; one line that says what to do."""


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


class MetricsServer:
    """Serves one registry. `with_openmetrics`: also in OpenMetrics' form (with exemplars) to those who ask for it."""

    def __init__(self, address: str, registry: CollectorRegistry, with_openmetrics: bool = False) -> None:
        """Raises MetricsServeError if the address is busy or none. `address` is `host:port`; port 0 is any free one."""
        self._app = make_wsgi_app(registry)
        self._with_openmetrics = with_openmetrics
        self._slots = BoundedSemaphore(SCRAPES_MAX)
        self._requests = Counter(
            "hubble_metrics_http_handler_requests_total", "Scrapes by status code", ("code",), registry=registry
        )
        self._duration = Histogram(
            "hubble_metrics_http_handler_request_duration_seconds",
            "Duration of scrapes by status code",
            ("code",),
            buckets=BUCKETS,
            registry=registry,
        )
        host, _, port = address.rpartition(":")
        try:
            self._server = make_server(
                host.strip("[]"), int(port), self._serve, _server_class(host), handler_class=_Handler
            )
        except (OSError, ValueError, OverflowError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else f"is no host:port ({error})"
            raise MetricsServeError(f"metrics address {address}: {words}; choose another") from None
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_port)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; returns when the last thread has let go of the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        began, codes = time.monotonic(), []

        def noted(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            codes.append(status.partition(" ")[0])
            return start_response(status, headers, *rest)

        body = self._answer(environ, noted)
        code = codes[0] if codes else "500"
        self._requests.labels(code).inc()
        self._duration.labels(code).observe(time.monotonic() - began)
        return body

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/metrics":
            return _plain("404 Not Found", "the metrics are at /metrics\n", start_response)
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _plain("405 Method Not Allowed", "GET only\n", start_response)
        if not self._slots.acquire(blocking=False):
            return _plain("503 Service Unavailable", f"{SCRAPES_MAX} scrapes are under way\n", start_response)
        try:
            if not self._with_openmetrics:
                environ = {**environ, "HTTP_ACCEPT": ""}
            page: Iterable[bytes] = self._app(environ, start_response)
            return page
        finally:
            self._slots.release()


def _server_class(host: str) -> type[ThreadingWSGIServer]:
    """Without a host it is for both families, where there are both."""
    is_for_all = not host and socket.has_dualstack_ipv6()

    class Server(ThreadingWSGIServer):
        daemon_threads = True
        clients = BoundedSemaphore(CLIENTS_MAX)
        request_queue_size = CLIENTS_MAX
        address_family = socket.AF_INET6 if ":" in host or is_for_all else socket.AF_INET

        def process_request(self, request: Any, client_address: Any) -> None:
            """One thread for each client, as long as there are not too many."""
            if self.clients.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.clients.release()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that are slow, or go away, are no news."""

        def server_bind(self) -> None:
            """Without the look-up of our own name that HTTPServer makes: a resolver may take its time."""
            if is_for_all:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            TCPServer.server_bind(self)
            self.server_name, self.server_port = host, self.server_address[1]
            self.setup_environ()

    return Server


def _plain(status: str, text: str, start_response: StartResponse) -> Iterable[bytes]:
    body = text.encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
