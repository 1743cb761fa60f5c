"""TCP connections that connection tracking knows nothing of: older than the programs, or with an evicted entry.

Whoever speaks first, the connection is judged in the direction in which it was opened.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bpf.constants import Dir, Reason, Reply
from policies.types import Protocol
from tests.bpf.frames import ipv4, send_frame
from tests.bpf.galaxy import Pod
from tests.bpf.stage import CLOSED, Stage

pytestmark = pytest.mark.privileged
QUICK = 0.3
ACK = 0x10


@dataclass
class Call:
    """Both ends of one connection, in the hands of the test."""

    client: socket.socket
    server: socket.socket
    listener: socket.socket

    def says(self, speaker: socket.socket, word: bytes) -> bool:
        """Whether the other end hears it soon."""
        hearer = self.server if speaker is self.client else self.client
        speaker.sendall(word)
        hearer.settimeout(QUICK)
        try:
            return word in hearer.recv(4096)
        except TimeoutError:
            return False

    def close(self) -> None:
        for one in (self.client, self.server, self.listener):
            one.close()


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    stage.reset()
    yield
    stage.reset()


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    made: list[Call] = []
    yield made
    for call in made:
        call.close()


def call(stage: Stage, calls: list[Call], port: int, source: int = 0, family: int = 4) -> Call:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    return dial(stage, calls, client, server, port, source=source, family=family)


def dial(
    stage: Stage, calls: list[Call], client: Pod, server: Pod, port: int, *, source: int = 0, family: int = 4
) -> Call:
    listener = stage.galaxy.listen(server.namespace, "::", port)
    caller = stage.galaxy.connect_from(
        client.namespace, (client.address(family), source), (server.address(family), port)
    )
    listener.settimeout(5)
    accepted, _ = listener.accept()
    calls.append(Call(caller, accepted, listener))
    return calls[-1]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("port", [80, 50051])
def test_a_server_that_speaks_first_does_not_open_its_door(
    stage: Stage, calls: list[Call], port: int, family: int
) -> None:
    """Its word taken for a connection of its own, everything that the client says would pass as an answer."""
    made = call(stage, calls, port, family=family)
    stage.enforce("server", ingress=CLOSED)
    stage.forget_connections()
    assert not made.says(made.server, b"welcome")
    drop = stage.wait_drop(Reason.POLICY_DENIED, source_port=port)
    assert (drop.direction, drop.endpoint) == (Dir.INGRESS, stage.galaxy.pods["server"].ifindex)
    assert not made.says(made.client, b"hello")


@pytest.mark.parametrize(("source", "port"), [(20000, 50052), (20001, 81)])
def test_a_client_on_a_low_port_does_not_change_who_is_the_server(
    stage: Stage, calls: list[Call], source: int, port: int
) -> None:
    made = call(stage, calls, port, source)
    stage.enforce("server", ingress=CLOSED)
    stage.forget_connections()
    assert not made.says(made.server, b"welcome")
    assert not made.says(made.client, b"hello")


def test_a_server_that_has_closed_its_listener_is_still_one(stage: Stage, calls: list[Call]) -> None:
    made = call(stage, calls, 82)
    made.listener.close()
    stage.enforce("server", ingress=CLOSED)
    stage.forget_connections()
    assert not made.says(made.server, b"draining")
    assert not made.says(made.client, b"hello")


def test_a_server_whose_client_is_allowed_goes_on_and_obeys_later(stage: Stage, calls: list[Call]) -> None:
    made = call(stage, calls, 83)
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 83, stage.allow("client")), egress=CLOSED)
    stage.forget_connections()
    assert made.says(made.server, b"welcome")
    assert made.says(made.client, b"hello")
    stage.enforce("server", ingress=CLOSED)
    assert not made.says(made.client, b"still there?")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("source", "port"), [(0, 84), (0, 50053), (20003, 85)])
def test_a_client_hears_its_server_though_nobody_may_come_in(
    stage: Stage, calls: list[Call], source: int, port: int, family: int
) -> None:
    """Its own connection, from a time before: the server speaks first, and it is an answer."""
    made = call(stage, calls, port, source, family)
    stage.enforce("client", ingress=CLOSED, egress=stage.on(Protocol.TCP, port, stage.allow("server")))
    stage.forget_connections()
    assert made.says(made.server, b"welcome")
    assert made.says(made.client, b"hello")
    stage.enforce("client", ingress=CLOSED, egress=CLOSED)
    assert not made.says(made.client, b"still there?")


def test_before_the_first_attachment(stage: Stage, calls: list[Call]) -> None:
    """Connections that are older than the node itself."""
    old = stage.galaxy.pod("veteran")
    to_me = dial(stage, calls, stage.galaxy.pods["client"], old, 86)
    denied = dial(stage, calls, stage.galaxy.pods["client"], old, 87)
    mine = dial(stage, calls, old, stage.galaxy.pods["server"], 88)
    stage.peers["veteran"] = 4712
    stage.enforce(
        "veteran",
        ingress=stage.on(Protocol.TCP, 86, stage.allow("client")),
        egress=stage.on(Protocol.TCP, 88, stage.allow("server")),
    )
    with stage.on_node():
        stage.datapath.attach(old.ifindex)
    assert to_me.says(to_me.server, b"welcome")
    assert mine.says(mine.server, b"welcome")
    assert not denied.says(denied.server, b"welcome")
    assert not denied.says(denied.client, b"hello")


def test_without_a_namespace_the_ports_tell(stage: Stage, calls: list[Call]) -> None:
    """Sockets of a guest kernel cannot be asked."""
    made = call(stage, calls, 89)
    for pod in stage.galaxy.pods.values():
        stage.datapath.maps.set_namespace(pod.ifindex, None)
    try:
        stage.enforce("server", ingress=CLOSED)
        stage.enforce("client", ingress=CLOSED)
        stage.forget_connections()
        assert not made.says(made.server, b"welcome")
        assert not made.says(made.client, b"hello")
        stage.enforce("server")
        stage.forget_connections()
        assert made.says(made.client, b"hello")
        assert made.says(made.server, b"welcome")
    finally:
        with stage.on_node():
            for pod in stage.galaxy.pods.values():
                stage.datapath.attach(pod.ifindex)


def test_a_segment_that_nobody_waits_for_is_no_answer(stage: Stage) -> None:
    """Else a closed pod could be scanned with bare ACKs from a well-known port."""
    stage.enforce("client", ingress=CLOSED)
    segment = struct.pack("!HHIIBBHHH", 80, 40000, 1, 1, 0x50, ACK, 1000, 0, 0)
    send_frame(stage, "server", 0x0800, ipv4(stage, 6, segment, sender="server", receiver="client"))
    drop = stage.wait_drop(Reason.POLICY_DENIED, destination_port=40000)
    assert (drop.direction, drop.reply) == (Dir.INGRESS, Reply.UNKNOWN)


def test_an_answer_from_a_service_is_judged_by_its_backend(stage: Stage, calls: list[Call]) -> None:
    server = stage.galaxy.pods["server"]
    stage.galaxy.cluster_ip("10.96.0.9", "fd96::9", 8000, server, 90)
    listener = stage.galaxy.listen(server.namespace, "::", 90)
    caller = stage.galaxy.connect(stage.galaxy.pods["client"].namespace, ("10.96.0.9", 8000))
    calls.append(Call(caller, listener.accept()[0], listener))
    stage.services = (stage.service("10.96.0.9", 8000, "server", 90),)
    stage.enforce("client", ingress=CLOSED, egress=stage.on(Protocol.TCP, 90, stage.allow("server")))
    stage.forget_connections()
    assert calls[-1].says(calls[-1].server, b"welcome")
    stage.services = (stage.service("10.96.0.9", 8000, None, 90),)
    stage.apply()
    stage.forget_connections()
    assert not calls[-1].says(calls[-1].server, b"welcome")
