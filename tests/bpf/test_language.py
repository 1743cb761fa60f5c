"""The whole policy language as the kernel sees it: every protocol, ICMP types, denials, prefixes of any length."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator

import pytest

from bpf.constants import Dir, EventType, Match, Reason
from bpf.event import Event
from policies.ir import DirectionPolicy, PortPolicy
from policies.types import (
    ALL_PORTS,
    IDENTITY_KUBE_APISERVER,
    IDENTITY_REMOTE_NODE,
    IDENTITY_WORLD,
    IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6,
    PortRange,
    Protocol,
)
from tests.bpf.frames import ipv4, ipv6, send_frame
from tests.bpf.galaxy import WORLD4, WORLD6
from tests.bpf.stage import CLOSED, Stage

pytestmark = pytest.mark.privileged
LOCAL = 1 << 24  # identities of prefixes are numbered from here
SCTP, GRE = 132, 47
PORT = 7000


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    stage.reset()
    stage.forget_connections()
    yield
    stage.reset()


def send(stage: Stage, protocol: int, payload: bytes, family: int = 4) -> None:
    """From the client to the server, whatever it is."""
    if family == 4:
        send_frame(stage, "client", 0x0800, ipv4(stage, protocol, payload))
    else:
        send_frame(stage, "client", 0x86DD, ipv6(stage, protocol, payload))


def verdict(stage: Stage, endpoint: int, **fields: object) -> Event:
    """That of the server or client, for a packet with these fields."""
    return stage.wait_event(
        lambda e: (
            (e.type, e.endpoint) == (EventType.VERDICT, endpoint)
            and all(getattr(e, name) == value for name, value in fields.items())
        ),
        f"verdict {fields}",
    )


# --- protocols ---------------------------------------------------------------------------------------------------


def chunk(port: int) -> bytes:
    """SCTP's common header and the head of an INIT."""
    return struct.pack("!HHIIBBH", 40000, port, 0, 0, 1, 0, 20) + bytes(16)


@pytest.mark.parametrize("family", [4, 6])
def test_sctp_ports_are_judged(stage: Stage, family: int) -> None:
    server = stage.galaxy.pods["server"].ifindex
    stage.enforce("server", ingress=stage.on(Protocol.SCTP, 3868, stage.allow("client")))
    send(stage, SCTP, chunk(3868), family)
    assert verdict(stage, server, destination_port=3868, family=family).verdict == 0
    send(stage, SCTP, chunk(3869), family)
    assert verdict(stage, server, destination_port=3869, family=family).verdict == -Reason.POLICY_DENIED


def test_the_same_port_of_another_protocol_is_another_port(stage: Stage) -> None:
    server = stage.galaxy.pods["server"].ifindex
    stage.enforce("server", ingress=stage.on(Protocol.SCTP, 3868, stage.allow("client")))
    for protocol in (6, 17):
        body = struct.pack("!HHIIBBHHH", 40000, 3868, 1, 0, 0x50, 2, 1000, 0, 0)
        send(stage, protocol, body)
        assert verdict(stage, server, protocol=protocol).verdict == -Reason.POLICY_DENIED


def test_a_protocol_without_ports_passes_only_where_every_protocol_does(stage: Stage) -> None:
    server = stage.galaxy.pods["server"].ifindex
    stage.enforce("server", ingress=stage.on(Protocol.TCP, None, stage.allow("client")))
    send(stage, GRE, bytes(16))
    assert verdict(stage, server, protocol=GRE).verdict == -Reason.POLICY_DENIED
    stage.forget()
    stage.enforce("server", ingress=stage.on(Protocol.ANY, None, stage.allow("client")))
    send(stage, GRE, bytes(16))
    assert verdict(stage, server, protocol=GRE).verdict == 0


def ping(namespace: str, to: str, size: int = 56) -> bool:
    command = ["ip", "netns", "exec", namespace, "ping", "-c1", "-W1", f"-s{size}", to]
    return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0


ECHO = {4: (Protocol.ICMP, 8), 6: (Protocol.ICMPV6, 128)}


