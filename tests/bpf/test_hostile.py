"""A pod that means harm: root in its own network namespace, any packet it can put on its wire."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf.constants import (
    MARK_EGRESS_ANSWER,
    MARK_EGRESS_UPSTREAM,
    MARK_INGRESS_ANSWER,
    MARK_INGRESS_UPSTREAM,
    MARK_TO_PROXY,
    EventType,
    Reason,
    TraceReason,
)
from bpf.datapath import Datapath, Options, cleanup
from policies.types import IDENTITY_REMOTE_NODE, Protocol
from tests.bpf.frames import internet_checksum, ipv4, ipv6, send_frame
from tests.bpf.galaxy import NODE4, NODE6, WORLD4, Galaxy, echo, inside, run
from tests.bpf.proxy import SO_MARK
from tests.bpf.stage import CLOSED, OPEN, Stage, tcp_ports

pytestmark = pytest.mark.privileged
QUICK = 0.3
IP, IP6, ARP, VLAN, QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
HOST4, HOST6 = "169.254.1.1", "fe80::1"


@pytest.fixture(scope="module", autouse=True)
def servers(stage: Stage) -> None:
    for pod in stage.galaxy.pods.values():
        stage.galaxy.serve(pod.namespace, "::", 80, echo)


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    stage.reset()
    stage.forget_connections()
    yield
    stage.reset()


def says(connection: socket.socket, word: bytes = b"hello") -> bool:
    connection.sendall(word)
    return connection.recv(100) == word


def tcp(flags: int, destination: int = 80, source: int = 40000, payload: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, 1, 1, 0x50, flags, 1000, 0, 0) + payload


def readdressed(packet: bytes, source: str = "", destination: str = "") -> bytes:
    """With other addresses, and the header's checksum made right."""
    if packet[0] >> 4 == 6:
        parts = [socket.inet_pton(socket.AF_INET6, a) if a else b"" for a in (source, destination)]
        return packet[:8] + (parts[0] or packet[8:24]) + (parts[1] or packet[24:40]) + packet[40:]
    parts = [socket.inet_aton(a) if a else b"" for a in (source, destination)]
    head = packet[:10] + b"\0\0" + (parts[0] or packet[12:16]) + (parts[1] or packet[16:20])
    length = (packet[0] & 15) * 4
    return head[:10] + internet_checksum(head + packet[20:length]) + head[12:] + packet[20:]


def counted(stage: Stage, reason: int, kind: int, body: bytes) -> None:
    """This frame of the client's is dropped for this reason."""
    before = stage.dropped(reason)
    send_frame(stage, "client", kind, body)
    stage.wait(lambda: stage.dropped(reason) > before, f"a drop for {reason!r}")


# --- fragments ---------------------------------------------------------------------------------------------------


def fragment6(offset: int, more: bool, payload: bytes, trailing: bytes = b"") -> bytes:
    return struct.pack("!BBHI", 6, 0, offset | more, 4711) + payload + trailing


def test_what_follows_a_packet_in_its_frame_is_not_its_header(stage: Stage) -> None:
    """The first fragment has the ports, and an ACK that is only padding; the second brings a SYN."""
    segment, honest = tcp(SYN), tcp(ACK)
    first = ipv4(stage, 6, segment[:8], fragment=0x2000)
    counted(stage, Reason.INVALID_PACKET, IP, first + honest[8:] + bytes(20))
    v6 = ipv6(stage, 44, fragment6(0, True, segment[:8]))
    counted(stage, Reason.INVALID_PACKET, IP6, v6 + honest[8:] + bytes(20))


def test_no_fragment_begins_inside_a_tcp_header(stage: Stage) -> None:
    whole, rest = tcp(ACK), tcp(SYN)[8:]
    stage.enforce("client", egress=stage.on(Protocol.TCP, 80, stage.allow()))
    send_frame(stage, "client", IP, ipv4(stage, 6, whole + bytes(4), fragment=0x2000))
    counted(stage, Reason.INVALID_PACKET, IP, ipv4(stage, 6, rest, fragment=1))
    send_frame(stage, "client", IP6, ipv6(stage, 44, fragment6(0, True, whole + bytes(4))))
    counted(stage, Reason.INVALID_PACKET, IP6, ipv6(stage, 44, fragment6(8, False, rest)))


