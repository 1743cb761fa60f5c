"""A galaxy: a node and its pods as network namespaces, with the parts of CNI and kube-proxy played. Needs root.

    node   dfl-ID-node      forwarding, one veth per pod, nftables for the ClusterIPs, eth0 to the world
    pods   dfl-ID-ALIAS     eth0 with a /32 and a /128, default route through a gateway that the host side answers for
    world  dfl-ID-world     a machine outside the cluster; hosts, other nodes and their pods are addresses of it

Files live in /run/dfl/ID: `lock` (held while the owner lives), `manifests`, `run`, `bpf`, `curl`, `zone`, logs. A
galaxy whose lock nobody holds belongs to a dead owner and is swept by the next one with the same prefix. Outside its
namespaces and its folder a galaxy touches nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conformance import netns
from conformance.blueprint import NODE_V4, NODE_V6, UDP_ECHO_PORT, WORLD_V4, WORLD_V6, Blueprint, Pod
from conformance.brokers import Brokers
from conformance.errors import EnvironmentFailure
from conformance.manifests import ManifestFolder
from conformance.nameserver import Nameservers
from conformance.service_proxy import ruleset

ROOT = Path("/run/dfl")
NODE, WORLD = "node", "world"
GATEWAY_V4, GATEWAY_V6 = "169.254.1.1", "fe80::1"  # link-local gateway, as Calico has it
HOST_SIDE_MAC = "ee:ee:ee:ee:ee:ee"
HOST_PORTS = (80, 8080)  # HTTP servers of whoever lives in the world
SERVER_START = 5.0  # seconds a pod's server may take to listen

# Addresses are usable at once: duplicate address detection would hold each back for a second or two.
NO_DELAY = {
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/dad_transmits": "0",
    "ipv6/conf/all/accept_dad": "0",
}
FORWARDING = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}


@dataclass(slots=True)
class Galaxy:
    """A galaxy that exists. Made by `galaxy()`, which also removes it."""

    id: str
    blueprint: Blueprint
    folder: Path
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    nameservers: Nameservers = field(init=False)
    brokers: Brokers = field(default_factory=Brokers)

    def __post_init__(self) -> None:
        self.nameservers = Nameservers(self.folder, self.blueprint.hosts)

    @property
    def manifests(self) -> ManifestFolder:
        return ManifestFolder(self.folder / "manifests")

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def bpffs(self) -> Path:
        return self.folder / "bpf"

    def namespace(self, who: str) -> str:
        """The network namespace of a pod's alias, of `node` or of `world`; a host's is the world's."""
        if who == NODE or any(pod.alias == who for pod in self.blueprint.local_pods):
            return f"{self.id}-{who}"
        return f"{self.id}-{WORLD}"

    def namespaces(self) -> list[str]:
        return [self.namespace(who) for who in (NODE, WORLD, *(pod.alias for pod in self.blueprint.local_pods))]

    def address(self, who: str, family: int) -> str:
        """The address by which others know a pod, a host, the node or the world."""
        if who in (NODE, WORLD):
            return {(NODE, 4): NODE_V4, (NODE, 6): NODE_V6, (WORLD, 4): WORLD_V4, (WORLD, 6): WORLD_V6}[who, family]
        if any(host.name == who for host in self.blueprint.hosts):
            return self.blueprint.host(who).address(family)
        return self.blueprint.pod(who).address(family)


@contextmanager
def galaxy(blueprint: Blueprint, *, prefix: str = "dfl") -> Iterator[Galaxy]:
    """Sweep what dead owners left, create a galaxy, and remove it at the end, whatever happened in between."""
    if os.geteuid() != 0:
        raise EnvironmentFailure("a galaxy is made of network namespaces: run this as root")
    with ExitStack() as stack:
        made = _claim(blueprint, prefix, stack)
        _create(made)
        yield made


def sweep(prefix: str = "dfl") -> list[str]:
    """Remove the galaxies of dead owners; returns their ids."""
    with _registry():
        return _sweep(prefix)


