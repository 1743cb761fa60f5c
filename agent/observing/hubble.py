"""The Hubble API of a node: where it listens, with which certificates, and which nodes it tells of."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agent.config import Config
from agent.errors import EnvironmentProblem
from flows.observer import Observer
from flows.peers import PeerBook, PeerNode, server_name
from flows.rpc.server import Server
from flows.rpc.tls import ServerTls, TlsError
from flows.server import ServeError, start
from policies.world import World

ANY = ("", "0.0.0.0", "::")
log = logging.getLogger("deflector.hubble")


class HubbleApi:
    """Raises EnvironmentProblem for files that cannot be used."""

    def __init__(self, config: Config, observer: Observer) -> None:
        self._config, self._observer = config, observer
        self._socket = config.run_dir.hubble_socket
        self._host, _, self._port = config.hubble_address.rpartition(":")
        self._host = self._host.removeprefix("[").removesuffix("]")
        self._peers = PeerBook()
        try:
            self._tls = ServerTls(config.hubble_tls, log.warning) if config.hubble_tls is not None else None
        except TlsError as error:
            raise EnvironmentProblem(f"certificate of the Hubble API: {error}") from None
        self.take(World(), ())

    async def start(self) -> Server:
        """Serve; whoever called stops it. Raises EnvironmentProblem."""
        addresses = [f"unix://{self._socket}", self._config.hubble_address]
        try:
            return await start(self._observer, addresses, self._peers, self._tls)
        except ServeError as error:
            self._socket.unlink(missing_ok=True)
            raise EnvironmentProblem(f"{error} (--hubble-address)") from None

    def take(self, world: World, host_addresses: Sequence[str]) -> None:
        """The nodes that there are now, and the addresses of this one."""
        own = self._config.node_name
        addresses = {name: node.addresses[0] for name, node in world.nodes.items() if node.addresses}
        if self._host not in ANY:
            addresses[own] = self._host
        elif own not in addresses:
            addresses[own] = next(iter(host_addresses), "127.0.0.1")
        self._peers.update(self._peer(name, address) for name, address in addresses.items())

    def _peer(self, name: str, address: str) -> PeerNode:
        cluster = self._config.modes.cluster
        at = f"[{address}]:{self._port}" if ":" in address else f"{address}:{self._port}"
        shown = server_name(name, cluster) if self._tls is not None else ""
        return PeerNode(self._config.name_in_flows(name), at, shown)