def test_a_second_first_fragment_cannot_lend_its_ports(stage: Stage) -> None:
    """What follows is judged by the latest first one; the one that was let through is never completed by another."""
    stage.enforce("client", egress=stage.on(Protocol.UDP, 53, stage.allow()))
    allowed, denied = (struct.pack("!HHHH", 40000, port, 24, 0) for port in (53, 54))
    send_frame(stage, "client", IP, ipv4(stage, 17, allowed, fragment=0x2000))
    counted(stage, Reason.POLICY_DENIED, IP, ipv4(stage, 17, denied, fragment=0x2000))
    counted(stage, Reason.POLICY_DENIED, IP, ipv4(stage, 17, bytes(16), fragment=1))


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [131, 137])
@pytest.mark.parametrize("padding", [b"", b"\x01", b"\x01\x01\x01"])
def test_a_source_route_goes_nowhere(stage: Stage, option: int, padding: bytes) -> None:
    """To an address that policy allows, by way of the host's own routing to another one."""
    route = padding + bytes([option, 7, 4]) + socket.inet_aton(WORLD4)
    options = route + b"\0" * (-len(route) % 4)
    counted(stage, Reason.INVALID_PACKET, IP, ipv4(stage, 6, tcp(SYN), options=options))


def test_a_router_alert_is_no_source_route(stage: Stage) -> None:
    stage.enforce("client", egress=CLOSED)
    counted(stage, Reason.POLICY_DENIED, IP, ipv4(stage, 6, tcp(SYN, 4001), options=b"\x94\x04\0\0"))


@pytest.mark.parametrize("kind", [0, 2, 3, 4])
def test_a_routing_header_with_a_way_to_go_is_dropped(stage: Stage, kind: int) -> None:
    stage.enforce("client", egress=CLOSED)
    hop = socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    counted(stage, Reason.INVALID_EXTENSION, IP6, ipv6(stage, 43, bytes([6, 2, kind, 1, 0, 0, 0, 0]) + hop + tcp(SYN)))
    arrived = ipv6(stage, 43, bytes([6, 2, kind, 0, 0, 0, 0, 0]) + hop + tcp(SYN, 4100 + kind))
    counted(stage, Reason.POLICY_DENIED, IP6, arrived)


@pytest.mark.parametrize("kind", [VLAN, QINQ])
def test_a_tag_does_not_hide_a_packet(stage: Stage, kind: int) -> None:
    packet = struct.pack("!HH", 7, IP) + ipv4(stage, 6, tcp(SYN))
    counted(stage, Reason.UNSUPPORTED_L3, kind, packet)
    counted(stage, Reason.UNSUPPORTED_L3, kind, struct.pack("!HH", 7, VLAN) + packet)


FLAGS = {"nothing": 0, "ack": ACK, "fin": FIN, "xmas": FIN | PSH | URG, "syn+ack": SYN | ACK, "rst": RST}


@pytest.mark.parametrize("flags", FLAGS)
def test_a_closed_pod_cannot_be_scanned(stage: Stage, flags: str) -> None:
    stage.enforce("server", ingress=CLOSED)
    counted(stage, Reason.POLICY_DENIED, IP, ipv4(stage, 6, tcp(FLAGS[flags], 4200)))


@pytest.mark.parametrize("flags", [SYN | FIN, SYN | RST])
def test_a_segment_that_opens_and_ends_is_none(stage: Stage, flags: int) -> None:
    counted(stage, Reason.INVALID_PACKET, IP, ipv4(stage, 6, tcp(flags)))


def test_what_a_syn_carries_is_denied_with_it(stage: Stage) -> None:
    """TCP Fast Open: a request before the handshake."""
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 443, stage.allow("client")))
    counted(stage, Reason.POLICY_DENIED, IP, ipv4(stage, 6, tcp(SYN, payload=b"GET / HTTP/1.1\r\n\r\n")))