@pytest.mark.parametrize("size", [56, 4000])
@pytest.mark.parametrize("family", [4, 6])
def test_icmp_is_judged_by_its_type(stage: Stage, family: int, size: int) -> None:
    """Also in fragments, of which only the first carries it."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    protocol, request = ECHO[family]
    stage.enforce("server", ingress=stage.on(protocol, request, stage.allow("client")))
    assert ping(client.namespace, server.address(family), size)
    stage.enforce("server", ingress=stage.on(protocol, request + 1, stage.allow("client")))
    assert not ping(client.namespace, server.address(family), size)
    drop = stage.wait_drop(Reason.POLICY_DENIED, protocol=protocol)
    assert (drop.icmp_type, drop.direction) == (request, Dir.INGRESS)


def test_another_icmp_type_than_the_allowed_one_is_denied(stage: Stage) -> None:
    server = stage.galaxy.pods["server"].ifindex
    stage.enforce("server", ingress=stage.on(Protocol.ICMP, 8, stage.allow("client")))
    send(stage, 1, struct.pack("!BBHHH", 13, 0, 0, 1, 1) + bytes(12))  # timestamp request
    assert verdict(stage, server, icmp_type=13).verdict == -Reason.POLICY_DENIED


def test_only_echo_has_answers(stage: Stage) -> None:
    """Else one question of any type would let every other type in; and a question is never an answer."""
    server = stage.galaxy.pods["server"]
    stage.enforce("client", ingress=CLOSED)
    for kind in (8, 13, 42):
        send(stage, 1, struct.pack("!BBHHH", kind, 0, 0, 0, 0) + bytes(12))
    stage.wait_event(lambda e: e.icmp_type == 42 and e.endpoint == server.ifindex, "the last question")
    before = stage.dropped(Reason.POLICY_DENIED)
    for kind in (8, 13, 14, 42):
        question = struct.pack("!BBHHH", kind, 0, 0, 0, 0) + bytes(12)
        send_frame(stage, "server", 0x0800, ipv4(stage, 1, question, sender="server", receiver="client"))
    stage.wait(lambda: stage.dropped(Reason.POLICY_DENIED) == before + 4, "four drops")


def test_icmp_of_one_family_does_not_allow_that_of_the_other(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.ICMP, None, stage.allow("client")))
    assert ping(client.namespace, server.v4)
    assert not ping(client.namespace, server.v6)


# --- what matched ------------------------------------------------------------------------------------------------

MATCHES = {
    "every peer, every port": ("any", Protocol.ANY, None, Match.ALL),
    "the peer": ("client", Protocol.ANY, None, Match.L3_ONLY),
    "the protocol": ("any", Protocol.UDP, None, Match.PROTO_ONLY),
    "peer and protocol": ("client", Protocol.UDP, None, Match.L3_PROTO),
    "the port": ("any", Protocol.UDP, PORT, Match.L4_ONLY),
    "peer and port": ("client", Protocol.UDP, PORT, Match.L3_L4),
}


@pytest.mark.parametrize("what", MATCHES)
@pytest.mark.parametrize("denied", [False, True])
def test_a_verdict_says_what_matched(stage: Stage, what: str, denied: bool) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    peer, protocol, port, match = MATCHES[what]
    rule = stage.deny(peer) if denied else stage.allow(peer)
    stage.enforce("server", ingress=stage.on(protocol, port, rule))
    stage.galaxy.udp(client.namespace, client.v4).sendto(b"?", (server.v4, PORT))
    seen = verdict(stage, server.ifindex, destination_port=PORT)
    assert (seen.match_type, seen.verdict) == (match, -Reason.POLICY_DENY if denied else 0)
    if denied:
        assert stage.wait_drop(Reason.POLICY_DENY, destination_port=PORT).source == client.v4


def ports(stage: Stage, *policies: tuple[int, int, bool]) -> DirectionPolicy:
    """(first, last, allowed) of UDP, for the client."""
    return DirectionPolicy(
        True,
        tuple(
            PortPolicy(Protocol.UDP, PortRange(first, last), ((stage.allow if allowed else stage.deny)("client"),))
            for first, last, allowed in policies
        ),
    )


def test_port_ranges_are_judged_at_their_edges(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=ports(stage, (1000, 1999, True), (2000, 2000, False), (2001, 65535, True)))
    sending = stage.galaxy.udp(client.namespace, client.v4)
    expected = {999: -Reason.POLICY_DENIED, 1000: 0, 1999: 0, 2000: -Reason.POLICY_DENY, 2001: 0, 65535: 0}
    for port, result in expected.items():
        sending.sendto(b"?", (server.v4, port))
        assert verdict(stage, server.ifindex, destination_port=port).verdict == result


def test_what_a_port_says_of_a_peer_goes_before_what_is_said_of_every_protocol(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    everywhere = PortPolicy(Protocol.ANY, ALL_PORTS, (stage.allow("client"),))
    there = PortPolicy(Protocol.UDP, PortRange(PORT, PORT), (stage.deny("client"), stage.allow()))
    stage.enforce("server", ingress=DirectionPolicy(True, (everywhere, there)))
    sending = stage.galaxy.udp(client.namespace, client.v4)
    for port, result in ((PORT, -Reason.POLICY_DENY), (PORT + 1, 0)):
        sending.sendto(b"?", (server.v4, port))
        assert verdict(stage, server.ifindex, destination_port=port).verdict == result


# --- prefixes ----------------------------------------------------------------------------------------------------


def identity_of(stage: Stage, address: str) -> int:
    """That of a destination, as the client's egress policy sees it."""
    client = stage.galaxy.pods["client"]
    stage.forget()
    stage.galaxy.udp(client.namespace, client.address(6 if ":" in address else 4)).sendto(b"?", (address, PORT))
    return verdict(stage, client.ifindex, destination=address).destination_identity


