"""--fqdn-enforcement at 443 on the real kernel and the real Envoy: TLS under an allowed server name, and all else."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conformance import netns
from conformance.blueprint import WORLD_V4, star_wars
from conformance.galaxy import WORLD, Galaxy, galaxy
from conformance.node import DEFLECTOR, running
from tests.agent.fresh_names import proxy_is_there

pytestmark = pytest.mark.privileged

CLIENT = "tiefighter"
NAMES = ("www.x.io", "a.cdn.net", "www.evil.org")
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: tls-by-name, namespace: default}
spec:
  endpointSelector: {matchLabels: {org: empire}}
  egress:
  - toEntities: [world]
    toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*"}]}}]
  - toFQDNs: [{matchName: www.x.io}, {matchPattern: "*.cdn.net"}]
    toPorts: [{ports: [{port: "443", protocol: TCP}]}]
"""
# curl's exit codes
PASSED, NO_ANSWER, TLS_FAILED, EMPTY_REPLY, RESET = 0, 28, 35, 52, 56
PATIENCE = 10.0


class Pod:
    """The pod that asks. The certificate is checked against the server's own: nobody else can answer for it."""

    def __init__(self, made: Galaxy, certificate: Path) -> None:
        self._space = made.namespace(CLIENT)
        self._certificate = str(certificate)

    def tls(self, name: str) -> int:
        """curl's exit code of a request to the server under this name."""
        found = ("--resolve", f"{name}:443:{WORLD_V4}") if name != WORLD_V4 else ("--insecure",)
        return self._curl(f"https://{name}/", "--cacert", self._certificate, *found)

    def opened(self, name: str) -> ssl.SSLSocket:
        """A connection to the server under this name, on which nothing is asked yet."""
        raw = netns.socket_in(self._space, socket.AF_INET, socket.SOCK_STREAM)
        raw.settimeout(PATIENCE)
        raw.connect((WORLD_V4, 443))
        return ssl.create_default_context(cafile=self._certificate).wrap_socket(raw, server_hostname=name)

    def plain(self) -> int:
        """The same without TLS."""
        return self._curl(f"http://{WORLD_V4}:443/")

    def learn(self, name: str) -> bytes:
        """The answer of the world's nameserver."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        asking = netns.socket_in(self._space, socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(PATIENCE)
            asking.connect((WORLD_V4, 53))
            asking.send(struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1))
            return asking.recv(512)

    def _curl(self, url: str, *options: str) -> int:
        argv = ["curl", "-s", "-m", "2", "-o", "/dev/null", *options, url]
        return subprocess.run(netns.inside(self._space, argv), capture_output=True, check=False).returncode


class Site(BaseHTTPRequestHandler):
    """Welcomes everybody who has come by TLS, under whatever name."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Says nothing of those who do not speak TLS."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


def nameserver(asked: socket.socket, over: threading.Event) -> None:
    """Says of every name that it is here."""
    while not over.is_set():
        try:
            query, who = asked.recvfrom(512)
        except TimeoutError:
            continue
        end = query.index(b"\0", 12) + 5
        record = struct.pack(">3HIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton(WORLD_V4))
        asked.sendto(query[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0) + query[12:end] + record, who)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Galaxy, Pod]]:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    names = ",".join(f"DNS:{name}" for name in NAMES)
    kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    whose = ("-subj", "/CN=x", "-addext", f"subjectAltName={names}")
    netns.tool(["openssl", "req", *kind, *whose, "-keyout", str(key), "-out", str(certificate)])
    with galaxy(star_wars(), prefix="tlsname") as found:
        found.manifests.write("policy-tls-by-name.yaml", POLICY)
        space = found.namespace(WORLD)
        asked = netns.socket_in(space, socket.AF_INET, socket.SOCK_DGRAM)
        asked.bind((WORLD_V4, 53))
        asked.settimeout(0.1)
        over = threading.Event()
        thread = threading.Thread(target=nameserver, args=(asked, over), daemon=True)
        thread.start()
        site = Server((WORLD_V4, 443), Site, bind_and_activate=False)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        listening = netns.socket_in(space, socket.AF_INET, socket.SOCK_STREAM)
        site.socket = server.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
        site.socket.bind((WORLD_V4, 443))
        site.server_activate()
        serving = threading.Thread(target=site.serve_forever, daemon=True)
        serving.start()
        try:
            yield found, Pod(found, certificate)
        finally:
            site.shutdown()
            site.server_close()
            over.set()
            thread.join()
            asked.close()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def drops(made: Galaxy) -> list[dict[str, Any]]:
    """The flows of connections that Envoy has closed; those that name a server first."""
    server = f"unix://{made.run_dir}/hubble.sock"
    argv = [str(DEFLECTOR), "observe", "--server", server, "-o", "json", "--verdict", "DROPPED"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    flows = (json.loads(line)["flow"] for line in done.stdout.splitlines())
    found = [flow for flow in flows if "TLS server name" in flow["Summary"]]
    return sorted(found, key=lambda flow: str(flow["Summary"]))


async def test_by_name_tls_goes_anywhere_under_an_allowed_name(made: tuple[Galaxy, Pod]) -> None:
    town, pod = made
    async with running(town, ("--fqdn-enforcement", "name")):
        assert pod.tls("www.x.io") == PASSED
        assert pod.tls("a.cdn.net") == PASSED
        assert pod.tls("www.evil.org") == TLS_FAILED
        assert pod.tls(WORLD_V4) == TLS_FAILED  # an address is no server name
        assert pod.plain() in (EMPTY_REPLY, RESET)
        await asyncio.to_thread(until, lambda: len(drops(town)) >= 3)
        named, *nameless = drops(town)
        assert (named["destination_names"], named["Summary"]) == (["www.evil.org"], "TLS server name www.evil.org")
        assert (named["drop_reason_desc"], named["traffic_direction"]) == ("POLICY_DENIED", "EGRESS")
        assert (named["source"]["pod_name"], named["l4"]["TCP"]["destination_port"]) == (CLIENT, 443)
        assert named["policy_log"][0] == "none of 2 TLS rules allows it"
        assert nameless[0]["policy_log"][0].startswith("it names no server")
        assert [flow["Summary"] for flow in nameless] == ["no TLS server name"] * 2


async def test_an_edit_is_in_force_and_spares_connections_under_other_names(
    made: tuple[Galaxy, Pod],
) -> None:
    town, pod = made
    async with running(town, ("--fqdn-enforcement", "name")):
        assert pod.tls("www.evil.org") == TLS_FAILED
        stays = await asyncio.to_thread(pod.opened, "a.cdn.net")
        town.manifests.write("policy-tls-by-name.yaml", POLICY.replace("www.x.io", "www.evil.org"))
        await asyncio.to_thread(until, lambda: pod.tls("www.evil.org") == PASSED)
        assert pod.tls("www.x.io") == TLS_FAILED
        with stays:
            await asyncio.to_thread(stays.sendall, b"GET / HTTP/1.0\r\n\r\n")
            assert (await asyncio.to_thread(stays.recv, 512)).startswith(b"HTTP/1.0 200")


async def test_by_both_the_address_must_be_learned_as_well(made: tuple[Galaxy, Pod]) -> None:
    town, pod = made
    async with running(town, ("--fqdn-enforcement", "both")) as node:
        await proxy_is_there(node)
        assert pod.tls("www.x.io") == NO_ANSWER
        assert pod.learn("www.x.io")
        assert pod.tls("www.x.io") == PASSED
        assert pod.tls("www.evil.org") == TLS_FAILED
