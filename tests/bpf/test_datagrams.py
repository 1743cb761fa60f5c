"""The way of datagrams to the proxy and of answers back, on the real kernel."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

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
from policies.types import Protocol
from tests.bpf.datagrams import DatagramProxy, Marks, upstream
from tests.bpf.frames import ipv4, send_frame
from tests.bpf.galaxy import NODE4, NODE6, WORLD4, WORLD6, inside, run
from tests.bpf.stage import CLOSED, OPEN, Stage, udp_ports

pytestmark = pytest.mark.privileged
OUT, IN, DEAD, SHARED = 15101, 15102, 15103, 15104
QUICK = 0.3
BIG = 4000  # bytes: three fragments
SERVICE4, SERVICE6 = "10.96.0.10", "fd96::10"
EGRESS = Marks(MARK_EGRESS_UPSTREAM, MARK_EGRESS_ANSWER)
INGRESS = Marks(MARK_INGRESS_UPSTREAM, MARK_INGRESS_ANSWER)
PLACES = {
    ("server", 4): "",  # a pod has its own
    ("server", 6): "",
    ("world", 4): WORLD4,
    ("world", 6): WORLD6,
    ("host", 4): NODE4,
    ("host", 6): NODE6,
}
IP_RECVERR = 11


def tells(said: bytes, peer: str) -> bytes:
    """Who asks, and as many bytes as were asked with."""
    return f"{peer}|".encode().ljust(len(said), b".")


@pytest.fixture(scope="module", autouse=True)
def servers(stage: Stage) -> None:
    galaxy = stage.galaxy
    for pod in galaxy.pods.values():
        for family in (4, 6):
            galaxy.serve_udp(pod.namespace, pod.address(family), 53, tells)
    for address in (WORLD4, WORLD6):
        galaxy.serve_udp(galaxy.world, address, 53, tells)
    for address in (NODE4, NODE6):
        galaxy.serve_udp(galaxy.node, address, 53, tells)
    galaxy.cluster_ip(SERVICE4, SERVICE6, 53, galaxy.pods["server"], 53, "udp")
    with stage.on_node():
        stage.datapath.set_proxy_ports(udp_ports(OUT, IN, DEAD, SHARED))


@pytest.fixture(scope="module")
def out(stage: Stage, servers: None) -> DatagramProxy:
    return DatagramProxy(stage.galaxy, OUT, EGRESS)


@pytest.fixture(scope="module")
def into(stage: Stage, servers: None) -> DatagramProxy:
    return DatagramProxy(stage.galaxy, IN, INGRESS)


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    stage.reset()
    stage.forget_connections()
    yield
    stage.reset()


@contextmanager
def asker(stage: Stage, to: str, who: str = "client", port: int = 53) -> Iterator[socket.socket]:
    """Connected: an answer from any other address does not reach it."""
    namespace = getattr(stage.galaxy, who, None) or stage.galaxy.pods[who].namespace
    with inside(namespace):
        made = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    with made:
        made.settimeout(3.0)
        made.connect((to, port))
        yield made


def ask(stage: Stage, to: str, who: str = "client", said: bytes = b"?".ljust(100)) -> str:
    with asker(stage, to, who) as connection:
        connection.send(said)
        return connection.recv(65535).decode().rstrip(".")


def to_proxy(stage: Stage, *peers: str, port: int = OUT, closed: bool = True) -> None:
    rule = stage.on(Protocol.UDP, 53, stage.redirect("out", *peers))
    stage.enforce("client", CLOSED if closed else OPEN, rule, {"out": port})


def place(stage: Stage, where: str, family: int) -> str:
    return PLACES[where, family] or stage.galaxy.pods[where].address(family)


@pytest.mark.parametrize(("where", "family"), PLACES)
def test_what_a_pod_asks_goes_by_way_of_the_proxy(stage: Stage, out: DatagramProxy, where: str, family: int) -> None:
    """The server sees the pod's own address; the pod, closed for everybody else, hears from whom it has asked."""
    to_proxy(stage, "server", "world", "host")
    client = stage.galaxy.pods["client"].address(family)
    for _ in range(2):
        assert ask(stage, place(stage, where, family)) == f"proxy:{client}|"


