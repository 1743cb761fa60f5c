"""One connection to each node, made when it is first needed and kept while the node is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from flows.channels import ClientTls
from flows.relay.peers import Peer, RelayError, channel

READY_WAIT: Final = 1.0  # seconds that a node has to be connected when somebody asks


def is_cancelled() -> bool:
    """Whether it is this task that somebody has cancelled: gRPC cancels calls, and not tasks, when it closes a channel,
    and both look the same from within."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@dataclass(slots=True)
class _Link:
    """`shown`: the certificate files as they were when it was made; `is_trusted`: it is worth waiting for."""

    channel: grpc.aio.Channel
    shown: object
    is_trusted: bool = True


class Pool:
    """`peers` gives the nodes as they are now."""

    def __init__(self, peers: Callable[[], Mapping[str, Peer]], tls: ClientTls | None) -> None:
        self._peers, self._tls = peers, tls
        self._links: dict[Peer, _Link] = {}

    async def connected(self) -> tuple[dict[Peer, grpc.aio.Channel], dict[Peer, str]]:
        """The nodes that are connected, and why the others are not; sorted by name.

        A node is waited for when it is new or was connected before; one that has kept somebody waiting is not.
        """
        peers = [peer for _, peer in sorted(self._peers().items())]
        await self._forget_all_but(peers)
        reasons = await asyncio.gather(*(self._reach(peer) for peer in peers))
        pairs = list(zip(peers, reasons, strict=True))
        up = {peer: self._links[peer].channel for peer, why in pairs if not why and peer in self._links}
        return up, {peer: why or "the node has gone" for peer, why in pairs if peer not in up}

    def states(self) -> dict[str, int]:
        """How many connections are in each of gRPC's states."""
        counts = {state.name: 0 for state in grpc.ChannelConnectivity}
        for link in self._links.values():
            counts[link.channel.get_state().name] += 1
        return counts

    async def close(self) -> None:
        """Close every connection."""
        await self._forget_all_but([])

    async def _reach(self, peer: Peer) -> str:
        """Why the node is not connected; "" if it is."""
        try:
            link = await self._link(peer)
            if link.channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
                if not link.is_trusted:
                    return f"no connection to {peer.address}"
                async with asyncio.timeout(READY_WAIT):
                    await link.channel.channel_ready()
        except RelayError as error:
            return str(error)
        except (TimeoutError, asyncio.InvalidStateError, grpc.aio.UsageError):  # the latter two: closed meanwhile
            link.is_trusted = False
            return f"no connection to {peer.address}"
        link.is_trusted = True
        return ""

    async def _link(self, peer: Peer) -> _Link:
        """The node's connection, made anew when it is broken and there are other certificates to show."""
        shown = self._tls.fingerprint() if self._tls is not None else None
        link = self._links.get(peer)
        if link is not None and link.shown != shown and link.channel.get_state() is not grpc.ChannelConnectivity.READY:
            del self._links[peer]
            await link.channel.close()
            link = None
        if link is None:
            link = self._links[peer] = _Link(channel(peer.address, peer.server_name, self._tls), shown)
        return link

    async def _forget_all_but(self, peers: list[Peer]) -> None:
        for peer in self._links.keys() - set(peers):
            await self._links.pop(peer).channel.close()