@pytest.mark.parametrize(("protocol", "number"), [(Protocol.TCP, 6), (Protocol.UDP, 17), (Protocol.SCTP, 132)])
def test_port_zero_is_a_port_like_any(stage: Stage, protocol: Protocol, number: int) -> None:
    stage.enforce("server", ingress=stage.on(protocol, 80, stage.allow("client")))
    counted(stage, Reason.POLICY_DENIED, IP, ipv4(stage, number, tcp(SYN, 0)))
    counted(stage, Reason.POLICY_DENIED, IP, ipv4(stage, number, tcp(SYN, 0, source=0)))


@pytest.mark.parametrize("number", [33, 136])
def test_relatives_of_udp_are_not_udp(stage: Stage, number: int) -> None:
    stage.enforce("server", ingress=stage.on(Protocol.UDP, 80, stage.allow("client")))
    counted(stage, Reason.POLICY_DENIED, IP, ipv4(stage, number, tcp(SYN)))


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["10.0.0.3", HOST4, NODE4, "127.0.0.1", "0.0.0.0", "255.255.255.255", "fd00::3", "::ffff:10.0.0.3"]
)
def test_nobody_speaks_for_another(stage: Stage, source: str) -> None:
    made = ipv6(stage, 6, tcp(SYN)) if ":" in source else ipv4(stage, 6, tcp(SYN))
    counted(stage, Reason.INVALID_SOURCE, IP6 if ":" in source else IP, readdressed(made, source))


@pytest.mark.parametrize("family", [4, 6])
def test_nobody_outside_speaks_for_a_pod_of_this_node(stage: Stage, family: int) -> None:
    """Reverse path filters may be loose: a datagram with the client's address comes in by the uplink."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.UDP, 80, stage.allow("client")))
    strictness = stage.galaxy.on_node("sysctl", "-n", "net.ipv4.conf.uplink.rp_filter").strip()
    stage.galaxy.on_node("sysctl", "-qw", "net.ipv4.conf.uplink.rp_filter=0")
    bits = 32 if family == 4 else 128
    address = f"{client.address(family)}/{bits}"
    run("ip", "-n", stage.galaxy.world, "addr", "add", address, "dev", "lo", *(["nodad"] if family == 6 else []))
    try:
        forging = stage.galaxy.udp(stage.galaxy.world, client.address(family))
        forging.sendto(b"it is me", (server.address(family), 80))
        drop = stage.wait_drop(Reason.INVALID_SOURCE, endpoint=server.ifindex)
        assert (drop.source, drop.destination_port) == (client.address(family), 80)
        honest = stage.galaxy.udp(client.namespace, client.address(family))
        honest.sendto(b"no, me", (server.address(family), 80))
        stage.wait_event(
            lambda e: (e.endpoint, e.type, e.verdict) == (server.ifindex, EventType.VERDICT, 0), "the client's verdict"
        )
    finally:
        run("ip", "-n", stage.galaxy.world, "addr", "del", address, "dev", "lo")
        stage.galaxy.on_node("sysctl", "-qw", f"net.ipv4.conf.uplink.rp_filter={strictness}")


@pytest.mark.parametrize("source", ["fe80::99", HOST6, NODE6, "::1", "::"])
def test_a_link_local_source_stays_on_the_link(stage: Stage, source: str) -> None:
    counted(stage, Reason.INVALID_SOURCE, IP6, readdressed(ipv6(stage, 6, tcp(SYN)), source))


@pytest.mark.parametrize("to", ["224.0.0.251", "239.1.2.3", "255.255.255.255", NODE4, HOST4, "127.0.0.1"])
def test_a_closed_pod_reaches_neither_groups_nor_the_host(stage: Stage, to: str) -> None:
    stage.enforce("client", egress=CLOSED)
    datagram = struct.pack("!HHHH", 5353, 5353, 8, 0)
    counted(stage, Reason.POLICY_DENIED, IP, readdressed(ipv4(stage, 17, datagram), destination=to))


@pytest.mark.parametrize("source", ["", "fe80::99"])
@pytest.mark.parametrize("to", ["ff02::fb", "ff02::1", "ff05::fb", HOST6])
def test_a_closed_pod_reaches_no_groups_of_ipv6(stage: Stage, source: str, to: str) -> None:
    stage.enforce("client", egress=CLOSED)
    datagram = struct.pack("!HHHH", 5353, 5353, 8, 0)
    counted(stage, Reason.POLICY_DENIED, IP6, readdressed(ipv6(stage, 17, datagram), source, to))


def test_false_neighbours_mislead_nobody(stage: Stage) -> None:
    """Every pod has a wire of its own to the host; what it says of others' addresses there is nobody's business."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    mac = bytes.fromhex("020000000099")
    for claimed in (server.v4, HOST4):
        owner = socket.inet_aton(claimed)
        for operation in (1, 2):
            said = struct.pack("!HHBBH", 1, IP, 6, 4, operation) + mac + owner + client.gateway_mac + owner
            send_frame(stage, "client", ARP, said)
    for claimed in (server.v6, HOST6):
        target = socket.inet_pton(socket.AF_INET6, claimed)
        body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + target + b"\x02\x01" + mac
        packet = bytearray(readdressed(ipv6(stage, 58, body), destination=HOST6))
        packet[7] = 255
        send_frame(stage, "client", IP6, bytes(packet))
    for source in (stage.galaxy.node, stage.galaxy.world):
        for family in (4, 6):
            with stage.galaxy.connect(source, (server.address(family), 80)) as connection:
                assert says(connection)
    with stage.galaxy.connect(client.namespace, (server.v4, 80)) as connection:
        assert says(connection)