@pytest.mark.parametrize(("where", "family"), PLACES)
def test_what_is_larger_than_the_link_comes_whole(stage: Stage, out: DatagramProxy, where: str, family: int) -> None:
    """Fragments from pod to proxy, from proxy to server, from server to proxy, and from proxy to pod."""
    to_proxy(stage, "server", "world", "host")
    client = stage.galaxy.pods["client"].address(family)
    out.sizes.clear()
    assert ask(stage, place(stage, where, family), said=bytes(BIG)) == f"proxy:{client}|"
    assert out.sizes == [BIG]


@pytest.mark.parametrize("family", [4, 6])
def test_a_service_is_asked_at_its_own_address(stage: Stage, out: DatagramProxy, family: int) -> None:
    """Judged by its backend; translated where the proxy sends; and the pod hears from the service's address."""
    stage.services = tuple(stage.service(address, 53, "server", 53, Protocol.UDP) for address in (SERVICE4, SERVICE6))
    to_proxy(stage, "server")
    client = stage.galaxy.pods["client"].address(family)
    for said in (bytes(100), bytes(BIG)):
        assert ask(stage, SERVICE4 if family == 4 else SERVICE6, said=said) == f"proxy:{client}|"


def test_the_servers_own_policy_is_about_the_pod_that_asks(stage: Stage, out: DatagramProxy) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    to_proxy(stage, "server")
    stage.enforce("server", ingress=stage.on(Protocol.UDP, 53, stage.allow("client")), egress=CLOSED)
    assert ask(stage, server.v4) == f"proxy:{client.v4}|"
    stage.enforce("server", ingress=CLOSED)
    with asker(stage, server.v4) as connection:
        connection.send(b"?")
        drop = stage.wait_drop(Reason.POLICY_DENIED, endpoint=server.ifindex)
    assert (drop.source_identity, drop.source) == (stage.peers["client"], client.v4)


def test_workers_share_what_is_asked(stage: Stage, servers: None) -> None:
    workers = [DatagramProxy(stage.galaxy, SHARED, EGRESS, shared=True) for _ in range(2)]
    to_proxy(stage, "server", port=SHARED)
    for _ in range(24):
        assert ask(stage, stage.galaxy.pods["server"].v4).startswith("proxy:")
        assert ask(stage, stage.galaxy.pods["server"].v6, said=bytes(BIG)).startswith("proxy:")
    assert all(len(worker.sizes) > 4 for worker in workers)
    for worker in workers:
        worker.close()


def test_an_error_of_the_way_reaches_the_proxy(stage: Stage, out: DatagramProxy) -> None:
    """Nobody listens at the server's port: the ICMP error is for the proxy's socket, though addressed to the pod."""
    rule = stage.on(Protocol.UDP, 54, stage.redirect("out", "server", "world", "host"))
    stage.enforce("client", CLOSED, rule, {"out": OUT})
    for where, family in PLACES:
        with asker(stage, place(stage, where, family), port=54) as connection:
            connection.send(b"?")
            assert connection.recv(100) == b"proxy:refused"


# --- what is seen ------------------------------------------------------------------------------------------------


def test_a_query_is_told_once_as_redirected(stage: Stage, out: DatagramProxy) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    to_proxy(stage, "server")
    with asker(stage, server.v4) as connection:
        port = connection.getsockname()[1]
        for _ in range(3):
            connection.send(bytes(20))
            connection.recv(100)
    told = [e for e in stage.events() if e.endpoint == client.ifindex]
    verdict = next(e for e in told if e.type == EventType.VERDICT)
    assert (verdict.verdict, verdict.match_type, verdict.direction) == (OUT, Match.L3_L4, Dir.EGRESS)
    traces = [(e.source_port, e.sub_type, e.reply, e.proxy_port) for e in told if e.type == EventType.TRACE]
    assert traces == [(port, Observed.TO_PROXY, Reply.NO, OUT), (53, Observed.TO_ENDPOINT, Reply.YES, 0)]
    assert len(told) == 3


