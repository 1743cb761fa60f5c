"""Makers for stories about policies: pods and policies in few words, and the whole way from YAML to the IR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from policies.compiling.compiler import Compiled, Compiler
from policies.compiling.identity import IdentityAllocator
from policies.compiling.slots import SlotBook, assign
from policies.errors import PolicyError
from policies.ir import NodePolicy
from policies.objects import PodKey
from policies.repository import Repository

HOST = ("192.0.2.1", "2001:db8::1")
FIRST_LINK = 10  # interface index of the first local pod's veth


def pod(name: str, ip: str | Sequence[str], namespace: str = "default", **labels: str) -> dict[str, Any]:
    """A running pod. Underscores in label keys stand for dashes."""
    addresses = [ip] if isinstance(ip, str) else list(ip)
    with_dashes = {key.replace("_", "-"): value for key, value in labels.items()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": with_dashes},
        "status": {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": a} for a in addresses]},
    }


def policy(
    name: str, *, subject: Any = None, namespace: str = "default", specs: Any = None, **spec: Any
) -> dict[str, Any]:
    """A policy whose spec has these fields; `subject` is its endpointSelector: matchLabels, or a whole selector."""
    body: dict[str, Any] = {"endpointSelector": selector(subject or {}), **spec}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        **({"specs": specs} if specs is not None else {"spec": body}),
    }


def selector(labels: Mapping[str, Any]) -> dict[str, Any]:
    """matchLabels from plain labels; what is a selector already stays."""
    is_whole = not labels or labels.keys() & {"matchLabels", "matchExpressions"}
    return dict(labels) if is_whole else {"matchLabels": dict(labels)}


def peers(*labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """fromEndpoints or toEndpoints."""
    return [selector(item) for item in labels]


def to_ports(*ports: str, protocol: str | None = "TCP", http: Any = None) -> dict[str, Any]:
    """One entry of toPorts; a port is "80" or "80-90"."""
    written = []
    for port in ports:
        first, _, last = port.partition("-")
        entry: dict[str, Any] = {"port": first, **({"endPort": int(last)} if last else {})}
        written.append(entry | ({"protocol": protocol} if protocol else {}))
    return {"ports": written, **({"rules": {"http": http}} if http is not None else {})}


def manifest(*objects: Mapping[str, Any]) -> str:
    """The text of a manifest file."""
    return yaml.dump_all(objects, sort_keys=False)


@dataclass
class Node:
    """A node under test: apply files, look at what is compiled. `local`: pods on it; all pods by default."""

    local: Mapping[PodKey, int] | None = None
    host: Sequence[str] = HOST
    repository: Repository = field(default_factory=Repository)
    identities: IdentityAllocator = field(default_factory=IdentityAllocator)
    book: SlotBook = field(default_factory=SlotBook)
    revision: int = 0

    def __post_init__(self) -> None:
        self.compiler = Compiler(self.identities)

    def apply(self, *objects: Mapping[str, Any], file: str = "all.yaml") -> tuple[PolicyError, ...]:
        """Replace the file's content by these objects; what is wrong with it."""
        return self.repository.replace(file, manifest(*objects)).errors

    def compile(self) -> Compiled:
        """The IR without slots."""
        self.revision += 1
        world = self.repository.world()
        pods = [key for key, found in world.pods.items() if not found.host_network and not found.is_over]
        local = self.local if self.local is not None else {key: FIRST_LINK + i for i, key in enumerate(sorted(pods))}
        compiled = self.compiler.compile(world, local, self.host, self.revision)
        compiled.node.validate()
        return compiled

    def assigned(self) -> NodePolicy:
        """The IR with slots, the book kept."""
        node, self.book = assign(self.compile().node, self.book)
        node.validate()
        return node

    def group(self, name: str, namespace: str = "default") -> int:
        """The identity of a pod, after `compile`."""
        return next(e.group for e in self.compile().node.endpoints if (e.namespace, e.name) == (namespace, name))


def node_from(manifests: str) -> NodePolicy:
    """The IR, slots included, of a fresh node with all these pods. Raises PolicyErrors' text for a refused object."""
    node = Node()
    errors = node.repository.replace("test.in.yaml", manifests).errors
    if errors:
        raise AssertionError("\n".join(map(str, errors)))
    return node.assigned()
