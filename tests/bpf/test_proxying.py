"""The way to the proxy on the real kernel: who gets there, who stays there, and what happens when it is not there."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from bpf.constants import (
    MARK_EGRESS_ANSWER,
    MARK_EGRESS_UPSTREAM,
    MARK_INGRESS_ANSWER,
    MARK_INGRESS_UPSTREAM,
    Dir,
    EventType,
    Match,
    Observed,
    Reason,
    Reply,
)
from policies.ir import DirectionPolicy
from policies.types import Protocol
from tests.bpf.frames import ipv4, send_frame
from tests.bpf.galaxy import NODE4, NODE6, WORLD4, inside, run
from tests.bpf.proxy import IP_TRANSPARENT, SO_MARK, StandInProxy
from tests.bpf.stage import CLOSED, OPEN, Stage, tcp_ports

pytestmark = pytest.mark.privileged
SYN = 0x02
QUICK = 0.3
LINK4 = "169.254.1.1"  # the host, as its pods have it for a gateway


def direct(connection: socket.socket) -> None:
    with connection:
        while connection.recv(4096):
            connection.sendall(b"direct\n")


@pytest.fixture(scope="module", autouse=True)
def ingress_proxy(stage: Stage) -> Iterator[StandInProxy]:
    for pod in stage.galaxy.pods.values():
        stage.galaxy.serve(pod.namespace, "::", 80, direct)
    stage.galaxy.serve(stage.galaxy.world, "::", 80, direct)
    made = StandInProxy(stage.galaxy, 15001, MARK_INGRESS_ANSWER)
    with stage.on_node():
        stage.datapath.set_proxy_ports(tcp_ports(15001, 15002, 15003, 15009))
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def egress_proxy(stage: Stage) -> Iterator[StandInProxy]:
    made = StandInProxy(stage.galaxy, 15002, MARK_EGRESS_ANSWER)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    stage.reset()
    yield
    stage.reset()


def asks(connection: socket.socket) -> list[str]:
    connection.sendall(b"?")
    return connection.recv(4096).decode().split()


def visit(stage: Stage, source: str, to: tuple[str, int]) -> list[str]:
    with stage.galaxy.connect(source, to, QUICK) as connection:
        return asks(connection)


def to_ingress(stage: Stage, slot: str = "in") -> None:
    stage.enforce("server", stage.on(Protocol.TCP, 80, stage.redirect(slot, "client", "host")), ports={"in": 15001})


@pytest.mark.parametrize("family", [4, 6])
def test_ingress_goes_to_the_proxy_with_both_addresses_intact(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    to_ingress(stage)
    with stage.galaxy.connect(client.namespace, (server.address(family), 80), QUICK) as connection:
        port = connection.getsockname()[1]
        assert asks(connection) == ["proxy", server.address(family), "80", client.address(family), str(port)]
    verdict = stage.wait_event(lambda e: e.type == EventType.VERDICT and e.source_port == port, "verdict")
    assert (verdict.verdict, verdict.match_type, verdict.direction) == (15001, Match.L3_L4, Dir.INGRESS)
    mine = (Observed.TO_PROXY, SYN, port)
    trace = stage.wait_event(lambda e: (e.sub_type, e.tcp_flags, e.source_port) == mine, "trace to the proxy")
    assert (trace.type, trace.proxy_port, trace.endpoint) == (EventType.TRACE, 15001, server.ifindex)
    answer = stage.wait_event(lambda e: e.reply == Reply.YES and e.destination_port == port, "trace of the answer")
    assert (answer.source, answer.endpoint) == (server.address(family), client.ifindex)


@pytest.mark.parametrize("family", [4, 6])
def test_egress_goes_to_the_proxy_and_back(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce(
        "client",
        ingress=CLOSED,
        egress=stage.on(Protocol.TCP, 80, stage.redirect("out", "server")),
        ports={"out": 15002},
    )
    seen = visit(stage, client.namespace, (server.address(family), 80))
    assert seen[:4] == ["proxy", server.address(family), "80", client.address(family)]


def test_egress_to_the_world_and_to_the_host_goes_to_the_proxy(stage: Stage) -> None:
    client = stage.galaxy.pods["client"]
    rule = stage.on(Protocol.TCP, 80, stage.redirect("out", "world", "host"))
    stage.enforce("client", egress=rule, ports={"out": 15002})
    for address in (WORLD4, NODE4):
        assert visit(stage, client.namespace, (address, 80))[:3] == ["proxy", address, "80"]


def test_the_host_goes_to_the_proxy_like_any_peer(stage: Stage) -> None:
    server = stage.galaxy.pods["server"]
    to_ingress(stage)
    for family in (4, 6):
        assert visit(stage, stage.galaxy.node, (server.address(family), 80))[0] == "proxy"


def test_a_service_is_translated_on_the_way_there_and_back(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.galaxy.cluster_ip("10.96.0.2", "fd96::2", 8000, server, 80)
    to_ingress(stage)
    for source in (client.namespace, stage.galaxy.node):
        for address, backend in (("10.96.0.2", server.v4), ("fd96::2", server.v6)):
            assert visit(stage, source, (address, 8000))[:3] == ["proxy", backend, "80"]


def test_a_slot_that_is_not_ready_lets_nobody_through(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    to_ingress(stage, "unready")
    with pytest.raises(TimeoutError):
        visit(stage, client.namespace, (server.v4, 80))
    stage.wait_drop(Reason.NOT_READY, tcp_flags=SYN)


def test_a_port_where_nobody_listens_lets_nobody_through(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", stage.on(Protocol.TCP, 80, stage.redirect("dead", "client")), ports={"dead": 15009})
    with pytest.raises(TimeoutError):
        visit(stage, client.namespace, (server.v4, 80))
    drop = stage.wait_drop(Reason.SOCKET_LOOKUP_FAILED)
    assert (drop.source_identity, drop.destination_identity) == (stage.peers["client"], stage.peers["server"])


def test_only_tcp_and_udp_can_be_redirected(stage: Stage) -> None:
    stage.enforce("client", egress=stage.on(Protocol.SCTP, 53, stage.redirect("out", "server")), ports={"out": 15001})
    send_frame(stage, "client", 0x0800, ipv4(stage, Protocol.SCTP, struct.pack("!HHII", 40000, 53, 1, 0)))
    stage.wait_drop(Reason.PROXY_PROTOCOL, protocol=Protocol.SCTP)


def test_a_direct_connection_that_must_now_be_proxied_is_reset(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    with stage.galaxy.connect(client.namespace, (server.v4, 80)) as connection:
        assert asks(connection) == ["direct"]
        to_ingress(stage)
        with pytest.raises(ConnectionResetError):
            asks(connection)
    assert visit(stage, client.namespace, (server.v4, 80))[0] == "proxy"


def test_a_direct_egress_connection_that_must_now_be_proxied_is_reset(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    with stage.galaxy.connect(client.namespace, (server.v4, 80)) as connection:
        assert asks(connection) == ["direct"]
        rule = stage.on(Protocol.TCP, 80, stage.redirect("out", "server"))
        stage.enforce("client", egress=rule, ports={"out": 15002})
        with pytest.raises(ConnectionResetError):
            asks(connection)


@pytest.mark.parametrize("after", ["allowed", "not enforced"])
def test_a_proxied_connection_stays_with_the_proxy_when_it_need_not(stage: Stage, after: str) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    to_ingress(stage)
    with stage.galaxy.connect(client.namespace, (server.v4, 80)) as connection:
        assert asks(connection)[0] == "proxy"
        if after == "allowed":
            stage.enforce("server", stage.on(Protocol.TCP, 80, stage.allow("client")))
        else:
            stage.enforce("server")
        assert asks(connection)[0] == "proxy"
        assert visit(stage, client.namespace, (server.v4, 80)) == ["direct"]
        assert asks(connection)[0] == "proxy"


def test_a_proxied_connection_ends_when_its_peer_is_denied(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    to_ingress(stage)
    with stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK) as connection:
        assert asks(connection)[0] == "proxy"
        stage.enforce("server", ingress=CLOSED)
        with pytest.raises(TimeoutError):
            asks(connection)


@pytest.mark.parametrize("verdict", ["denied", "allowed", "redirected"])
@pytest.mark.parametrize("side", ["server", "client"])
def test_policy_is_asked_before_the_proxys_socket(stage: Stage, side: str, verdict: str) -> None:
    """The entry of a proxied connection was evicted: that the proxy still has a socket for it does not allow it."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    slot, peer, port = ("in", "client", 15001) if side == "server" else ("out", "server", 15002)

    def enforce(policy: DirectionPolicy) -> None:
        ingress, egress = (policy, OPEN) if side == "server" else (OPEN, policy)
        stage.enforce(side, ingress, egress, {slot: port})

    enforce(stage.on(Protocol.TCP, 80, stage.redirect(slot, peer)))
    with stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK) as connection:
        assert asks(connection)[0] == "proxy"
        if verdict == "allowed":
            enforce(stage.on(Protocol.TCP, 80, stage.allow(peer)))
        elif verdict == "denied":
            enforce(CLOSED)
        for _ in range(2):
            stage.forget_connections()
            if verdict != "denied":
                assert asks(connection)[0] == "proxy"
                continue
            with pytest.raises(TimeoutError):
                asks(connection)
        assert verdict != "denied" or stage.wait_drop(Reason.POLICY_DENIED, destination_port=80)