NESTED = {"203.0.112.0/20": 1, "203.0.113.0/24": 2, "203.0.113.2/31": 3, "2001:db8::/32": 4, "2001:db8::2/127": 5}
LIVES = {"203.0.112.9": 1, "203.0.113.9": 2, WORLD4: 3, "2001:db8:1::1": 4, WORLD6: 5}


def test_the_longest_prefix_has_the_address(stage: Stage) -> None:
    for prefix, number in NESTED.items():
        stage.place(f"cidr{number}", prefix, identity=LOCAL + number)
    stage.enforce("client", egress=stage.on(Protocol.UDP, PORT, stage.allow("cidr1")))
    assert {address: identity_of(stage, address) - LOCAL for address in LIVES} == LIVES
    assert identity_of(stage, "198.51.100.1") == IDENTITY_WORLD


def test_a_prefix_is_allowed_and_what_is_taken_out_of_it_is_not(stage: Stage) -> None:
    stage.place("range", "203.0.113.0/24", identity=LOCAL + 1)
    stage.place("exception", f"{WORLD4}/32", identity=LOCAL + 2)
    stage.enforce("client", egress=stage.on(Protocol.UDP, PORT, stage.allow("range")))
    client = stage.galaxy.pods["client"]
    sending = stage.galaxy.udp(client.namespace, client.v4)
    for address, result in (("203.0.113.9", 0), (WORLD4, -Reason.POLICY_DENIED)):
        sending.sendto(b"?", (address, PORT))
        assert verdict(stage, client.ifindex, destination=address).verdict == result


def test_a_prefix_that_covers_pods_does_not_select_them(stage: Stage) -> None:
    """A pod's own entry is the longer one."""
    server = stage.galaxy.pods["server"]
    stage.place("everything", "10.0.0.0/8", "fd00::/16", f"{server.v4}/32", identity=LOCAL + 1)
    stage.enforce("client", egress=stage.on(Protocol.UDP, PORT, stage.deny("everything"), stage.allow()))
    for address in (server.v4, server.v6):
        assert identity_of(stage, address) == stage.peers["server"]
    assert identity_of(stage, "10.9.9.9") == LOCAL + 1


def test_the_world_of_each_family(stage: Stage) -> None:
    """Where both families are on, the compiler gives each a world of its own by its shortest prefix."""
    stage.place("world4", "0.0.0.0/0", identity=IDENTITY_WORLD_IPV4)
    stage.place("world6", "::/0", identity=IDENTITY_WORLD_IPV6)
    stage.enforce("client", egress=stage.on(Protocol.UDP, PORT, stage.allow("world4")))
    assert identity_of(stage, "198.51.100.1") == IDENTITY_WORLD_IPV4
    assert identity_of(stage, "2001:db8::99") == IDENTITY_WORLD_IPV6
    assert stage.wait_drop(Reason.POLICY_DENIED, destination="2001:db8::99")


@pytest.mark.parametrize("identity", [IDENTITY_REMOTE_NODE, IDENTITY_KUBE_APISERVER])
def test_other_nodes_have_their_identities(stage: Stage, identity: int) -> None:
    stage.place("node", f"{WORLD4}/32", f"{WORLD6}/128", identity=identity)
    stage.enforce("server", ingress=stage.on(Protocol.UDP, PORT, stage.allow("node")))
    server = stage.galaxy.pods["server"]
    for family, source in ((4, WORLD4), (6, WORLD6)):
        stage.galaxy.udp(stage.galaxy.world, source).sendto(b"?", (server.address(family), PORT))
        seen = verdict(stage, server.ifindex, source=source)
        assert (seen.source_identity, seen.verdict) == (identity, 0)


def test_an_address_changes_hands(stage: Stage) -> None:
    """Longer and shorter prefixes come and go; what is left has the address."""
    stage.enforce("client", egress=stage.on(Protocol.UDP, PORT, stage.allow("server")))
    for prefixes, expected in (
        ({"203.0.113.0/24": LOCAL + 1}, LOCAL + 1),
        ({"203.0.113.0/24": LOCAL + 1, f"{WORLD4}/32": LOCAL + 2}, LOCAL + 2),
        ({"203.0.0.0/16": LOCAL + 3}, LOCAL + 3),
        ({}, IDENTITY_WORLD),
    ):
        stage.prefixes = prefixes
        stage.apply()
        stage.forget_connections()
        assert identity_of(stage, WORLD4) == expected
