"""One connection to each node, made when it is first needed and kept while the node is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import grpc
import grpc.aio

from flows.relay.peers import ClientTls, Peer, RelayError, channel

READY_WAIT: Final = 1.0  # seconds that a node has to be connected when somebody asks


class Pool:
    """`peers` gives the nodes as they are now."""

    def __init__(self, peers: Callable[[], Mapping[str, Peer]], tls: ClientTls | None) -> None:
        self._peers, self._tls = peers, tls
        self._channels: dict[Peer, grpc.aio.Channel] = {}

    async def connected(self) -> tuple[dict[Peer, grpc.aio.Channel], dict[Peer, str]]:
        """The nodes that are connected, and why the others are not; sorted by name."""
        peers = [peer for _, peer in sorted(self._peers().items())]
        await self._forget_all_but(peers)
        reasons = await asyncio.gather(*(self._reach(peer) for peer in peers))
        up = {peer: self._channels[peer] for peer, reason in zip(peers, reasons, strict=True) if not reason}
        return up, {peer: reason for peer, reason in zip(peers, reasons, strict=True) if reason}

    async def close(self) -> None:
        """Close every connection."""
        await self._forget_all_but([])

    async def _reach(self, peer: Peer) -> str:
        """Why the node is not connected; "" if it is."""
        try:
            if peer not in self._channels:
                self._channels[peer] = channel(peer.address, peer.server_name, self._tls)
            async with asyncio.timeout(READY_WAIT):
                await self._channels[peer].channel_ready()
        except RelayError as error:
            return str(error)
        except TimeoutError:
            return f"no connection to {peer.address}"
        return ""

    async def _forget_all_but(self, peers: list[Peer]) -> None:
        for peer in self._channels.keys() - set(peers):
            await self._channels.pop(peer).close()
