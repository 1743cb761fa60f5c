"""The evaluator against the real kernel: random policies compiled into its maps, first packets sent, verdicts told.

What the data path does with a packet is read from its own events: each hook that a new connection passes says what it
decided. `make fuzz` runs it for longer.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import Modes
from agent.offline import compile_offline
from bpf.constants import Dir, EventType, Reply
from bpf.event import Event
from bpf.links import host_addresses
from bpf.maps import SPECS
from bpf.redirects import desired
from bpf.sys import map_delete_all
from policies.errors import Reason
from policies.explaining.explain import Explanation, Question, Side, explain
from policies.explaining.scene import Scene
from policies.objects import PodKey
from policies.repository import Repository
from policies.types import Protocol
from tests.bpf.frames import internet_checksum
from tests.bpf.galaxy import NODE4, NODE6, WORLD4, WORLD6, inside
from tests.bpf.stage import Stage, staged, tcp_ports, udp_ports
from tests.oracle.paste import example
from tests.oracle.worlds import PORTS, l4_policies, namespaces, with_ports
from tests.policies.make import manifest, pod

pytestmark = pytest.mark.privileged
PROXY_PORT = 15001
NO_ANSWER = 42  # an ICMP type that nobody answers: a late answer would be a connection of its own
TOLD = 2.0  # seconds that an event may take
SERVICE4, SERVICE6, SERVICE_PORT = "10.96.0.1", "fd00:96::1", 90
SERVED = 81  # the port behind the service
# name -> namespace, labels, the number behind the port name `web`
PODS = {
    "a1": ("default", {"app": "a", "tier": "front"}, 80),
    "b1": ("default", {"app": "b"}, 81),
    "a2": ("rebels", {"app": "a"}, 443),
}
ENDS = ("a1", "b1", "a2", "world", "host", "service")
Fate = tuple[str | None, str | None]  # what egress and ingress decided: allow, deny, redirect; None: not asked


@dataclass(frozen=True)
class Probe:
    source: str
    target: str
    family: int
    protocol: Protocol
    port: int


@dataclass(repr=False)
class Kernel:
    """A galaxy whose data path takes whatever is compiled."""

    stage: Stage
    numbers: Iterator[int] = field(default_factory=lambda: itertools.cycle(range(20_000, 32_000)))

    def objects(self) -> list[dict[str, Any]]:
        made = namespaces()
        for name, (namespace, labels, web) in PODS.items():
            here = self.stage.galaxy.pods[name]
            plain = pod(name, [here.v4, here.v6], namespace, **labels)
            made.append(with_ports(plain, [{"name": "web", "containerPort": web, "protocol": "TCP"}]))
        return [*made, *self._service()]

    def _service(self) -> list[dict[str, Any]]:
        spec = {"clusterIPs": [SERVICE4, SERVICE6], "clusterIP": SERVICE4, "selector": {"app": "b"}}
        ports = [{"name": "web", "port": SERVICE_PORT, "targetPort": SERVED, "protocol": "TCP"}]
        about = {"name": "shop", "namespace": "default"}
        made = [{"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": {**spec, "ports": ports}}]
        for family in (4, 6):
            made.append(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": f"shop-{family}",
                        "namespace": "default",
                        "labels": {"kubernetes.io/service-name": "shop"},
                    },
                    "addressType": f"IPv{family}",
                    "endpoints": [{"addresses": [self.stage.galaxy.pods["b1"].address(family)]}],
                    "ports": [{"name": "web", "port": SERVED, "protocol": "TCP"}],
                }
            )
        return made

    def program(self, objects: list[dict[str, Any]], modes: Modes) -> Scene:
        """Compile and put into the maps."""
        repository = Repository()
        assert not [e for e in repository.replace("all.yaml", manifest(*objects)).errors if e.severity == "error"]
        local = {PodKey(PODS[name][0], name): here.ifindex for name, here in self.stage.galaxy.pods.items()}
        with self.stage.on_node():
            scene, errors = compile_offline(repository.world(), local, host_addresses(), modes=modes)
            assert {error.reason for error in errors} <= {Reason.CONFLICT}  # of parsers: these peers are denied
            self.stage.datapath.apply(desired(scene.node, {slot.name: PROXY_PORT for slot in scene.node.slots}))
        return scene

    def address(self, who: str, family: int) -> str:
        places = {"world": (WORLD4, WORLD6), "host": (NODE4, NODE6), "service": (SERVICE4, SERVICE6)}
        if who in places:
            return places[who][family == 6]
        return self.stage.galaxy.pods[who].address(family)

    def send(self, probe: Probe) -> Fate:
        """The first packet of a connection, and what became of it."""
        galaxy, number = self.stage.galaxy, next(self.numbers)
        space = {"world": galaxy.world, "host": galaxy.node}.get(probe.source)
        self._forget()
        with inside(space or galaxy.pods[probe.source].namespace):
            ends = self.address(probe.source, probe.family), self.address(probe.target, probe.family)
            made = _send(probe, ends, number)
        try:
            return self._fate(probe, number)
        finally:
            made.close()

    def _forget(self) -> None:
        """As if nothing had been sent before. Of ICMP, only echoes differ by their number; and a drop that was told a
        moment ago is not told again."""
        maps = self.stage.datapath.maps
        for name in ("ct", "denied"):
            map_delete_all(maps.fd(name), SPECS[name], b"".join(key for key, _ in maps.entries(name)))
        self.stage.forget()

    def _fate(self, probe: Probe, number: int) -> Fate:
        source = self.address(probe.source, probe.family)
        end = time.monotonic() + TOLD
        while time.monotonic() < end:
            mine = [e for e in self.stage.events() if _is_of(e, source, probe, number)]
            fate = (_decided(mine, Dir.EGRESS), _decided(mine, Dir.INGRESS))
            last = fate[1] if probe.target in (*PODS, "service") else fate[0]
            if last is not None or "deny" in fate or "redirect" in fate:
                return fate
            time.sleep(0.001)
        raise AssertionError(f"{probe}: no verdict within {TOLD:g} s among {self.stage.seen[-5:]}")


def _send(probe: Probe, ends: tuple[str, str], number: int) -> socket.socket:
    source, to = ends
    family = socket.AF_INET6 if probe.family == 6 else socket.AF_INET
    if probe.protocol in (Protocol.ICMP, Protocol.ICMPV6):
        made = socket.socket(family, socket.SOCK_RAW, int(probe.protocol))
        message = struct.pack("!BBHHH", probe.port, 0, 0, number, 1) + b"12 bytes.pad"
        if probe.family == 4:
            message = message[:2] + internet_checksum(message) + message[4:]
        made.bind((source, 0))
        with _perhaps_dropped():
            made.sendto(message, (to, 0))
        return made
    made = socket.socket(family, socket.SOCK_STREAM if probe.protocol is Protocol.TCP else socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((source, number))
    made.connect_ex((to, probe.port))
    if probe.protocol is Protocol.UDP:
        with _perhaps_dropped():
            made.send(b"hello")
    return made


@contextmanager
def _perhaps_dropped() -> Iterator[None]:
    """What is dropped on the sender's own host may be told to the sender so; the data path's events say why."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise


