"""What a relay is told by whoever starts it, and its parts made from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flows.channels import UNIX, ClientTls
from flows.peers import server_name
from flows.relay.peers import RETRY_MAX, Peer
from flows.rpc.tls import TlsFiles

PEER_SERVICE: Final = "hubble-peer"


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """`tls` is how nodes are reached, `server_tls` what clients are shown; None: not at all. Addresses: "" for none."""

    peer_service: str
    listen: str
    name: str  # of the relay, in events about nodes
    cluster: str
    tls: ClientTls | None = None
    server_tls: TlsFiles | None = None
    retry: float = RETRY_MAX  # seconds
    health: str = ""
    metrics: str = ""

    @property
    def service(self) -> Peer:
        """The peer service; it has a name of its own in the cluster's certificates."""
        secure = self.tls is not None and not self.peer_service.startswith(UNIX)
        return Peer(PEER_SERVICE, self.peer_service, server_name(PEER_SERVICE, self.cluster) if secure else "")
