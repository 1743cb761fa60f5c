"""The whole route with the real Envoy, static and hand-written: requests are judged, nobody's address changes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from policies.ir import ServiceAddress
from policies.types import Protocol
from tests.bpf.envoy import ENVOY, StaticSlot, static_config
from tests.bpf.stage import Stage, tcp_ports

pytestmark = pytest.mark.privileged
SERVICE4, SERVICE6 = "10.96.0.10", "fd96::10"


def web(connection: socket.socket) -> None:
    """Tells who asks, and counts the requests of this connection."""
    with connection, connection.makefile("rb") as lines:
        while line := lines.readline():
            while lines.readline().strip():
                pass
            who = connection.getpeername()[0].removeprefix("::ffff:")
            body = f"{who} {line.split()[1].decode()}".encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


@pytest.fixture(scope="module", autouse=True)
def envoy(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    place = tmp_path_factory.mktemp("envoy")
    server = stage.galaxy.pods["server"]
    stage.galaxy.serve(server.namespace, "::", 8080, web)
    stage.galaxy.serve(stage.galaxy.world, "::", 8080, web)
    stage.galaxy.cluster_ip(SERVICE4, SERVICE6, 80, server, 8080)
    identity = stage.peers["server"]
    stage.services = tuple(ServiceAddress(a, 80, Protocol.TCP, identity, 8080) for a in (SERVICE4, SERVICE6))
    slots = [StaticSlot("in", 15001, "ingress"), StaticSlot("out", 15002, "egress")]
    config = place / "envoy.yaml"
    config.write_text(static_config(slots, place / "admin.sock"))
    log = place / "envoy.log"
    words = [str(ENVOY), "-c", str(config), "--concurrency", "2", "--use-dynamic-base-id", "-l", "warning"]
    process = stage.galaxy.spawn(*words, log=log)
    stage.ports = {"in": 15001, "out": 15002}

    def listening() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            stage.galaxy.connect(stage.galaxy.node, ("127.0.0.1", 15002), 1).close()
        except OSError:
            return False
        return True

    stage.wait(listening, "Envoy's listener")
    with stage.on_node():
        stage.datapath.set_proxy_ports(tcp_ports(*stage.ports.values()))
    yield
    process.kill()
    process.wait(10)


@dataclass
class Answer:
    code: int
    body: str


class Browser:
    """One keep-alive connection."""

    def __init__(self, stage: Stage, source: str, to: tuple[str, int]) -> None:
        self.connection = stage.galaxy.connect(source, to)
        self.lines = self.connection.makefile("rb")

    def get(self, path: str) -> Answer:
        self.connection.sendall(f"GET {path} HTTP/1.1\r\nhost: deathstar\r\n\r\n".encode())
        status = self.lines.readline().decode()
        assert status, "closed"
        size = 0
        while line := self.lines.readline().strip():
            if found := re.match(rb"content-length: (\d+)", line):
                size = int(found[1])
        return Answer(int(status.split()[1]), self.lines.read(size).decode())

    def close(self) -> None:
        self.lines.close()
        self.connection.close()


def judged(stage: Stage, source: str, to: tuple[str, int], client: str) -> None:
    """The allowed path arrives with the client's own address, on the connection where the other was refused."""
    browser = Browser(stage, source, to)
    try:
        assert browser.get("/denied").code == 403
        assert browser.get("/allowed") == Answer(200, f"{client} /allowed")
        assert browser.get("/denied").code == 403
    finally:
        browser.close()


def enforce(stage: Stage, ingress: bool, egress: bool) -> None:
    stage.rules.clear()
    if ingress:
        rule = stage.on(Protocol.TCP, 8080, stage.redirect("in", "client", "host"))
        stage.rules["server"] = (rule, stage.on(Protocol.UDP, 53, stage.allow()))
    if egress:
        stage.rules["client"] = (
            stage.on(Protocol.UDP, 53, stage.allow()),
            stage.on(Protocol.TCP, 8080, stage.redirect("out", "server", "world")),
        )
    stage.apply()


CHAINS = {"ingress": (True, False), "egress": (False, True), "egress, then ingress": (True, True)}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("through", ["pod", "service"])
@pytest.mark.parametrize("family", [4, 6])
def test_requests_are_judged(stage: Stage, chain: str, through: str, family: int) -> None:
    """All other traffic of both pods is closed, so answers and upstream connections find their way as such."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    enforce(stage, *CHAINS[chain])
    service = (SERVICE4 if family == 4 else SERVICE6, 80)
    to = service if through == "service" else (server.address(family), 8080)
    judged(stage, client.namespace, to, client.address(family))


@pytest.mark.parametrize("family", [4, 6])
def test_the_host_is_judged_too(stage: Stage, family: int) -> None:
    server = stage.galaxy.pods["server"]
    enforce(stage, ingress=True, egress=False)
    browser = Browser(stage, stage.galaxy.node, (server.address(family), 8080))
    assert browser.get("/denied").code == 403
    assert browser.get("/allowed").code == 200
    browser.close()


def test_egress_to_the_world_comes_back(stage: Stage) -> None:
    client = stage.galaxy.pods["client"]
    enforce(stage, ingress=False, egress=True)
    judged(stage, client.namespace, ("203.0.113.2", 8080), client.v4)


def test_a_stranger_does_not_even_reach_the_proxy(stage: Stage) -> None:
    enforce(stage, ingress=True, egress=False)
    with pytest.raises(TimeoutError):
        stage.galaxy.connect(stage.galaxy.world, (stage.galaxy.pods["server"].v4, 8080), 0.3)


def test_a_large_body_arrives_whole(stage: Stage, tmp_path: Path) -> None:
    """Segmentation offload, both ways of both proxies."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    enforce(stage, ingress=True, egress=True)
    size = 4_000_000

    def upload(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while lines.readline().strip():
                pass
            got = len(lines.read(size))
            body = b"y" * size
            head = f"HTTP/1.1 200 OK\r\nx-got: {got}\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)

    stage.galaxy.serve(server.namespace, "::", 8081, upload)
    stage.rules["server"] = (stage.on(Protocol.TCP, 8081, stage.redirect("in", "client")), stage.rules["server"][1])
    stage.rules["client"] = (
        stage.rules["client"][0],
        stage.on(Protocol.TCP, 8081, stage.redirect("out", "server")),
    )
    stage.apply()
    with stage.galaxy.connect(client.namespace, (server.v4, 8081), 20) as connection:
        connection.sendall(f"POST /allowed HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode())
        connection.sendall(b"x" * size)
        with connection.makefile("rb") as lines:
            head = b""
            while (line := lines.readline()).strip():
                head += line
            assert f"x-got: {size}".encode() in head
            assert len(lines.read(size)) == size
