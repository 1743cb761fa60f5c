"""Layers 3 and 4 on the real kernel: who may is let through, who may not is dropped and told."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Iterator

import pytest

from bpf.constants import Dir, EventType, Match, Observed, Reason, Reply, TraceReason
from policies.ir import ServiceAddress
from policies.types import Protocol
from tests.bpf.frames import internet_checksum, ipv4, ipv6, send_frame
from tests.bpf.galaxy import NODE4, WORLD4, WORLD6, echo, inside
from tests.bpf.stage import CLOSED, Stage

pytestmark = pytest.mark.privileged
SYN = 0x02
QUICK = 0.3  # seconds that a connection gets which must not come about: the first SYN is dropped within microseconds


@pytest.fixture(scope="module", autouse=True)
def servers(stage: Stage) -> None:
    for pod in stage.galaxy.pods.values():
        for port in (80, 81):
            stage.galaxy.serve(pod.namespace, "::", port, echo)
    stage.galaxy.serve(stage.galaxy.world, "::", 80, echo)
    stage.galaxy.serve(stage.galaxy.node, "::", 80, echo)


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    stage.reset()
    yield
    stage.reset()


def says(connection: socket.socket, word: bytes = b"hello") -> bool:
    connection.sendall(word)
    return connection.recv(100) == word


def reaches(stage: Stage, source: str, to: tuple[str, int]) -> bool:
    try:
        connection = stage.galaxy.connect(source, to, QUICK)
    except TimeoutError:
        return False
    with connection:
        return says(connection)


def tries(stage: Stage, source: str, to: tuple[str, int]) -> bool:
    try:
        return reaches(stage, source, to)
    except OSError:
        return False


@pytest.mark.parametrize("family", [4, 6])
def test_without_policy_everything_passes_and_is_traced(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    assert reaches(stage, client.namespace, (server.address(family), 80))
    sent = stage.wait_event(lambda e: e.sub_type == Observed.TO_STACK and e.tcp_flags == SYN, "trace of the SYN")
    assert (sent.type, sent.trace_reason, sent.reply) == (EventType.TRACE, TraceReason.NEW, Reply.NO)
    assert (sent.direction, sent.endpoint) == (Dir.EGRESS, client.ifindex)
    assert (sent.source, sent.destination, sent.destination_port) == (
        client.address(family),
        server.address(family),
        80,
    )
    got = stage.wait_event(lambda e: e.sub_type == Observed.TO_ENDPOINT and e.tcp_flags == SYN, "trace of arrival")
    assert (got.direction, got.endpoint) == (Dir.INGRESS, server.ifindex)
    assert (got.source_identity, got.destination_identity) == (stage.peers["client"], stage.peers["server"])
    to_me = (Reply.YES, sent.source_port, client.ifindex)
    answer = stage.wait_event(lambda e: (e.reply, e.destination_port, e.endpoint) == to_me, "trace of the answer")
    assert (answer.trace_reason, answer.direction, answer.source) == (
        TraceReason.REPLY,
        Dir.EGRESS,
        server.address(family),
    )


@pytest.mark.parametrize("family", [4, 6])
def test_default_deny_drops_and_says_so(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("host")))
    before = stage.dropped(Reason.POLICY_DENIED)
    assert not reaches(stage, client.namespace, (server.address(family), 80))
    drop = stage.wait_drop(Reason.POLICY_DENIED, tcp_flags=SYN, destination_port=80)
    assert (drop.source, drop.destination) == (client.address(family), server.address(family))
    assert (drop.source_identity, drop.destination_identity) == (stage.peers["client"], stage.peers["server"])
    assert (drop.direction, drop.reply, drop.endpoint) == (Dir.INGRESS, Reply.UNKNOWN, server.ifindex)
    verdict = stage.wait_event(lambda e: e.type == EventType.VERDICT, "policy verdict")
    assert (verdict.verdict, verdict.match_type, verdict.direction) == (-133, Match.NONE, Dir.INGRESS)
    assert stage.dropped(Reason.POLICY_DENIED) > before


def test_an_allowed_peer_gets_a_verdict_with_what_matched(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")))
    assert reaches(stage, client.namespace, (server.v4, 80))
    verdict = stage.wait_event(lambda e: e.type == EventType.VERDICT, "policy verdict")
    assert (verdict.verdict, verdict.match_type) == (0, Match.L3_L4)
    assert not reaches(stage, client.namespace, (server.v4, 81))
    stage.enforce("server", ingress=stage.on(Protocol.ANY, None, stage.allow()))
    stage.forget()
    assert reaches(stage, client.namespace, (server.v4, 81))
    assert stage.wait_event(lambda e: e.type == EventType.VERDICT).match_type == Match.ALL


def test_an_explicit_deny_has_its_own_reason(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.deny("client"), stage.allow()))
    assert not reaches(stage, client.namespace, (server.v4, 80))
    stage.wait_drop(Reason.POLICY_DENY, tcp_flags=SYN)
    assert reaches(stage, stage.galaxy.world, (server.v4, 80))


@pytest.mark.parametrize("family", [4, 6])
def test_egress_is_judged_at_the_client(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("client", egress=stage.on(Protocol.TCP, 80, stage.allow("server")))
    assert reaches(stage, client.namespace, (server.address(family), 80))
    assert not reaches(stage, client.namespace, (server.address(family), 81))
    world = WORLD4 if family == 4 else WORLD6
    assert not reaches(stage, client.namespace, (world, 80))
    drop = stage.wait_drop(Reason.POLICY_DENIED, destination=world)
    assert (drop.direction, drop.destination_identity) == (Dir.EGRESS, stage.peers["world"])


def test_answers_pass_where_both_directions_are_closed(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("client", ingress=CLOSED, egress=stage.on(Protocol.TCP, 80, stage.allow("server")))
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")), egress=CLOSED)
    assert reaches(stage, client.namespace, (server.v4, 80))
    assert not reaches(stage, server.namespace, (client.v4, 80))


def test_the_host_and_the_world_are_told_apart(stage: Stage) -> None:
    server = stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("host")))
    assert reaches(stage, stage.galaxy.node, (server.v4, 80))
    assert reaches(stage, stage.galaxy.node, (server.v6, 80))
    assert not reaches(stage, stage.galaxy.world, (server.v4, 80))
    assert stage.wait_drop(Reason.POLICY_DENIED, source=WORLD4).source_identity == stage.peers["world"]


def test_a_pod_reaches_the_host_as_its_egress_allows(stage: Stage) -> None:
    client = stage.galaxy.pods["client"]
    stage.enforce("client", egress=stage.on(Protocol.TCP, 80, stage.allow("host")))
    assert reaches(stage, client.namespace, (NODE4, 80))
    stage.enforce("client", egress=CLOSED)
    assert not reaches(stage, client.namespace, (NODE4, 80))


def test_a_live_connection_ends_when_its_policy_does(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")))
    with stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK) as connection:
        assert says(connection)
        stage.enforce("server", ingress=CLOSED)
        connection.sendall(b"again")
        with pytest.raises(TimeoutError):
            connection.recv(10)
        stage.wait_drop(Reason.POLICY_DENIED, source_port=connection.getsockname()[1])
        stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")))
        connection.settimeout(5)
        assert connection.recv(10) == b"again"


def test_a_live_connection_obeys_when_its_peer_becomes_somebody_else(stage: Stage) -> None:
    """Verdicts are remembered with the connection, but only until anything that they were made of changes."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    identity = stage.peers["client"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")))
    with stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK) as connection:
        assert says(connection)
        assert says(connection)
        stage.peers["client"] = 4713
        try:
            stage.apply()
            stage.forget()
            connection.sendall(b"it is me")
            drop = stage.wait_drop(Reason.POLICY_DENIED, endpoint=server.ifindex)
            assert drop.source_identity == 4713
        finally:
            stage.peers["client"] = identity
        stage.apply()
        connection.settimeout(5)
        assert connection.recv(10) == b"it is me"