# --- a proxy that is not there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [100, BIG])
def test_without_a_proxy_nothing_is_let_through(stage: Stage, family: int, size: int) -> None:
    to_proxy(stage, "server", "host", port=DEAD)
    for where in ("server", "host"):
        stage.forget()
        with asker(stage, place(stage, where, family)) as connection:
            connection.settimeout(QUICK)
            connection.send(bytes(size))
            stage.wait_drop(Reason.SOCKET_LOOKUP_FAILED, destination=place(stage, where, family))
            with pytest.raises(TimeoutError):
                connection.recv(100)


def test_whoever_takes_the_port_of_a_dead_proxy_hears_nothing(stage: Stage) -> None:
    server = stage.galaxy.pods["server"]
    squatter = stage.galaxy.udp(stage.galaxy.node, "0.0.0.0", DEAD)
    to_proxy(stage, "server", port=DEAD)
    with asker(stage, server.v4) as connection:
        connection.send(b"?")
        stage.wait_drop(Reason.SOCKET_LOOKUP_FAILED)
        connection.send(bytes(BIG))
        squatter.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            squatter.recv(100)
    squatter.close()


def test_a_slot_that_is_not_ready_lets_nothing_through(stage: Stage) -> None:
    rule = stage.on(Protocol.UDP, 53, stage.redirect("unready", "server"))
    stage.enforce("client", egress=rule)
    with asker(stage, stage.galaxy.pods["server"].v4) as connection:
        connection.send(b"?")
        stage.wait_drop(Reason.NOT_READY, protocol=Protocol.UDP)


def test_a_proxy_that_comes_back_goes_on(stage: Stage) -> None:
    to_proxy(stage, "server", port=DEAD)
    with asker(stage, stage.galaxy.pods["server"].v4) as connection:
        connection.send(b"?")
        stage.wait_drop(Reason.SOCKET_LOOKUP_FAILED)
        again = DatagramProxy(stage.galaxy, DEAD, EGRESS)
        connection.send(b"?")
        assert connection.recv(100).startswith(b"proxy:")
        again.close()


# --- changes of policy -------------------------------------------------------------------------------------------


def test_the_next_datagram_obeys_a_change(stage: Stage, out: DatagramProxy) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    with asker(stage, server.v4) as connection:

        def answer() -> bytes:
            connection.send(bytes(20))
            return connection.recv(100).rstrip(b".")

        direct, proxied = f"{client.v4}|".encode(), f"proxy:{client.v4}|".encode()
        assert answer() == direct
        to_proxy(stage, "server")
        assert answer() == proxied
        stage.enforce("client", CLOSED, stage.on(Protocol.UDP, 53, stage.allow("server")))
        assert answer() == direct
        to_proxy(stage, "server")
        assert answer() == proxied
        stage.enforce("client", CLOSED, CLOSED)
        connection.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            answer()