# --- tunnels -----------------------------------------------------------------------------------------------------

TUNNELS = {
    "IPIP": (4, 0),
    "6in4": (41, 0),
    "GRE": (47, 0),
    "VXLAN": (17, 4789),
    "flannel": (17, 8472),
    "Geneve": (17, 6081),
}


@pytest.mark.parametrize("what", TUNNELS)
def test_nothing_is_unpacked_by_a_node(stage: Stage, what: str) -> None:
    """What is inside has any source it likes, and no from_pod sees it."""
    protocol, port = TUNNELS[what]
    inner = readdressed(ipv4(stage, 6, tcp(SYN)), source="10.0.0.99")
    body = struct.pack("!HHHH", 40000, port, 8 + len(inner), 0) + inner if port else inner
    packet = ipv4(stage, protocol, body)
    counted(stage, Reason.ENCAPSULATION, IP, readdressed(packet, destination=NODE4))
    stage.place("node", f"{WORLD4}/32", identity=IDENTITY_REMOTE_NODE)
    stage.apply()
    counted(stage, Reason.ENCAPSULATION, IP, readdressed(packet, destination=WORLD4))
    stage.enforce("client", egress=stage.on(Protocol.TCP, None, stage.allow()))
    counted(stage, Reason.POLICY_DENIED, IP, readdressed(packet, destination="203.0.113.77"))


# --- what the host could be made to believe ----------------------------------------------------------------------

MARKS = (MARK_TO_PROXY, MARK_INGRESS_UPSTREAM, MARK_EGRESS_UPSTREAM, MARK_INGRESS_ANSWER, MARK_EGRESS_ANSWER)


@pytest.mark.parametrize("mark", [*MARKS, 0x3A990200])
def test_a_mark_does_not_leave_the_pod(stage: Stage, mark: int) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=CLOSED)
    with inside(client.namespace):
        marked = socket.socket()
    with marked:
        marked.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        marked.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            marked.connect((server.v4, 80))
    stage.wait_drop(Reason.POLICY_DENIED, endpoint=server.ifindex)