def _is_of(event: Event, source: str, probe: Probe, number: int) -> bool:
    if (event.source, event.protocol) != (source, probe.protocol) or event.reply == Reply.YES:
        return False
    if probe.protocol in (Protocol.ICMP, Protocol.ICMPV6):
        return event.icmp_type == probe.port
    return event.source_port == number


def _decided(events: list[Event], direction: Dir) -> str | None:
    """A hook that enforces tells a verdict; one that does not only traces."""
    told = {_word(event) for event in events if event.direction == direction}
    return next((word for word in ("deny", "redirect", "allow") if word in told), None)


def _word(event: Event) -> str:
    if event.type == EventType.DROP or (event.type == EventType.VERDICT and event.verdict < 0):
        return "deny"
    return "redirect" if event.type == EventType.VERDICT and event.verdict > 0 else "allow"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    place = tmp_path_factory.mktemp("oracle")
    with staged(f"orc{os.getpid() % 100_000}", place, place / "cache") as stage:
        for name in PODS:
            stage.pod(name)
        stage.galaxy.cluster_ip(SERVICE4, SERVICE6, SERVICE_PORT, stage.galaxy.pods["b1"], SERVED)
        for space in (*(here.namespace for here in stage.galaxy.pods.values()), stage.galaxy.world, stage.galaxy.node):
            for port in PORTS:  # nobody reads, but nobody refuses: an ICMP error could be taken for a connection's
                stage.galaxy.udp(space, "::", port)
        with stage.on_node():
            stage.datapath.set_proxy_ports([*tcp_ports(PROXY_PORT), *udp_ports(PROXY_PORT)])
        yield Kernel(stage)


def name_of(kernel: Kernel, who: str, family: int) -> str:
    return f"{PODS[who][0]}/{who}" if who in PODS else kernel.address(who, family)


def expected(answer: Explanation, probe: Probe) -> Fate:
    egress = _expected(answer.egress) if probe.source in PODS else None
    if egress in ("deny", "redirect") or probe.target not in (*PODS, "service"):
        return egress, None
    return egress, _expected(answer.ingress[0])


def _expected(side: Side) -> str:
    if side.l7 is not None:
        return "redirect"
    return "allow" if side.allowed else "deny"


@st.composite
def probes(draw: st.DrawFn) -> Probe:
    """A connection between two different ends, one of them a pod."""
    source = draw(st.sampled_from(ENDS[:-1]))
    others = [end for end in (PODS if source not in PODS else ENDS) if end != source]
    target, family = draw(st.sampled_from(others)), draw(st.sampled_from([4, 6]))
    if target == "service":
        return Probe(source, target, family, Protocol.TCP, SERVICE_PORT)
    protocol = draw(st.sampled_from([Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.ICMP]))
    if protocol is Protocol.ICMP and family == 6:
        return Probe(source, target, family, Protocol.ICMPV6, 128)
    port = draw(st.sampled_from([8, NO_ANSWER])) if protocol is Protocol.ICMP else draw(st.sampled_from(PORTS))
    return Probe(source, target, family, protocol, port)


MODES = st.builds(
    Modes, st.sampled_from(["default", "default", "default", "always", "never"]), st.sampled_from(["auto", "policy"])
)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(rules=l4_policies(), modes=MODES, tried=st.lists(probes(), min_size=15, max_size=25))
def test_the_kernel_decides_as_the_evaluator_says(
    kernel: Kernel, rules: list[dict[str, Any]], modes: Modes, tried: list[Probe]
) -> None:
    objects = [*kernel.objects(), *rules]
    scene = kernel.program(objects, modes)
    for probe in tried:
        source = scene.end(name_of(kernel, probe.source, probe.family))
        target = scene.target(name_of(kernel, probe.target, probe.family), probe.protocol, probe.port)
        answer = explain(scene, Question(source, target, probe.protocol))
        fate, wanted = kernel.send(probe), expected(answer, probe)
        words = example(objects, source.name, target.name, f"{probe.port}/{probe.protocol.name}", None)
        assert fate == wanted, f"{probe}, {modes}: the kernel: {fate}, the evaluator: {wanted}{words}"