def test_an_answering_entry_lets_no_new_connection_in(stage: Stage) -> None:
    """A SYN on the tuple of a live egress connection is judged as ingress, not as a reply."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("client", ingress=CLOSED)
    with stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK) as connection:
        assert says(connection)
        port = connection.getsockname()[1]
        syn = struct.pack("!HHIIBBHHH", 80, port, 1, 0, 0x50, SYN, 1000, 0, 0)
        send_frame(stage, "server", 0x0800, ipv4(stage, 6, syn, sender="server", receiver="client"))
        drop = stage.wait_drop(Reason.POLICY_DENIED, destination_port=port)
        assert (drop.direction, drop.endpoint) == (Dir.INGRESS, client.ifindex)
        assert says(connection)


@pytest.mark.parametrize("family", [4, 6])
def test_udp_is_enforced_and_answered(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    port = 5300 + family
    listening = stage.galaxy.udp(server.namespace, server.address(family), port)
    sending = stage.galaxy.udp(client.namespace, client.address(family))
    stage.enforce("client", ingress=CLOSED)
    stage.enforce("server", ingress=stage.on(Protocol.UDP, port, stage.allow("client")), egress=CLOSED)
    sending.sendto(b"question", (server.address(family), port))
    question, asker = listening.recvfrom(100)
    listening.sendto(b"answer", asker)
    assert (question, sending.recv(100)) == (b"question", b"answer")
    stage.enforce("server", ingress=stage.on(Protocol.UDP, 53, stage.allow("client")))
    sending.sendto(b"question", (server.address(family), port))
    stage.wait_drop(Reason.POLICY_DENIED, protocol=17, destination_port=port)


def ping(namespace: str, to: str) -> bool:
    command = ["ip", "netns", "exec", namespace, "ping", "-c1", "-W1", to]
    return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0


@pytest.mark.parametrize("family", [4, 6])
def test_ping_is_enforced_and_answered(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    protocol, request = (Protocol.ICMP, 8) if family == 4 else (Protocol.ICMPV6, 128)
    stage.enforce("client", ingress=CLOSED)
    stage.enforce("server", ingress=stage.on(protocol, None, stage.allow("client")), egress=CLOSED)
    assert ping(client.namespace, server.address(family))
    stage.enforce("server", ingress=stage.on(Protocol.TCP, None, stage.allow("client")))
    assert not ping(client.namespace, server.address(family))
    assert stage.wait_drop(Reason.POLICY_DENIED, protocol=protocol).icmp_type == request


@pytest.mark.parametrize("family", [4, 6])
def test_an_icmp_error_about_a_known_flow_passes(stage: Stage, family: int) -> None:
    """The server's kernel refuses a datagram; the error comes back although nothing may come in."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("client", ingress=CLOSED)
    stage.enforce("server", egress=CLOSED)
    sending = stage.galaxy.udp(client.namespace, client.address(family))
    sending.connect((server.address(family), 9999))
    sending.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        sending.recv(10)
    error = stage.wait_event(lambda e: e.trace_reason == TraceReason.RELATED and e.endpoint == client.ifindex)
    assert (error.icmp_type, error.icmp_code) == ((3, 3) if family == 4 else (1, 4))