def test_answers_to_the_proxy_need_no_entry_and_no_policy(stage: Stage) -> None:
    """As after a change that ends the redirect while a query is open."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("client", CLOSED, CLOSED)
    for to in (server.v4, WORLD4, NODE4):
        with upstream(stage.galaxy, (client.v4, 0), (to, 53), MARK_EGRESS_UPSTREAM) as made:
            made.send(bytes(20))
            assert made.recv(100).startswith(client.v4.encode())


# --- ingress -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("who", ["client", "world", "node"])
@pytest.mark.parametrize("size", [100, BIG])
def test_what_a_pod_is_asked_goes_by_way_of_the_proxy(
    stage: Stage, into: DatagramProxy, who: str, family: int, size: int
) -> None:
    server = stage.galaxy.pods["server"]
    rule = stage.on(Protocol.UDP, 53, stage.redirect("in", "client", "world", "host"))
    stage.enforce("server", rule, CLOSED, {"in": IN})
    own = {"client": stage.galaxy.pods["client"].address(family)}.get(who) or PLACES["world", family]
    if who == "node":
        own = ""
    assert ask(stage, server.address(family), who, bytes(size)).startswith(f"proxy:{own}")


@pytest.mark.parametrize("size", [100, BIG])
def test_a_service_in_front_of_an_ingress_slot(stage: Stage, into: DatagramProxy, size: int) -> None:
    client = stage.galaxy.pods["client"]
    stage.enforce("server", stage.on(Protocol.UDP, 53, stage.redirect("in", "client")), CLOSED, {"in": IN})
    for family, address in ((4, SERVICE4), (6, SERVICE6)):
        assert ask(stage, address, said=bytes(size)) == f"proxy:{client.address(family)}|"


@pytest.mark.parametrize("family", [4, 6])
def test_one_proxy_behind_the_other(stage: Stage, out: DatagramProxy, into: DatagramProxy, family: int) -> None:
    client, server = (stage.galaxy.pods[name].address(family) for name in ("client", "server"))
    to_proxy(stage, "server")
    stage.enforce("server", stage.on(Protocol.UDP, 53, stage.redirect("in", "client")), CLOSED, {"in": IN})
    for size in (100, BIG):
        assert ask(stage, server, said=bytes(size)) == f"proxy:proxy:{client}|"


def test_answers_to_an_ingress_slot_need_no_entry(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", CLOSED, CLOSED)
    with upstream(stage.galaxy, (client.v4, 0), (server.v4, 53), MARK_INGRESS_UPSTREAM) as made:
        for _ in range(2):
            made.send(bytes(20))
            assert made.recv(100).startswith(client.v4.encode())
            stage.forget_connections()


# --- hostile -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [OUT, DEAD])
@pytest.mark.parametrize("who", ["client", "world", "node"])
def test_nobody_speaks_to_a_proxy_port(stage: Stage, out: DatagramProxy, who: str, port: int) -> None:
    out.sizes.clear()
    for address in (NODE4, NODE6):
        with asker(stage, address, who, port) as connection:
            connection.send(b"?")
            with pytest.raises(ConnectionRefusedError):
                connection.recv(100)
    assert out.sizes == []


def test_an_answer_that_the_proxy_has_not_asked_for_is_dropped(stage: Stage, out: DatagramProxy) -> None:
    """The server knows the port that the pod has asked from; the pod's ingress is open."""
    server = stage.galaxy.pods["server"]
    to_proxy(stage, "server", closed=False)
    with asker(stage, server.v4) as connection:
        connection.send(b"?")
        assert connection.recv(100).startswith(b"proxy:")
        payload = struct.pack("!HHHH", 53, connection.getsockname()[1], 12, 0) + b"lies"
        send_frame(stage, "server", 0x0800, ipv4(stage, 17, payload, sender="server", receiver="client"))
        stage.wait_drop(Reason.SOCKET_LOOKUP_FAILED, source=server.v4)
        connection.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            connection.recv(100)


def test_a_server_behind_the_proxy_answers_nobody_else(stage: Stage, into: DatagramProxy) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", stage.on(Protocol.UDP, 53, stage.redirect("in", "client")), CLOSED, {"in": IN})
    with asker(stage, server.v4) as connection:
        connection.send(b"?")
        assert connection.recv(100).startswith(b"proxy:")
        payload = struct.pack("!HHHH", 53, connection.getsockname()[1], 12, 0) + b"lies"
        send_frame(stage, "server", 0x0800, ipv4(stage, 17, payload, sender="server", receiver="client"))
        stage.wait_drop(Reason.SOCKET_LOOKUP_FAILED, source=server.v4, destination=client.v4)


