"""--fqdn-enforcement on the real kernel and the real Envoy: requests under an allowed name, and all others."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conformance import netns
from conformance.blueprint import WORLD_V4, star_wars
from conformance.galaxy import WORLD, Galaxy, galaxy
from conformance.node import running
from tests.agent.galaxy import DROPPED

pytestmark = pytest.mark.privileged

CLIENT = "tiefighter"
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-name, namespace: default}
spec:
  endpointSelector: {matchLabels: {org: empire}}
  egress:
  - toFQDNs: [{matchName: www.x.io}, {matchPattern: "*.cdn.net"}]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: GET}]}}]
"""
Ask = Callable[..., str]


def asking(made: Galaxy) -> Ask:
    def ask(host: str, *options: str) -> str:
        argv = ["curl", "-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {host}", *options]
        whole = netns.inside(made.namespace(CLIENT), [*argv, f"http://{WORLD_V4}:80/"])
        return subprocess.run(whole, capture_output=True, text=True, check=False).stdout

    return ask


class Site(BaseHTTPRequestHandler):
    """Welcomes everybody, under whatever name."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def made() -> Iterator[Galaxy]:
    with galaxy(star_wars(), prefix="byname") as found:
        found.manifests.write("policy-by-name.yaml", POLICY)
        site = ThreadingHTTPServer((WORLD_V4, 80), Site, bind_and_activate=False)
        site.socket = netns.socket_in(found.namespace(WORLD), socket.AF_INET, socket.SOCK_STREAM)
        site.socket.bind((WORLD_V4, 80))
        site.server_activate()
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            site.shutdown()
            site.server_close()


async def test_by_name_a_request_goes_anywhere_under_an_allowed_name(made: Galaxy) -> None:
    async with running(made, ("--fqdn-enforcement", "name")):
        ask = asking(made)
        assert ask("www.x.io") == "200"
        assert ask("WWW.x.io:80") == "200"
        assert ask("a.cdn.net") == "200"
        assert ask("www.evil.org") == "403"
        assert ask("www.x.io.evil.org") == "403"
        assert ask("www.x.io", "-X", "POST") == "403"
        assert ask(WORLD_V4) == "403"


@pytest.mark.parametrize("how", ["ip", "both"])
async def test_else_only_to_addresses_that_were_learned(made: Galaxy, how: str) -> None:
    async with running(made, ("--fqdn-enforcement", how)):
        assert asking(made)("www.x.io") == DROPPED
