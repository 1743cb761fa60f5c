"""A galaxy with the data path open on its node, and words to say who may what. Policies are IR, written by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bpf.constants import EventType
from bpf.datapath import Datapath
from bpf.entries import Desired
from bpf.event import Event
from bpf.host import ProxyPort
from bpf.links import host_addresses
from bpf.loader import Loaded, Options
from bpf.maps import SPECS
from bpf.redirects import desired
from bpf.sys import map_delete_all
from policies.ir import (
    Address,
    DirectionPolicy,
    Endpoint,
    EndpointPolicy,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    ServiceAddress,
    Verdict,
)
from policies.types import ALL_PORTS, IDENTITY_ANY, IDENTITY_HOST, IDENTITY_WORLD, PortRange, Protocol
from tests.bpf.galaxy import Galaxy, Pod, inside

FIRST_IDENTITY = 1000
OPEN = DirectionPolicy()
CLOSED = DirectionPolicy(enforced=True)
WAIT_SECONDS = 5.0


@dataclass
class Stage:
    galaxy: Galaxy
    datapath: Datapath
    peers: dict[str, int] = field(default_factory=lambda: {"host": IDENTITY_HOST, "world": IDENTITY_WORLD, "any": 0})
    rules: dict[str, tuple[DirectionPolicy, DirectionPolicy]] = field(default_factory=dict)
    services: tuple[ServiceAddress, ...] = ()
    ports: dict[str, int] = field(default_factory=dict)
    prefixes: dict[str, int] = field(default_factory=dict)
    seen: list[Event] = field(default_factory=list)

    # --- set up ---

    def open(self) -> Loaded:
        with self.on_node():
            return self.datapath.open()

    def on_node(self):  # type: ignore[no-untyped-def]
        return inside(self.galaxy.node)

    def pod(self, name: str, attach: bool = True) -> Pod:
        pod = self.galaxy.pod(name)
        self.peers[name] = FIRST_IDENTITY + len(self.peers)
        if attach:
            self.apply()
            with self.on_node():
                self.datapath.attach(pod.ifindex)
        return pod

    def enforce(
        self,
        name: str,
        ingress: DirectionPolicy = OPEN,
        egress: DirectionPolicy = OPEN,
        ports: dict[str, int] | None = None,
    ) -> None:
        """One pod's policy from now on, in force when this returns."""
        self.rules[name] = (ingress, egress)
        self.ports |= ports or {}
        self.apply()

    def reset(self) -> None:
        """No policy, no services, no prefixes; events so far are forgotten."""
        self.rules, self.services, self.ports, self.prefixes = {}, (), {}, {}
        self.apply()
        self.forget()

    def apply(self) -> None:
        wanted = self.wanted()
        with self.on_node():
            self.datapath.apply(wanted)

    def wanted(self) -> Desired:
        return desired(self.node(), self.ports)

    def node(self) -> NodePolicy:
        pods = self.galaxy.pods.values()
        with self.on_node():
            hosts = host_addresses()
        addresses = {f"{a}/{128 if ':' in a else 32}": IDENTITY_HOST for a in hosts}
        addresses |= {f"{p.v4}/32": self.peers[p.name] for p in pods if p.name in self.peers}
        addresses |= {f"{p.v6}/128": self.peers[p.name] for p in pods if p.name in self.peers}
        return NodePolicy(
            1,
            tuple(
                EndpointPolicy(self.peers[p.name], (), *self.rules.get(p.name, (OPEN, OPEN)))
                for p in pods
                if p.name in self.peers
            ),
            tuple(
                Endpoint(p.ifindex, self.peers[p.name], "default", p.name, (p.v4, p.v6))
                for p in pods
                if p.name in self.peers
            ),
            tuple(Address(*one) for one in sorted([*addresses.items(), *self.prefixes.items()])),
            self.services,
        )

    def place(self, name: str, *prefixes: str, identity: int) -> None:
        """From now on these prefixes are peer `name`."""
        self.peers[name] = identity
        self.prefixes |= dict.fromkeys(prefixes, identity)

    # --- words ---

    def on(self, protocol: Protocol, port: int | None, *peers: PeerRule) -> DirectionPolicy:
        return DirectionPolicy(
            True, (PortPolicy(protocol, PortRange(port, port) if port is not None else ALL_PORTS, peers),)
        )

    def allow(self, *names: str) -> PeerRule:
        return PeerRule(self._identities(names), Verdict.ALLOW)

    def deny(self, *names: str) -> PeerRule:
        return PeerRule(self._identities(names), Verdict.DENY)

    def redirect(self, slot: str, *names: str) -> PeerRule:
        return PeerRule(self._identities(names), Verdict.REDIRECT, rule_set=RuleSet(), slot=slot)

    def service(
        self, address: str, port: int, backend: str | None, target: int, protocol: Protocol = Protocol.TCP
    ) -> ServiceAddress:
        return ServiceAddress(address, port, protocol, self.peers[backend] if backend else 0, target)

    def _identities(self, names: Iterable[str]) -> tuple[int, ...]:
        return tuple(sorted(self.peers[name] for name in names)) or (IDENTITY_ANY,)

    def forget_connections(self) -> None:
        """As if every entry of connection tracking had been evicted."""
        maps = self.datapath.maps
        map_delete_all(maps.fd("ct"), SPECS["ct"], b"".join(key for key, _ in maps.entries("ct")))

    # --- what was seen ---

    def events(self) -> list[Event]:
        self.seen += self.datapath.events.read(100_000)
        return self.seen

    def forget(self) -> None:
        """Events so far are of no interest."""
        self.events()
        self.seen.clear()

    def wait_event(self, what: Callable[[Event], bool], text: str = "event") -> Event:
        """The first event for which `what` holds; fails after WAIT_SECONDS."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            for event in self.events():
                if what(event):
                    return event
            time.sleep(0.01)
        raise AssertionError(f"no {text} among {len(self.seen)} events: {self.seen[-5:]}")

    def wait(self, condition: Callable[[], bool], text: str) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < end, f"{text} did not come within {WAIT_SECONDS:g} s"
            time.sleep(0.01)

    def wait_drop(self, reason: int, **fields: object) -> Event:
        return self.wait_event(
            lambda e: (
                (e.type, e.sub_type) == (EventType.DROP, reason)
                and all(getattr(e, name) == value for name, value in fields.items())
            ),
            f"drop {reason} {fields}",
        )

    def dropped(self, reason: int) -> int:
        """Packets dropped for this reason so far."""
        return sum(m.packets for m in self.datapath.metrics() if m.reason == reason)


def tcp_ports(*ports: int) -> list[ProxyPort]:
    return [ProxyPort(Protocol.TCP, port) for port in ports]


def udp_ports(*ports: int) -> list[ProxyPort]:
    return [ProxyPort(Protocol.UDP, port) for port in ports]


@contextmanager
def staged(name: str, place: Path, cache: Path) -> Iterator[Stage]:
    """A stage of its own under `place`; everything of it is removed at the end."""
    galaxy = Galaxy(name)
    stage = Stage(galaxy, Datapath(Options(place / "bpffs", place / "run", cache)))
    try:
        stage.open()
        yield stage
    finally:
        with inside(galaxy.node):
            stage.datapath.cleanup()
        galaxy.close()
