"""Who the nodes are: this one (host), others (remote-node), those that run the API server (facts 2.4, 2.5). Pure.

Nodes are known by Node objects, by pods on their network, and, for this one, by its own addresses. With node labels to
be selected, another node has an identity of its own, of its labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from policies.compiling.identity import IdentitiesExhausted, IdentityAllocator, Scope
from policies.compiling.selections import SelectorCache
from policies.errors import PolicyError, Reason
from policies.labels import API_SERVER_LABEL, NODE, RESERVED, Label
from policies.objects import EndpointSlice, Node, Pod, PodKey
from policies.types import (
    IDENTITY_HOST,
    IDENTITY_KUBE_APISERVER,
    IDENTITY_REMOTE_NODE,
    IDENTITY_UNMANAGED,
    RESERVED_LABELS,
)

REMOTE_LABEL: Final = f"{RESERVED}:remote-node"
_API_SERVICE: Final = PodKey("default", "kubernetes")
Labels = tuple[str, ...]


def api_servers(slices: Mapping[PodKey, EndpointSlice]) -> frozenset[str]:
    """Addresses of the API server: what is behind the service default/kubernetes."""
    return frozenset(
        address
        for piece in slices.values()
        if (piece.namespace, piece.service) == _API_SERVICE
        for backend in piece.backends
        for address in backend.addresses
    )


class Nodes:
    """Address -> identity, for addresses of nodes. `own_name`: this node's; "" if it has none."""

    def __init__(
        self, identities: IdentityAllocator, selectors: SelectorCache, *, own_name: str, with_labels: bool
    ) -> None:
        self.identities: Mapping[str, int] = {}  # replaced when it changes
        self.errors: tuple[PolicyError, ...] = ()
        self._allocator = identities
        self._selectors = selectors
        self._own_name = own_name
        self._with_labels = with_labels
        self._pods: dict[PodKey, Pod] = {}
        self._in_use: set[int] = set()
        self._seen: tuple[object, ...] = ()
        self._host_labels = RESERVED_LABELS[IDENTITY_HOST]
        self._is_first = True

    def set_pod(self, key: PodKey, pod: Pod | None) -> None:
        """A pod on its node's network came or changed; None: there is no such pod now."""
        known = self._pods.get(key)
        if known is pod:
            return
        if pod is None:
            del self._pods[key]
        else:
            self._pods[key] = pod
        self._seen = ()

    def take(self, nodes: Mapping[str, Node], servers: frozenset[str], own_addresses: Iterable[str]) -> None:
        """Follow the Node objects, the API server's addresses and this node's own."""
        own = frozenset(own_addresses)
        if self._seen and nodes is self._seen[0] and (servers, own) == self._seen[1:]:
            return
        self._seen = (nodes, servers, own)
        labels = dict(self._others(nodes, servers))
        hosts = {*own, *self._addresses_here(nodes)}
        others = {address: of for address, of in labels.items() if address not in hosts}
        numbers = self._number(set(others.values()))
        self.identities = {address: numbers[of] for address, of in others.items()} | dict.fromkeys(hosts, IDENTITY_HOST)
        self._relabel_host(is_api_server=not servers.isdisjoint(hosts))

    def _addresses_here(self, nodes: Mapping[str, Node]) -> Iterator[str]:
        if self._own_name:
            yield from (a for node in nodes.values() if node.name == self._own_name for a in node.addresses)
            yield from (a for pod in self._pods.values() if pod.node_name == self._own_name for a in pod.addresses)

    def _others(self, nodes: Mapping[str, Node], servers: frozenset[str]) -> Iterator[tuple[str, Labels]]:
        """Every known address of a node, with the labels that it has if it is another one."""
        of_node = {a: node for node in sorted(nodes.values(), key=lambda node: node.name) for a in node.addresses}
        for address in {*of_node, *(a for pod in self._pods.values() for a in pod.addresses)}:
            labels = {REMOTE_LABEL, API_SERVER_LABEL} if address in servers else {REMOTE_LABEL}
            if self._with_labels and (node := of_node.get(address)) is not None:
                labels |= {str(Label(NODE, key, value)) for key, value in node.labels.items()}
            yield address, tuple(sorted(labels))

    def _number(self, label_sets: set[Labels]) -> Mapping[Labels, int]:
        numbers = {tuple(sorted(RESERVED_LABELS[n])): n for n in (IDENTITY_REMOTE_NODE, IDENTITY_KUBE_APISERVER)}
        wanted = sorted(label_sets - numbers.keys())
        before = set(self._allocator.in_use(Scope.NODE)) if self._is_first else self._in_use
        self._is_first = False
        kept = {number for labels in wanted if (number := self._allocator.number(labels, Scope.NODE)) is not None}
        for number in sorted(before - kept):
            self._allocator.release(number)
            self._selectors.remove(number)
        self._in_use, failed = set(), []
        for labels in wanted:
            try:
                numbers[labels] = self._allocator.allocate(labels, Scope.NODE)
            except IdentitiesExhausted:
                numbers[labels] = IDENTITY_UNMANAGED
                message = "nodes with these labels are denied wherever policy is enforced"
                failed.append(PolicyError("Node", "", ", ".join(labels), "", Reason.NO_IDENTITY, message))
                continue
            self._in_use.add(numbers[labels])
            self._selectors.add(numbers[labels], labels)
        self.errors = tuple(failed)
        return numbers

    def _relabel_host(self, *, is_api_server: bool) -> None:
        """Where this node runs the API server, the host is that too."""
        own = RESERVED_LABELS[IDENTITY_HOST]
        wanted = (API_SERVER_LABEL, *own) if is_api_server else own
        if wanted != self._host_labels:
            self._host_labels = wanted
            self._selectors.remove(IDENTITY_HOST)
            self._selectors.add(IDENTITY_HOST, wanted)
