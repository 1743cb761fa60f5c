"""A small galaxy for the data path: a node with pods in network namespaces, the way CNIs and kube-proxy lay them.

The node is a namespace of its own, so the host is not touched and galaxies can run side by side. Pods have a veth each,
/32 and /128 addresses and host routes; `world` is a machine behind the node's uplink. Sockets are made inside a
namespace and used from the test's own threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_own = os.open("/proc/self/ns/net", os.O_RDONLY)

WORLD4, WORLD6 = "203.0.113.2", "2001:db8::2"
NODE4, NODE6 = "203.0.113.1", "2001:db8::1"


def run(*words: str, text: str | None = None) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr or done.stdout}"
    return done.stdout


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """The calling thread is in the namespace; sockets and devices made here stay there."""
    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert _libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        os.close(fd)
        assert _libc.setns(_own, CLONE_NEWNET) == 0


@dataclass
class Pod:
    name: str
    namespace: str
    v4: str
    v6: str
    ifindex: int
    gateway_mac: bytes

    def address(self, family: int) -> str:
        return self.v4 if family == 4 else self.v6


@dataclass
class Galaxy:
    """Make it, `pod()` as many as needed, `close()` it; nothing is left."""

    name: str
    pods: dict[str, Pod] = field(default_factory=dict)
    _closers: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for namespace in (self.node, self.world):
            run("ip", "netns", "add", namespace)
        self.on_node("ip", "link", "set", "lo", "up")
        # a strict reverse path filter, as hardened machines have it: the data path has to cope
        strict = ("net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1")
        undetected = ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
        self.on_node("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", *strict, *undetected)
        self.on_node("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", self.world)
        self.configure(self.node, "uplink", f"{NODE4}/24", f"{NODE6}/64")
        run("ip", "-n", self.node, "route", "add", "default", "via", WORLD4)
        run("ip", "-n", self.node, "route", "add", "default", "via", WORLD6)
        run("ip", "-n", self.world, "link", "set", "lo", "up")
        self.configure(self.world, "eth0", f"{WORLD4}/24", f"{WORLD6}/64")
        run("ip", "-n", self.world, "route", "add", "10.0.0.0/8", "via", NODE4)
        run("ip", "-n", self.world, "route", "add", "fd00::/16", "via", NODE6)

    @property
    def node(self) -> str:
        return f"{self.name}-node"

    @property
    def world(self) -> str:
        return f"{self.name}-world"

    def configure(self, namespace: str, device: str, *addresses: str) -> None:
        for address in addresses:
            extra = ("nodad",) if ":" in address else ()
            run("ip", "-n", namespace, "addr", "add", address, "dev", device, *extra)
        run("ip", "-n", namespace, "link", "set", device, "up")

    def on_node(self, *words: str, text: str | None = None) -> str:
        return run("nsenter", f"--net=/run/netns/{self.node}", "--", *words, text=text)

    def pod(self, name: str) -> Pod:
        number = len(self.pods) + 2
        namespace, device = f"{self.name}-{name}", f"pod{number}"
        v4, v6 = f"10.0.0.{number}", f"fd00::{number}"
        run("ip", "netns", "add", namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        self.on_node("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self.configure(self.node, device, "169.254.1.1/32", "fe80::1/64")
        self.configure(namespace, "eth0", f"{v4}/32", f"{v6}/128")
        for family, gateway, prefix in (("-4", "169.254.1.1", f"{v4}/32"), ("-6", "fe80::1", f"{v6}/128")):
            run("ip", "-n", namespace, family, "route", "add", gateway, "dev", "eth0", "scope", "link")
            run("ip", "-n", namespace, family, "route", "add", "default", "via", gateway, "dev", "eth0")
            self.on_node("ip", family, "route", "add", prefix, "dev", device)
        index = self._index(device)
        mac = json.loads(self.on_node("ip", "-j", "link", "show", device))[0]["address"]
        self.pods[name] = Pod(name, namespace, v4, v6, index, bytes.fromhex(mac.replace(":", "")))
        return self.pods[name]

    def _index(self, device: str) -> int:
        with inside(self.node):
            return socket.if_nametoindex(device)

    def cluster_ip(self, v4: str, v6: str, port: int, pod: Pod, target: int, protocol: str = "tcp") -> None:
        """kube-proxy's part: DNAT where packets come in and where the host sends."""
        rules = "".join(
            f"add rule inet services {chain} {family} daddr {vip} {protocol} dport {port} dnat {family} to {backend}\n"
            for chain in ("prerouting", "output")
            for family, vip, backend in (("ip", v4, f"{pod.v4}:{target}"), ("ip6", v6, f"[{pod.v6}]:{target}"))
        )
        chains = "".join(
            f"add chain inet services {hook} {{ type nat hook {hook} priority -100; }}\n"
            for hook in ("prerouting", "output")
        )
        self.on_node("nft", "-f", "-", text=f"add table inet services\n{chains}{rules}")

    # --- traffic ---

    def listen(self, namespace: str, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(namespace):
            made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(64)
        self._closers.append(made.close)
        return made

    def connect(self, namespace: str, to: tuple[str, int], timeout: float = 3.0) -> socket.socket:
        family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
        with inside(namespace):
            made = socket.socket(family, socket.SOCK_STREAM)
        made.settimeout(timeout)
        try:
            made.connect(to)
        except OSError:
            made.close()
            raise
        return made

    def connect_from(self, namespace: str, source: tuple[str, int], to: tuple[str, int]) -> socket.socket:
        with inside(namespace):
            made = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(3.0)
        made.bind(source)
        made.connect(to)
        return made

    def udp(self, namespace: str, address: str, port: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(namespace):
            made = socket.socket(family, socket.SOCK_DGRAM)
        made.settimeout(3.0)
        made.bind((address, port))
        self._closers.append(made.close)
        return made

    def serve_udp(self, namespace: str, address: str, port: int, answer: Callable[[bytes, str], bytes | None]) -> None:
        """Answer datagrams for as long as the galaxy lives: `answer` is asked with what came and from whom."""
        served = self.udp(namespace, address, port)
        served.settimeout(None)

        def work() -> None:
            while True:
                try:
                    said, peer = served.recvfrom(65535)
                    reply = answer(said, peer[0])
                    if reply is not None:
                        served.sendto(reply, peer)
                except OSError:
                    return

        threading.Thread(target=work, daemon=True).start()

    def serve(self, namespace: str, address: str, port: int, answer: Callable[[socket.socket], None]) -> None:
        """Accept for as long as the galaxy lives; `answer` owns each connection, in a thread."""
        listener = self.listen(namespace, address, port)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def at_end(self, action: Callable[[], object]) -> None:
        self._closers.append(action)

    def spawn(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """A process on the node, ended with the galaxy."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.node}", "--", *words], stdout=out, stderr=subprocess.STDOUT
            )

        def end() -> None:
            process.kill()
            process.wait(10)

        self._closers.append(end)
        return process

    def close(self) -> None:
        for action in reversed(self._closers):
            action()
        for namespace in (*(p.namespace for p in self.pods.values()), self.world, self.node):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def echo(connection: socket.socket) -> None:
    """Answers whatever is said with the same: for `Galaxy.serve`."""
    with connection:
        while said := connection.recv(65536):
            connection.sendall(said)