def test_a_stranger_is_not_heard_by_the_proxy(stage: Stage) -> None:
    """It knows the port that the proxy asks from, and the pod is closed."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("client", CLOSED, CLOSED)
    liar = stage.galaxy.udp(stage.galaxy.world, WORLD4, 5353)
    with upstream(stage.galaxy, (client.v4, 0), (server.v4, 53), MARK_EGRESS_UPSTREAM) as made:
        liar.sendto(b"lies", made.getsockname())
        stage.wait_drop(Reason.POLICY_DENIED, source=WORLD4)
    with upstream(stage.galaxy, (client.v4, 0), (WORLD4, 53), MARK_EGRESS_UPSTREAM) as made:
        liar.sendto(b"lies", made.getsockname())
        made.send(bytes(20))
        assert made.recv(100).startswith(client.v4.encode())


def test_a_local_server_is_not_spoken_for_from_outside(stage: Stage) -> None:
    """A packet on the uplink has the address of a pod of this node, and both ports right."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.galaxy.on_node("sysctl", "-qw", "net.ipv4.conf.uplink.rp_filter=0")
    run("ip", "-n", stage.galaxy.world, "addr", "add", f"{server.v4}/32", "dev", "lo")
    liar = stage.galaxy.udp(stage.galaxy.world, server.v4, 53)
    try:
        with upstream(stage.galaxy, (client.v4, 0), (server.v4, 53), MARK_EGRESS_UPSTREAM) as made:
            liar.sendto(b"lies", made.getsockname())
            stage.wait_drop(Reason.INVALID_SOURCE, source=server.v4)
    finally:
        run("ip", "-n", stage.galaxy.world, "addr", "del", f"{server.v4}/32", "dev", "lo")


def test_a_question_from_the_server_does_not_hide_its_answer(stage: Stage) -> None:
    """An open pod: what the server sends to the port first makes an entry that would keep the answer from the proxy."""
    client = stage.galaxy.pods["client"]
    server = stage.galaxy.udp(stage.galaxy.world, WORLD4, 5300)
    with upstream(stage.galaxy, (client.v4, 0), (WORLD4, 5300), MARK_EGRESS_UPSTREAM) as made:
        port = made.getsockname()[1]
    server.sendto(b"early", (client.v4, port))
    stage.wait_event(lambda e: e.source_port == 5300, "the early datagram")
    with upstream(stage.galaxy, (client.v4, port), (WORLD4, 5300), MARK_EGRESS_UPSTREAM) as made:
        made.send(b"question")
        assert server.recvfrom(100) == (b"question", (client.v4, port))
        server.sendto(b"answer", (client.v4, port))
        assert made.recv(100) == b"answer"
    server.close()


def test_an_error_about_an_answer_finds_nobody_on_the_host(stage: Stage, out: DatagramProxy) -> None:
    """The pod has closed its socket; a resolver of the host that listens everywhere is not told."""
    server = stage.galaxy.pods["server"]
    stage.galaxy.serve_udp(server.namespace, server.v4, 55, tells)
    stage.enforce("client", CLOSED, stage.on(Protocol.UDP, 55, stage.redirect("out", "server")), {"out": OUT})
    resolver = stage.galaxy.udp(stage.galaxy.node, "0.0.0.0", 55)
    resolver.setsockopt(socket.SOL_IP, IP_RECVERR, 1)
    with asker(stage, server.v4, port=55) as connection:
        connection.send(b"?")
    stage.wait_event(lambda e: e.protocol == Protocol.ICMP and e.sub_type == Observed.TO_PROXY, "the error")
    resolver.settimeout(QUICK)
    with pytest.raises(TimeoutError):
        resolver.recv(100)
    resolver.close()