def _claim(blueprint: Blueprint, prefix: str, stack: ExitStack) -> Galaxy:
    with _registry():
        _sweep(prefix)
        taken = {path.name for path in ROOT.iterdir()}
        name = next(name for name in iter(lambda: f"{prefix}-{secrets.token_hex(2)}", "") if name not in taken)
        made = Galaxy(name, blueprint, ROOT / name)
        made.folder.mkdir()
        lock = os.open(made.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    stack.callback(os.close, lock)
    stack.callback(_remove, made)
    return made


@contextmanager
def _registry() -> Iterator[None]:
    """One at a time: between making a folder and locking it, nobody may take it for abandoned."""
    ROOT.mkdir(parents=True, exist_ok=True)
    lock = os.open(ROOT / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sweep(prefix: str) -> list[str]:
    swept = []
    for folder in sorted(ROOT.glob(f"{prefix}-*")):
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its owner lives
        else:
            _wipe(folder)
            swept.append(folder.name)
        finally:
            os.close(lock)
    return swept


def _remove(made: Galaxy) -> None:
    made.nameservers.stop()
    made.brokers.stop()
    for server in made.servers.values():
        server.kill()
    for server in made.servers.values():
        server.wait()
        if server.stdout:
            server.stdout.close()
    _wipe(made.folder)


def _wipe(folder: Path) -> None:
    """Processes, namespaces, the BPF filesystem, the folder: in this order, each whether or not it is there."""
    netns.remove(netns.existing(f"{folder.name}-"))
    while os.path.ismount(folder / "bpf"):
        netns.tool(["umount", str(folder / "bpf")])
    shutil.rmtree(folder, ignore_errors=True)


def _create(made: Galaxy) -> None:
    made.manifests.populate(made.blueprint)
    for path in (made.run_dir, made.bpffs, made.folder / "curl"):
        path.mkdir(mode=0o700)
    (made.folder / "curl" / ".curlrc").write_text(_curlrc(made.blueprint))
    netns.ip_batch("", [f"netns add {name}" for name in made.namespaces()])
    for name in made.namespaces():
        netns.write_sysctls(name, NO_DELAY)
    netns.write_sysctls(made.namespace(NODE), FORWARDING)
    netns.ip_batch(made.namespace(NODE), _node_lines(made))
    netns.write_sysctls(made.namespace(NODE), _proxy_arp(made.blueprint))
    netns.tool(netns.inside(made.namespace(NODE), ["nft", "-f", "-"]), ruleset(made.blueprint.services))
    netns.ip_batch(made.namespace(WORLD), _world_lines(made.blueprint))
    for pod in made.blueprint.local_pods:
        netns.ip_batch(made.namespace(pod.alias), _pod_lines(pod))
    _start_servers(made)
    for pod in made.blueprint.local_pods:
        if pod.resolves:
            made.nameservers.start(made.namespace(pod.alias), made.blueprint.names)
        if pod.topics:
            made.brokers.start(pod.alias, made.namespace(pod.alias), pod.topics)


def _node_lines(made: Galaxy) -> list[str]:
    lines = [
        "link set lo up",
        f"link add eth0 type veth peer name eth0 netns {made.namespace(WORLD)}",
        f"address add {NODE_V4}/24 dev eth0",
        f"address add {NODE_V6}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {WORLD_V4} dev eth0",
        f"route add default via {WORLD_V6} dev eth0",
    ]
    for pod in made.blueprint.local_pods:
        device = pod.host_device
        lines += [
            f"link add {device} address {HOST_SIDE_MAC} type veth peer name eth0 netns {made.namespace(pod.alias)}",
            f"address add {GATEWAY_V6}/64 dev {device} nodad",
            f"link set {device} up",
            f"route add {pod.v4}/32 dev {device}",
            f"route add {pod.v6}/128 dev {device}",
        ]
    return lines


def _proxy_arp(blueprint: Blueprint) -> dict[str, str]:
    """The host side answers ARP for the gateway; without the usual random delay of up to 0.8 s."""
    values = {}
    for pod in blueprint.local_pods:
        values[f"ipv4/conf/{pod.host_device}/proxy_arp"] = "1"
        values[f"ipv4/neigh/{pod.host_device}/proxy_delay"] = "0"
    return values


def _pod_lines(pod: Pod) -> list[str]:
    return [
        "link set lo up",
        f"address add {pod.v4}/32 dev eth0",
        f"address add {pod.v6}/128 dev eth0 nodad",
        "link set eth0 up",
        f"route add {GATEWAY_V4} dev eth0 scope link",
        f"route add default via {GATEWAY_V4} dev eth0",
        f"route add default via {GATEWAY_V6} dev eth0",
    ]


def _world_lines(blueprint: Blueprint) -> list[str]:
    outsiders = [(one.v4, one.v6) for one in blueprint.outsiders]
    return [
        "link set lo up",
        f"address add {WORLD_V4}/24 dev eth0",
        f"address add {WORLD_V6}/64 dev eth0 nodad",
        *(f"address add {v4}/32 dev eth0" for v4, _ in outsiders),
        *(f"address add {v6}/128 dev eth0 nodad" for _, v6 in outsiders),
        "link set eth0 up",
        f"route add default via {NODE_V4} dev eth0",
        f"route add default via {NODE_V6} dev eth0",
    ]


def _curlrc(blueprint: Blueprint) -> str:
    """Cluster DNS in curl's words: a galaxy has no DNS server, and pods share the machine's /etc/hosts."""
    services = (f'resolve = "{s.dns_name}:{s.port}:{s.v4},[{s.v6}]"\n' for s in blueprint.services)
    return "".join(services) + 'noproxy = "*"\n'


def _servers(blueprint: Blueprint) -> Iterator[tuple[str, str, Sequence[int], Sequence[int]]]:
    """Where a server runs, its name, its HTTP ports and its UDP ports."""
    for pod in blueprint.local_pods:
        if pod.serves:
            yield pod.alias, pod.name, pod.serves, (UDP_ECHO_PORT, *pod.echoes)
    if blueprint.outsiders:
        served = {*HOST_PORTS, *(port for pod in blueprint.pods if pod.remote for port in pod.serves)}
        yield WORLD, WORLD, sorted(served), (UDP_ECHO_PORT,)


def _start_servers(made: Galaxy) -> None:
    for where, name, served, echoed in _servers(made.blueprint):
        ports = [argument for port in served for argument in ("--port", str(port))]
        ports += [argument for port in echoed for argument in ("--udp", str(port))]
        made.servers[where] = subprocess.Popen(
            netns.inside(made.namespace(where), [sys.executable, "-m", "conformance.deathstar", "--pod", name, *ports]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the owner, who ends them in order
        )
    deadline = time.monotonic() + SERVER_START
    for alias, server in made.servers.items():
        assert server.stdout
        ready, _, _ = select.select([server.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready or server.stdout.readline() != b"ready\n":
            raise EnvironmentFailure(f"the server of pod {alias} does not listen after {SERVER_START:.0f} s")