def test_a_reset_from_elsewhere_ends_nothing(stage: Stage) -> None:
    """A third party cannot send it, and one that does not fit the connection only shortens the memory of it."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("client", ingress=CLOSED)
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")), egress=CLOSED)
    with stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK) as connection:
        assert says(connection)
        port = connection.getsockname()[1]
        forged = ipv4(stage, 6, tcp(RST, port, source=80), receiver="client")
        counted(stage, Reason.INVALID_SOURCE, IP, readdressed(forged, server.v4))
        send_frame(stage, "client", IP, ipv4(stage, 6, tcp(RST, source=port)))
        stage.wait_event(lambda e: e.tcp_flags & RST and e.endpoint == server.ifindex, "the reset at the server")
        assert says(connection)
        stage.forget_connections()  # its entries have run out
        assert says(connection)


def test_crossing_syns_open_one_way_only(stage: Stage) -> None:
    """Simultaneous open: the closed side's own SYN lets nothing in but the answer to it."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=CLOSED)
    made = []
    for namespace, here, there in (
        (server.namespace, (server.v4, 47001), (client.v4, 47002)),
        (client.namespace, (client.v4, 47002), (server.v4, 47001)),
    ):
        with inside(namespace):
            one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(here)
        made.append((one, there))
    denied = stage.dropped(Reason.POLICY_DENIED)
    try:
        (left, to_right), (right, to_left) = made
        right.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            right.connect(to_left)
        assert stage.dropped(Reason.POLICY_DENIED) > denied
        left.settimeout(5)
        left.connect(to_right)  # meets a socket that is still opening
        left.sendall(b"from inside")
        right.settimeout(5)
        assert right.recv(100) == b"from inside"
    finally:
        for one, _ in made:
            one.close()


def test_an_icmp_error_about_the_hosts_own_connections_is_judged(stage: Stage) -> None:
    """Only the proxy's sockets are behind a pod's wire."""
    client = stage.galaxy.pods["client"]
    stage.galaxy.serve(stage.galaxy.world, "::", 81, echo)
    stage.enforce("client", egress=CLOSED)
    with stage.galaxy.connect(stage.galaxy.node, (WORLD4, 81)) as connection:
        port = connection.getsockname()[1]
        ends = socket.inet_aton(NODE4) + socket.inet_aton(WORLD4)
        quoted = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends + struct.pack("!HHI", port, 81, 1)
        error = struct.pack("!BBHI", 3, 3, 0, 0) + quoted
        counted(stage, Reason.POLICY_DENIED, IP, readdressed(ipv4(stage, 1, error), client.v4, NODE4))
        assert not [e for e in stage.events() if e.trace_reason == TraceReason.RELATED and e.type == EventType.TRACE]
        assert says(connection)


def test_the_helper_device_has_no_address(stage: Stage) -> None:
    for device in ("deflector0", "deflector0p"):
        (link,) = json.loads(stage.galaxy.on_node("ip", "-j", "addr", "show", device))
        assert link["addr_info"] == []


# --- hosts without IPv6 ------------------------------------------------------------------------------------------


def test_a_host_without_ipv6_is_policed_all_the_same(tmp_path: Path, cache: Path) -> None:
    options = Options(tmp_path / "bpffs", tmp_path / "run", cache)
    galaxy = Galaxy(f"bpf{os.getpid() % 10_000}only4")
    alone = Stage(galaxy, Datapath(options))
    try:
        client, server = galaxy.pod("client"), galaxy.pod("server")
        for family in ("all", "default", "lo"):
            galaxy.on_node("sysctl", "-qw", f"net.ipv6.conf.{family}.disable_ipv6=1")
        run("ip", "netns", "exec", server.namespace, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        alone.peers |= {"client": 4001, "server": 4002}
        galaxy.serve(server.namespace, "0.0.0.0", 80, echo)
        alone.open()
        with alone.on_node():
            alone.datapath.set_proxy_ports(tcp_ports(15001))
        for policy in (alone.on(Protocol.TCP, 80, alone.allow("client")), CLOSED, OPEN):
            alone.enforce("server", ingress=policy)
            with alone.on_node():
                for pod in (client, server):
                    alone.datapath.attach(pod.ifindex)
            if policy is CLOSED:
                with pytest.raises(TimeoutError):
                    galaxy.connect(client.namespace, (server.v4, 80), QUICK)
                continue
            with galaxy.connect(client.namespace, (server.v4, 80), QUICK) as connection:
                assert says(connection)
        with alone.on_node():
            alone.datapath.repair([client.ifindex])
    finally:
        with inside(galaxy.node):
            cleanup(options)
        galaxy.close()
