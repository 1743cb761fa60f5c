"""A probe pair: two pods that are not of the cluster, one that asks and one that answers, and a node between them that
lets the one ask for one path only. What comes back proves that redirection works on this host. Needs root.

The pods are network namespaces with a veth and a host route each, as a CNI would make them; addresses are of
198.18.0.0/15 (RFC 2544, for such trials). The node is `deflector run` with a folder of its own, in this namespace. All
that was made is removed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

from agent.errors import EnvironmentProblem
from bpf.features import Check, State
from conformance import netns
from conformance.errors import EnvironmentFailure

CLIENT, SERVER = "198.18.255.1", "198.18.255.2"
PORT: Final = 8080
ALLOWED, FORBIDDEN = "/allowed", "/forbidden"
GATEWAY: Final = "169.254.1.1"
START_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 2.0
COMMAND: Final = Path(sys.executable).with_name("deflector")


def probe() -> Check:
    """Whether a request is redirected and judged on this host, in network namespaces that exist for it alone."""
    try:
        with _pods() as (client, server), _answering(server), _node() as folder:
            return _judged(client, folder)
    except (EnvironmentFailure, EnvironmentProblem, OSError) as error:
        return Check("probe pair", State.UNKNOWN, str(error), "the probe could not be made: see above what is missing")


def _judged(client: str, folder: Path) -> Check:
    deadline = time.monotonic() + START_SECONDS
    seen = ("", "")
    while time.monotonic() < deadline:
        seen = (_ask(client, ALLOWED), _ask(client, FORBIDDEN))
        if seen == ("200", "403"):
            return Check("probe pair", State.OK, "what a rule allows is answered 200, the rest 403")
        time.sleep(0.1)
    words = f"what a rule allows is answered {seen[0]}, the rest {seen[1]}; 200 and 403 were expected"
    log = (folder / "log").read_text(errors="replace").strip().splitlines()
    return Check("probe pair", State.MISSING, words, f"its node said last: {log[-1] if log else 'nothing'}")


def _ask(client: str, path: str) -> str:
    """The status code, or what went wrong in a word."""
    try:
        with netns.socket_in(client, socket.AF_INET, socket.SOCK_STREAM) as made:
            made.settimeout(ANSWER_SECONDS)
            made.connect((SERVER, PORT))
            connection = http.client.HTTPConnection(SERVER, PORT)
            connection.sock = made
            connection.request("GET", path)
            return str(connection.getresponse().status)
    except TimeoutError:
        return "nothing"
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


@contextmanager
def _pods() -> Iterator[tuple[str, str]]:
    """Two network namespaces, each reached by a host route to a veth."""
    tag = secrets.token_hex(2)
    names = [f"dflp-{tag}-{which}" for which in ("a", "b")]
    veths = [f"dflp{tag}{which}" for which in ("a", "b")]
    try:
        for name, veth, address in zip(names, veths, (CLIENT, SERVER), strict=True):
            _make_pod(name, veth, address)
        yield names[0], names[1]
    finally:
        for veth in veths:  # they would go with their namespaces, but some time later
            with contextlib.suppress(EnvironmentFailure):
                netns.tool(["ip", "link", "delete", veth])
        netns.remove(names)


def _make_pod(name: str, veth: str, address: str) -> None:
    netns.tool(["ip", "netns", "add", name])
    netns.ip_batch("", [f"link add {veth} type veth peer name eth0 netns {name}", f"link set {veth} up"])
    mac = json.loads(netns.tool(["ip", "-j", "link", "show", "dev", veth]))[0]["address"]
    lines = ["link set lo up", "link set eth0 up", f"addr add {address}/32 dev eth0"]
    lines += [f"neigh add {GATEWAY} lladdr {mac} dev eth0 nud permanent"]
    lines += [f"route add {GATEWAY} dev eth0 scope link", f"route add default via {GATEWAY} dev eth0"]
    netns.ip_batch(name, lines)
    netns.ip_batch("", [f"route add {address}/32 dev {veth}"])
    Path(f"/proc/sys/net/ipv4/conf/{veth}/forwarding").write_text("1")


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


@contextmanager
def _answering(server: str) -> Iterator[None]:
    listener = netns.socket_in(server, socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((SERVER, PORT))
    listener.listen(16)
    answers = HTTPServer((SERVER, PORT), _Server, bind_and_activate=False)
    answers.socket.close()
    answers.socket = listener
    thread = threading.Thread(target=answers.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        answers.shutdown()
        answers.server_close()


@contextmanager
def _node() -> Iterator[Path]:
    """`deflector run` for the pair alone; ended as by Ctrl-C, which leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="deflector-doctor-", dir="/run") as text:
        folder = Path(text)
        (folder / "manifests").mkdir()
        (folder / "manifests" / "pair.json").write_text(json.dumps(_manifests()))
        argv = [str(COMMAND), "run", "--manifests", str(folder / "manifests"), "--run-dir", str(folder / "run")]
        argv += ["--hubble-address", "127.0.0.1:0", "--concurrency", "1"]
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        try:
            time.sleep(0.5)
            if child.poll() is not None:
                raise EnvironmentProblem((folder / "log").read_text(errors="replace").strip().splitlines()[-1])
            yield folder
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _manifests() -> dict[str, Any]:
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"probe": name}},
            "status": {"phase": "Running", "podIP": address},
        }
        for name, address in (("client", CLIENT), ("server", SERVER))
    ]
    rule = {"ports": [{"port": str(PORT), "protocol": "TCP"}], "rules": {"http": [{"method": "GET", "path": ALLOWED}]}}
    spec = {
        "endpointSelector": {"matchLabels": {"probe": "server"}},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"probe": "client"}}], "toPorts": [rule]}],
    }
    policy = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "probe"}, "spec": spec}
    return {"apiVersion": "v1", "kind": "List", "items": [*pods, policy]}