def test_answers_to_the_proxy_reach_it_without_an_entry(stage: Stage) -> None:
    """Its upstream sockets have the clients' addresses; the pod that answers is closed in every direction."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=CLOSED, egress=CLOSED)
    with inside(stage.galaxy.node):
        upstream = socket.socket()
    with upstream:
        upstream.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        upstream.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK_INGRESS_UPSTREAM)
        upstream.bind((client.v4, 0))
        upstream.settimeout(5)
        upstream.connect((server.v4, 80))
        assert asks(upstream) == ["direct"]
        stage.forget_connections()
        assert asks(upstream) == ["direct"]


def test_a_proxied_connection_moves_with_its_slots_port(stage: Stage) -> None:
    """The socket is found by the connection's own tuple: another port in the policy does not break it."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    to_ingress(stage)
    with stage.galaxy.connect(client.namespace, (server.v4, 80)) as connection:
        assert asks(connection)[0] == "proxy"
        stage.enforce("server", stage.on(Protocol.TCP, 80, stage.redirect("in", "client")), ports={"in": 15009})
        assert asks(connection)[0] == "proxy"


@pytest.mark.parametrize("family", [4, 6])
def test_the_same_port_can_connect_again(stage: Stage, family: int) -> None:
    """The proxy closes first, so its socket waits in TIME_WAIT when the next SYN on the same tuple arrives. A listener
    of the host on the pod's port must not get it."""
    port = 8080 + family
    stage.galaxy.serve(stage.galaxy.node, "::", port, lambda c: c.close())
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    proxy = ClosingProxy(stage.galaxy, 15003, MARK_INGRESS_ANSWER)
    stage.enforce("server", stage.on(Protocol.TCP, port, stage.redirect("once", "client")), ports={"once": 15003})
    for _ in range(3):
        connection = stage.galaxy.connect_from(
            client.namespace, (client.address(family), 46000), (server.address(family), port)
        )
        with connection:
            assert connection.recv(10) == b"bye"
            assert connection.recv(10) == b""
    proxy.close()


