"""Who the nodes are: the peer service's notifications, followed for ever. Also how to reach one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from peer import peer_pb2, peer_pb2_grpc

from flows.channels import MESSAGE_MAX, UNIX, ClientTls

PORT: Final = 4244  # of a node whose address says none
RECONNECT_MS: Final = 5000  # between two attempts to reach a node at most; gRPC's own two minutes are long to be blind
RETRY_FIRST, RETRY_MAX = 1.0, 30.0  # seconds between attempts to reach the peer service; 30 is Hubble's
SETTLE: Final = 2.0  # seconds after which a new stream of notifications has named every node


class RelayError(Exception):
    """The relay cannot work as it is configured; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node. `server_name` is what its certificate must say; "" if its server speaks no TLS."""

    name: str
    address: str
    server_name: str = ""


def channel(address: str, server_name: str, tls: ClientTls | None) -> grpc.aio.Channel:
    """A channel to a node or a peer service; Unix sockets never speak TLS. Raises RelayError."""
    options = [
        ("grpc.max_receive_message_length", MESSAGE_MAX),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
    ]
    if tls is None or address.startswith(UNIX):
        if server_name and not address.startswith(UNIX):
            raise RelayError(f"unexpected TLS ServerName {server_name} for {address}: the relay has no TLS files")
        return grpc.aio.insecure_channel(_target(address), options=options)
    if not server_name:
        raise RelayError(f"missing TLS ServerName for {address}: its server speaks no TLS, the relay does")
    try:
        credentials = tls.credentials()
    except OSError as error:
        raise RelayError(f"{error.filename}: {error.strerror}") from None
    named = [*options, ("grpc.ssl_target_name_override", server_name)]
    return grpc.aio.secure_channel(_target(address), credentials, options=named)


def _target(address: str) -> str:
    if address.startswith(UNIX):
        return address
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and (":" not in host or host.startswith("[")):
        return address
    return f"[{address}]:{PORT}" if ":" in address and not address.startswith("[") else f"{address}:{PORT}"


class Peers:
    """The nodes as the peer service last told of them; what it told stays while it cannot be reached."""

    def __init__(
        self,
        service: Peer,
        tls: ClientTls | None,
        complain: Callable[[str], None],
        retry: float = RETRY_MAX,
    ) -> None:
        """`retry`: seconds between two attempts to reach the service at most."""
        self._service, self._tls, self._complain, self._retry = service, tls, complain, retry
        self._known: dict[str, Peer] = {}
        self.is_connected = False

    @property
    def known(self) -> Mapping[str, Peer]:
        """Nodes by name."""
        return self._known

    async def follow(self) -> None:
        """Never ends."""
        first = min(RETRY_FIRST, self._retry)
        pause, told = first, ""
        while True:
            try:
                await self._follow_once()
                reason = "the stream ended"
                pause = first
            except (grpc.aio.AioRpcError, RelayError) as error:
                reason = error.details() or error.code().name if isinstance(error, grpc.aio.AioRpcError) else str(error)
            self.is_connected = False
            if reason != told:
                self._complain(f"peer service {self._service.address}: {reason}; trying again")
                told = reason
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, self._retry)

    async def _follow_once(self) -> None:
        """One stream. It begins with every node there is, so what it has not named after SETTLE is gone."""
        fresh: dict[str, Peer] = {}
        settled = asyncio.get_running_loop().call_later(SETTLE, self._settle, fresh)
        try:
            async with channel(self._service.address, self._service.server_name, self._tls) as connected:
                stub = peer_pb2_grpc.PeerStub(connected)  # type: ignore[no-untyped-call]
                async for notification in stub.Notify(peer_pb2.NotifyRequest()):
                    self.is_connected = True
                    _take(notification, fresh)
                    _take(notification, self._known)
        finally:
            settled.cancel()

    def _settle(self, fresh: dict[str, Peer]) -> None:
        if self.is_connected:
            self._known = fresh


def _take(notification: peer_pb2.ChangeNotification, into: dict[str, Peer]) -> None:
    name = notification.name
    if notification.type == peer_pb2.PEER_DELETED:
        into.pop(name, None)
    elif notification.type in (peer_pb2.PEER_ADDED, peer_pb2.PEER_UPDATED):
        into[name] = Peer(name, notification.address, notification.tls.server_name)
