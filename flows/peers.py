"""The nodes of the cluster, for whoever asks to be told of them: Hubble's peer service (facts 2.4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from peer import peer_pb2

from flows.rpc.call import Call

PEER: Final = peer_pb2.DESCRIPTOR.services_by_name["Peer"].full_name
TLS_DOMAIN: Final = "hubble-grpc.cilium.io"


@dataclass(frozen=True, slots=True)
class PeerNode:
    """A node: `name` as in flows, `address` of its Hubble API; `server_name` is "" if that speaks no TLS."""

    name: str
    address: str
    server_name: str = ""


def server_name(node: str, cluster: str) -> str:
    """What the certificate of a node's Hubble API must say. Dots would make levels that a wildcard does not span."""
    return f"{node.replace('.', '-')}.{cluster.replace('.', '-')}.{TLS_DOMAIN}"


class PeerBook:
    """The nodes as they are now; readers are told what has changed since they were told last."""

    def __init__(self, nodes: Iterable[PeerNode] = ()) -> None:
        self._nodes: dict[str, PeerNode] = {}
        self._news = asyncio.Event()
        self.update(nodes)

    def __getitem__(self, name: str) -> PeerNode:
        return self._nodes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def update(self, nodes: Iterable[PeerNode]) -> None:
        """These are the nodes."""
        found = {node.name: node for node in sorted(nodes, key=lambda node: node.name)}
        if found != self._nodes:
            self._nodes = found
            news, self._news = self._news, asyncio.Event()
            news.set()

    async def changes(self) -> AsyncGenerator[list[peer_pb2.ChangeNotification], None]:
        """Every node, then what changes; never ends. Who reads slowly is told of the last state only."""
        told: dict[str, PeerNode] = {}
        while True:
            news, now = self._news, self._nodes
            if batch := _changes(told, now):
                yield batch
            told = now
            await news.wait()

    async def notify(self, call: Call) -> None:
        """The method Notify."""
        await call.message()
        async with aclosing(self.changes()) as batches:
            async for batch in batches:
                await call.send([one.SerializeToString() for one in batch])


def _changes(before: dict[str, PeerNode], after: dict[str, PeerNode]) -> list[peer_pb2.ChangeNotification]:
    gone = [_notification(peer_pb2.PEER_DELETED, node) for name, node in before.items() if name not in after]
    new = [
        _notification(peer_pb2.PEER_UPDATED if name in before else peer_pb2.PEER_ADDED, node)
        for name, node in after.items()
        if before.get(name) != node
    ]
    return gone + new


def _notification(kind: peer_pb2.ChangeNotificationType, node: PeerNode) -> peer_pb2.ChangeNotification:
    made = peer_pb2.ChangeNotification(name=node.name, address=node.address, type=kind)
    if node.server_name:
        made.tls.server_name = node.server_name
    return made