class ClosingProxy(StandInProxy):
    """Closes every connection first."""

    def _answer(self, connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.close()


@pytest.mark.parametrize(
    ("source", "address"),
    [*((source, address) for source in ("client", "world", "node") for address in (NODE4, NODE6)), ("client", LINK4)],
)
def test_a_connection_straight_to_a_proxy_port_is_refused(stage: Stage, source: str, address: str) -> None:
    namespace = getattr(stage.galaxy, source, None) or stage.galaxy.pods[source].namespace
    with pytest.raises(ConnectionRefusedError):
        stage.galaxy.connect(namespace, (address, 15001), QUICK)


def test_a_listener_of_somebody_else_on_the_pods_port_is_not_taken_for_the_proxy(stage: Stage) -> None:
    """The socket lookup with the packet's own tuple also finds wildcard listeners of the host."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.galaxy.serve(stage.galaxy.node, "0.0.0.0", 80, lambda c: c.close())
    to_ingress(stage)
    assert visit(stage, client.namespace, (server.v4, 80))[0] == "proxy"
    stage.enforce("server")
    assert visit(stage, client.namespace, (server.v4, 80)) == ["direct"]


def test_an_icmp_error_about_a_connection_of_the_proxys_reaches_it(stage: Stage) -> None:
    """It is addressed to the pod whose address the upstream socket has; the pod is closed and knows nothing of it."""
    client = stage.galaxy.pods["client"]
    stage.enforce("client", ingress=CLOSED)
    run("ip", "-n", stage.galaxy.world, "route", "add", "unreachable", "198.51.100.0/24")
    run("ip", "netns", "exec", stage.galaxy.world, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    with inside(stage.galaxy.node):
        upstream = socket.socket()
    with upstream:
        upstream.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        upstream.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK_EGRESS_UPSTREAM)
        upstream.bind((client.v4, 0))
        upstream.settimeout(5)
        with pytest.raises(OSError, match="No route to host"):
            upstream.connect(("198.51.100.1", 80))


def test_a_fragmented_opening_is_not_for_the_proxy(stage: Stage) -> None:
    """Reassembled without a socket, it would be any host listener's."""
    stage.enforce("client", egress=stage.on(Protocol.TCP, 80, stage.redirect("out", "server")), ports={"out": 15002})
    first = ipv4(stage, 6, struct.pack("!HHIIBBHHH", 1234, 80, 1, 0, 0x60, SYN, 1000, 0, 0) + bytes(4), fragment=0x2000)
    send_frame(stage, "client", 0x0800, first)
    stage.wait_drop(Reason.FRAGMENTS_UNSUPPORTED)
