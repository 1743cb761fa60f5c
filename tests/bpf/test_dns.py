"""The DNS proxy itself behind the data path: pods ask servers in pods, on the host, outside, and behind services."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.rrset
import pytest

from bpf.constants import MARK_EGRESS_ANSWER, Reason
from l7proxy.dns.answers import Learned
from l7proxy.dns.configuration import Configuration
from l7proxy.dns.framing import frame
from l7proxy.dns.proxy import DnsProxy
from l7proxy.dns.records import AccessRecord
from policies.ir import (
    DirectionPolicy,
    DnsRule,
    FqdnSelector,
    L7Parser,
    Listening,
    PeerRule,
    PortPolicy,
    RuleSet,
    Slot,
    Verdict,
)
from policies.types import IDENTITY_FIRST_LOCAL, Direction, PortRange, Protocol
from tests.bpf.frames import ipv4, send_frame
from tests.bpf.galaxy import NODE4, NODE6, WORLD4, WORLD6, echo, inside
from tests.bpf.stage import CLOSED, Stage, tcp_ports, udp_ports

pytestmark = pytest.mark.privileged
UDP_PORT, TCP_PORT = 15201, 15202
SERVICE4, SERVICE6 = "10.96.0.10", "fd96::10"
RULES = RuleSet(dns=(DnsRule("allowed.example.org."), DnsRule(pattern="*.open.example.org.")))
DNS = PortRange(53, 53)
NAME = IDENTITY_FIRST_LOCAL + 7
PLACES = ["server", "world", "host", "service"]
WAIT_SECONDS = 5.0


class Town:
    """Who asks, what was learned and seen. What is learned is put in force before the answer goes."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.records: list[AccessRecord] = []
        self.learns = False

    def learned(self, pod: str, names: tuple[Learned, ...]) -> asyncio.Future[bool] | None:
        if self.learns:
            self.stage.datapath.learn({address: NAME for name in names for address in name.addresses})
        return None

    def seen(self, record: AccessRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def town(stage: Stage) -> Iterator[Town]:
    """Servers everywhere, and the proxy on the node, in a thread of its own."""
    galaxy, made = stage.galaxy, Town(stage)
    stage.peers["name"] = NAME
    server = galaxy.pods["server"]
    spaces = {galaxy.world: (WORLD4, WORLD6), galaxy.node: (NODE4, NODE6), server.namespace: (server.v4, server.v6)}
    for space, addresses in spaces.items():
        for address in addresses:
            galaxy.serve_udp(space, address, 53, lambda said, _: answer(said))
            galaxy.serve(space, address, 53, answer_stream)
    for protocol in ("udp", "tcp"):
        galaxy.cluster_ip(SERVICE4, SERVICE6, 53, server, 53, protocol)
    with stage.on_node():
        stage.datapath.set_proxy_ports([*udp_ports(UDP_PORT), *tcp_ports(TCP_PORT)])
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        proxy = DnsProxy(made, made)
        proxy.start()
        listening = tuple(
            Listening(Slot(name, Direction.EGRESS, 1, protocol, DNS, RULES, parser=L7Parser.DNS), port)
            for name, protocol, port in (("udp", Protocol.UDP, UDP_PORT), ("tcp", Protocol.TCP, TCP_PORT))
        )
        proxy.apply(Configuration(listening, selectors=(FqdnSelector(pattern="*"),)))
        ready.set()
        await asyncio.to_thread(stop.wait)
        proxy.stop()

    def run() -> None:
        with inside(galaxy.node):
            asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(WAIT_SECONDS)
    yield made
    stop.set()
    thread.join(WAIT_SECONDS)


def answer(said: bytes) -> bytes:
    """One address, that of the world for the name `first`; for `big`, as many as need fragments."""
    query = dns.message.from_wire(said)
    name = query.question[0].name.to_text()
    many = 400 if name.startswith("big") else 1
    addresses = [WORLD4] if name.startswith("first") else [f"192.0.{n >> 8}.{n & 255}" for n in range(many)]
    reply = dns.message.make_response(query)
    reply.answer.append(dns.rrset.from_text(name, 30, "IN", "A", *addresses))
    return reply.to_wire(max_size=65535)


def ask(name: str, **more: object) -> bytes:
    return dns.message.make_query(name, "A", **more).to_wire()  # type: ignore[arg-type]


def read_frame(connection: socket.socket) -> bytes:
    content = connection.recv(2, socket.MSG_WAITALL)
    if len(content) < 2:
        raise EOFError
    return connection.recv(int.from_bytes(content, "big"), socket.MSG_WAITALL)


def answer_stream(connection: socket.socket) -> None:
    with connection:
        try:
            while True:
                connection.sendall(frame(answer(read_frame(connection))))
        except (OSError, EOFError):
            return


@pytest.fixture(autouse=True)
def clean(stage: Stage, town: Town) -> Iterator[None]:
    stage.reset()
    stage.forget_connections()
    town.records.clear()
    town.learns = False
    yield
    stage.reset()


def enforce(stage: Stage, *more: PortPolicy) -> None:
    """The client may ask everybody for what the rules allow, and nothing else; nobody may speak to it."""
    stage.services = tuple(
        stage.service(address, 53, "server", 53, protocol)
        for address in (SERVICE4, SERVICE6)
        for protocol in (Protocol.TCP, Protocol.UDP)
    )
    servers = tuple(sorted(stage.peers[name] for name in ("server", "world", "host")))

    def peer(slot: str) -> PeerRule:
        return PeerRule(servers, Verdict.REDIRECT, rule_set=RuleSet(), slot=slot)  # type: ignore[arg-type]

    ports = (PortPolicy(Protocol.TCP, DNS, (peer("tcp"),)), *more, PortPolicy(Protocol.UDP, DNS, (peer("udp"),)))
    stage.enforce("client", CLOSED, DirectionPolicy(True, ports), {"udp": UDP_PORT, "tcp": TCP_PORT})


def address(stage: Stage, where: str, family: int) -> str:
    server = stage.galaxy.pods["server"]
    places = {
        "server": (server.v4, server.v6),
        "world": (WORLD4, WORLD6),
        "host": (NODE4, NODE6),
        "service": (SERVICE4, SERVICE6),
    }
    return places[where][family == 6]


def udp(stage: Stage, to: str, message: bytes, who: str = "client") -> dns.message.Message:
    with inside(stage.galaxy.pods[who].namespace):
        made = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    with made:
        made.settimeout(WAIT_SECONDS)
        made.connect((to, 53))
        made.send(message)
        return dns.message.from_wire(made.recv(65535))


def tcp(stage: Stage, to: str, message: bytes, who: str = "client") -> dns.message.Message:
    with stage.galaxy.connect(stage.galaxy.pods[who].namespace, (to, 53)) as connection:
        connection.sendall(frame(message))
        return dns.message.from_wire(read_frame(connection))


@pytest.mark.parametrize("way", [udp, tcp])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("where", PLACES)
def test_a_pod_asks_for_what_it_may(stage: Stage, town: Town, where: str, family: int, way) -> None:  # type: ignore[no-untyped-def]
    enforce(stage)
    to = address(stage, where, family)
    for name, rcode in (("allowed.example.org", dns.rcode.NOERROR), ("secret.example.org", dns.rcode.REFUSED)):
        said = way(stage, to, ask(name))
        assert said.rcode() == rcode
        assert bool(said.answer) == (rcode == dns.rcode.NOERROR)
    pod = stage.galaxy.pods["client"].address(family)
    assert {(record.client.pod, record.client.server, record.client.server_port) for record in town.records} == {
        (pod, to, 53)
    }


@pytest.mark.parametrize("way", [udp, tcp])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("where", PLACES)
def test_large_answers_arrive(stage: Stage, town: Town, where: str, family: int, way) -> None:  # type: ignore[no-untyped-def]
    """6,400 bytes: the server's and the proxy's fragments, or a stream."""
    enforce(stage)
    said = way(stage, address(stage, where, family), ask("big.open.example.org", payload=65535))
    assert len(said.answer[0]) == 400


def translate(stage: Stage, name: str, rules: str) -> None:
    """More of kube-proxy, in a table of its own."""
    stage.galaxy.on_node("nft", "-f", "-", text=f"add table inet {name}\n{rules}")


@pytest.mark.parametrize("way", [udp, tcp])
def test_a_service_whose_server_is_on_the_host(stage: Stage, town: Town, way) -> None:  # type: ignore[no-untyped-def]
    enforce(stage)
    service = "10.96.0.11"
    stage.services = tuple(stage.service(service, 53, "host", 53, p) for p in (Protocol.TCP, Protocol.UDP))
    stage.apply()
    hooks = ("prerouting", "output")
    translate(
        stage,
        "hosted",
        "".join(f"add chain inet hosted {h} {{ type nat hook {h} priority -100; }}\n" for h in hooks)
        + "".join(f"add rule inet hosted {h} ip daddr {service} dnat ip to {NODE4}\n" for h in hooks),
    )
    assert way(stage, service, ask("allowed.example.org")).answer
    assert way(stage, service, ask("secret.example.org")).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("way", [udp, tcp])
def test_a_server_that_asks_its_own_service(stage: Stage, town: Town, way) -> None:  # type: ignore[no-untyped-def]
    """As the cluster's DNS does. kube-proxy masquerades what would come back to where it came from."""
    enforce(stage)
    hosts = tuple(PortPolicy(protocol, DNS, (stage.allow("host"),)) for protocol in (Protocol.TCP, Protocol.UDP))
    stage.rules["server"] = (DirectionPolicy(True, hosts), stage.rules.pop("client")[1])
    stage.apply()
    server = stage.galaxy.pods["server"].v4
    translate(
        stage,
        "hairpin",
        "add chain inet hairpin postrouting { type nat hook postrouting priority 100; }\n"
        f"add rule inet hairpin postrouting ip saddr {server} ip daddr {server} masquerade\n",
    )
    assert way(stage, SERVICE4, ask("allowed.example.org"), "server").answer
    assert way(stage, SERVICE4, ask("secret.example.org"), "server").rcode() == dns.rcode.REFUSED


def test_the_servers_ingress_policy_is_about_the_client(stage: Stage, town: Town) -> None:
    enforce(stage)
    server = stage.galaxy.pods["server"]
    ports = tuple(PortPolicy(protocol, DNS, (stage.allow("client"),)) for protocol in (Protocol.TCP, Protocol.UDP))
    stage.enforce("server", DirectionPolicy(True, ports), CLOSED)
    for way in (udp, tcp):
        assert way(stage, server.v4, ask("allowed.example.org")).answer
    stage.enforce("server", CLOSED, CLOSED)
    with inside(stage.galaxy.pods["client"].namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(ask("allowed.example.org"), (server.v4, 53))
        drop = stage.wait_drop(Reason.POLICY_DENIED, endpoint=server.ifindex)
    assert drop.source_identity == stage.peers["client"]


def test_the_first_packet_to_an_address_that_was_just_learned_passes(stage: Stage, town: Town) -> None:
    """Before the answer is released, its addresses are in force: nobody is faster."""
    stage.galaxy.serve(stage.galaxy.world, WORLD4, 80, echo)
    web = PortPolicy(Protocol.TCP, PortRange(80, 80), (stage.allow("name"),))
    enforce(stage, web)
    town.learns = True
    client = stage.galaxy.pods["client"].namespace
    for _ in range(50):
        stage.datapath.forget([socket.inet_aton(WORLD4)])
        denied = stage.dropped(Reason.POLICY_DENIED)
        assert udp(stage, WORLD6, ask("first.open.example.org")).answer
        stage.galaxy.connect(client, (WORLD4, 80), 0.3).close()
        assert stage.dropped(Reason.POLICY_DENIED) == denied
    stage.datapath.forget([socket.inet_aton(WORLD4)])
    with pytest.raises(TimeoutError):
        stage.galaxy.connect(client, (WORLD4, 80), 0.3)


def test_a_pod_cannot_answer_for_the_server(stage: Stage, town: Town) -> None:
    """Another pod knows everything but where the proxy asks from: what it sends to the asking pod goes nowhere."""
    enforce(stage)
    server = stage.galaxy.pods["server"]
    with inside(stage.galaxy.pods["client"].namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with made:
        made.connect((WORLD4, 53))
        made.send(ask("allowed.example.org"))
        made.settimeout(WAIT_SECONDS)
        assert made.recv(65535)
        port = made.getsockname()[1].to_bytes(2, "big")
        lie = b"\0\x35" + port + (12).to_bytes(2, "big") + b"\0\0lies"
        forged = ipv4(stage, 17, lie, sender="server", receiver="client")
        send_frame(stage, "server", 0x0800, forged[:12] + socket.inet_aton(WORLD4) + forged[16:])
        stage.wait_drop(Reason.INVALID_SOURCE, endpoint=server.ifindex)
        send_frame(stage, "server", 0x0800, forged)
        stage.wait_drop(Reason.POLICY_DENIED, source=server.v4)
        made.settimeout(0.2)
        with pytest.raises(TimeoutError):
            made.recv(100)


def test_a_mark_that_a_pod_sets_ends_at_its_own_interface(stage: Stage, town: Town) -> None:
    enforce(stage)
    with inside(stage.galaxy.pods["server"].namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_EGRESS_ANSWER)
        made.sendto(b"lies", (stage.galaxy.pods["client"].v4, 4444))
        stage.wait_drop(Reason.POLICY_DENIED, destination_port=4444)