def test_an_icmp_error_about_nothing_is_dropped(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("client", ingress=CLOSED)
    quoted = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(client.v4), socket.inet_aton(server.v4)
    )
    body = struct.pack("!BBHI", 3, 3, 0, 0) + quoted + struct.pack("!HHHH", 1234, 4321, 8, 0)
    with inside(server.namespace):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with raw:
        raw.sendto(body[:2] + internet_checksum(body) + body[4:], (client.v4, 0))
    assert stage.wait_drop(Reason.POLICY_DENIED, protocol=1).icmp_type == 3


def test_an_icmp_error_goes_to_the_sender_of_what_it_quotes(stage: Stage) -> None:
    """Else an error about an allowed flow would carry anything to anybody."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    listening = stage.galaxy.udp(server.namespace, server.v4, 5300)
    sending = stage.galaxy.udp(client.namespace, client.v4, 5301)
    stage.enforce("client", egress=stage.on(Protocol.UDP, 5300, stage.allow("server")))
    sending.sendto(b"known", (server.v4, 5300))
    assert listening.recv(10) == b"known"
    ends = socket.inet_aton(server.v4), socket.inet_aton(client.v4)
    quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, *ends)
    body = struct.pack("!BBHI", 3, 3, 0, 0) + quoted + struct.pack("!HHHH", 5300, 5301, 8, 0)
    with inside(client.namespace):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with raw:
        raw.sendto(body[:2] + internet_checksum(body) + body[4:], (server.v4, 0))
        stage.wait_event(lambda e: e.trace_reason == TraceReason.RELATED, "trace of the error to the server")
        raw.sendto(body[:2] + internet_checksum(body) + body[4:], (WORLD4, 0))
    drop = stage.wait_drop(Reason.POLICY_DENIED, destination=WORLD4)
    assert (drop.protocol, drop.icmp_type) == (1, 3)


@pytest.mark.parametrize("family", [4, 6])
def test_a_pod_cannot_send_from_an_address_that_is_not_its_own(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stolen, bits = ("10.0.0.99", 32) if family == 4 else ("fd00::99", 128)
    words = ["ip", "-n", client.namespace, "addr", "add", f"{stolen}/{bits}", "dev", "eth0"]
    subprocess.run([*words, "nodad"] if family == 6 else words, check=True)
    sending = stage.galaxy.udp(client.namespace, stolen)
    sending.sendto(b"it was them", (server.address(family), 80))
    drop = stage.wait_drop(Reason.INVALID_SOURCE)
    assert (drop.source, drop.endpoint, drop.source_identity) == (stolen, client.ifindex, stage.peers["client"])


def test_a_pod_whose_endpoint_is_unknown_is_closed(stage: Stage) -> None:
    newcomer = stage.galaxy.pod("newcomer")  # the agent has not heard of it yet
    with stage.on_node():
        stage.datapath.attach(newcomer.ifindex)
    assert not reaches(stage, newcomer.namespace, (stage.galaxy.pods["server"].v4, 80))
    stage.wait_drop(Reason.NOT_READY, endpoint=newcomer.ifindex)
    stage.peers["newcomer"] = 4711
    stage.apply()
    # its neighbour discovery was dropped too, and tries again once a second
    stage.wait(lambda: tries(stage, newcomer.namespace, (stage.galaxy.pods["server"].v4, 80)), "the newcomer")


def test_egress_to_a_service_is_judged_by_its_backend(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.galaxy.cluster_ip("10.96.0.1", "fd96::1", 8000, server, 80)
    stage.services = (ServiceAddress("10.96.0.1", 8000, Protocol.TCP, stage.peers["server"], 80),)
    stage.enforce("client", egress=stage.on(Protocol.TCP, 80, stage.allow("server")))
    assert reaches(stage, client.namespace, ("10.96.0.1", 8000))
    stage.enforce("client", egress=stage.on(Protocol.TCP, 8000, stage.allow("server")))
    assert not reaches(stage, client.namespace, ("10.96.0.1", 8000))
    stage.services = (ServiceAddress("10.96.0.1", 8000, Protocol.TCP, 0, 80),)
    stage.enforce("client", egress=stage.on(Protocol.ANY, None, stage.allow()))
    assert not reaches(stage, client.namespace, ("10.96.0.1", 8000))
    stage.wait_drop(Reason.SERVICE_BACKEND, destination="10.96.0.1")
    stage.enforce("client")
    assert reaches(stage, client.namespace, ("10.96.0.1", 8000))


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_follow_their_first(stage: Stage, family: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    port = 5400 + family
    listening = stage.galaxy.udp(server.namespace, server.address(family), port)
    sending = stage.galaxy.udp(client.namespace, client.address(family))
    stage.enforce("client", egress=stage.on(Protocol.UDP, port, stage.allow("server")))
    stage.enforce("server", ingress=stage.on(Protocol.UDP, port, stage.allow("client")))
    sending.sendto(b"x" * 4000, (server.address(family), port))
    assert len(listening.recv(5000)) == 4000


TCP_SYN = struct.pack("!HHIIBBHHH", 1234, 80, 1, 0, 0x50, 2, 1000, 0, 0)
MALFORMED = {
    "a TCP header that ends early": (0x0800, lambda s: ipv4(s, 6, TCP_SYN[:8], total=60), Reason.INVALID_PACKET),
    "a header length below the minimum": (0x0800, lambda s: b"\x44" + ipv4(s, 6, TCP_SYN)[1:], Reason.INVALID_PACKET),
    "a data offset below the minimum": (
        0x0800,
        lambda s: ipv4(s, 6, TCP_SYN[:12] + b"\x40" + TCP_SYN[13:]),
        Reason.INVALID_PACKET,
    ),
    "a total length beyond the frame": (0x0800, lambda s: ipv4(s, 17, b"", total=1400), Reason.INVALID_PACKET),
    "a fragment inside the TCP header": (0x0800, lambda s: ipv4(s, 6, TCP_SYN, fragment=1), Reason.INVALID_PACKET),
    "a fragment whose first never came": (
        0x0800,
        lambda s: ipv4(s, 17, bytes(24), fragment=100),
        Reason.FRAGMENT_NOT_FOUND,
    ),
    "a protocol that is not IP": (0x88CC, lambda s: b"", Reason.UNSUPPORTED_L3),
    "IPv6 in name only": (0x86DD, lambda s: b"\x45" * 40, Reason.INVALID_PACKET),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_cannot_be_read_is_dropped(stage: Stage, what: str) -> None:
    """By the count: the tuple of what has none is always the same one, so its drops are not all told."""
    kind, body, reason = MALFORMED[what]
    before = stage.dropped(reason)
    send_frame(stage, "client", kind, body(stage))
    stage.wait(lambda: stage.dropped(reason) > before, f"a drop for {reason!r}")


def test_ip_options_do_not_hide_the_ports(stage: Stage) -> None:
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 443, stage.allow()))
    send_frame(stage, "client", 0x0800, ipv4(stage, 6, TCP_SYN, options=b"\x01" * 8))
    send_frame(stage, "client", 0x0800, ipv4(stage, 6, TCP_SYN, options=b""))
    stage.enforce("client", egress=stage.on(Protocol.TCP, 443, stage.allow()))
    stage.forget()
    send_frame(stage, "client", 0x0800, ipv4(stage, 6, TCP_SYN[:2] + b"\0\x51" + TCP_SYN[4:], options=b"\x01" * 8))
    assert stage.wait_drop(Reason.POLICY_DENIED, direction=Dir.EGRESS).destination_port == 81


def test_extension_headers_do_not_hide_the_ports(stage: Stage) -> None:
    stage.enforce("client", egress=stage.on(Protocol.TCP, 443, stage.allow()))
    options = bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes([6, 0, 1, 4, 0, 0, 0, 0])  # two destination options headers
    send_frame(stage, "client", 0x86DD, ipv6(stage, 60, options + TCP_SYN))
    drop = stage.wait_drop(Reason.POLICY_DENIED, family=6)
    assert (drop.protocol, drop.destination_port) == (6, 80)
    endless = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 12
    send_frame(stage, "client", 0x86DD, ipv6(stage, 60, endless + TCP_SYN))
    stage.wait_drop(Reason.INVALID_EXTENSION)


def test_a_pod_cannot_pretend_to_be_a_router(stage: Stage) -> None:
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    packet = bytearray(ipv6(stage, 58, advertisement))
    packet[7] = 255  # hop limit of neighbour discovery
    send_frame(stage, "client", 0x86DD, bytes(packet))
    stage.wait_drop(Reason.FORBIDDEN_ICMP6, endpoint=stage.galaxy.pods["client"].ifindex)


@pytest.mark.parametrize("kind", [133, 135, 136])
def test_neighbour_discovery_does_not_leave_the_link(stage: Stage, kind: int) -> None:
    """The host forwards it like any packet; hop limit 255 must not carry it past the policy, or the source check."""
    stage.enforce("client", egress=CLOSED)
    target = f"2001:db8::{kind}"  # one each: a drop of the same tuple is not told again at once
    address = socket.inet_pton(socket.AF_INET6, target)
    packet = bytearray(ipv6(stage, 58, struct.pack("!BBHI", kind, 0, 0, 0) + address))
    packet[7] = 255
    packet[24:40] = address
    send_frame(stage, "client", 0x86DD, bytes(packet))
    assert stage.wait_drop(Reason.POLICY_DENIED, destination=target).icmp_type == kind
    packet[8:24] = socket.inet_pton(socket.AF_INET6, "fd00::99")
    send_frame(stage, "client", 0x86DD, bytes(packet))
    assert stage.wait_drop(Reason.INVALID_SOURCE, destination=target).icmp_type == kind


def test_a_flood_of_drops_is_counted_not_told(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=CLOSED)
    before, dropped = sum(stage.datapath.counters().values()), stage.dropped(Reason.POLICY_DENIED)
    sending = stage.galaxy.udp(client.namespace, client.v4)
    for _ in range(500):
        sending.sendto(b"x", (server.v4, 7))
    stage.wait_drop(Reason.POLICY_DENIED, destination_port=7)
    told = [e for e in stage.events() if e.type == EventType.DROP and e.destination_port == 7]
    assert stage.dropped(Reason.POLICY_DENIED) - dropped == 500
    assert len(told) + sum(stage.datapath.counters().values()) - before == 500
    assert len(told) < 20


def test_many_connections_at_once_are_each_told(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")))

    def visit() -> None:
        for _ in range(25):
            assert reaches(stage, client.namespace, (server.v4, 80))

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    stage.wait_event(lambda e: sum(s.type == EventType.VERDICT for s in stage.seen) >= 100, "100 verdicts")
    assert sum(e.type == EventType.VERDICT for e in stage.seen) == 100
