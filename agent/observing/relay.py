"""The relay as a process: made from its settings, served, watched, and stopped by a signal."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import signal

from prometheus_client import CollectorRegistry

from agent.errors import EnvironmentProblem
from agent.log import configure
from agent.supervise import Tasks
from flows.metrics.endpoint import MetricsServeError, MetricsServer
from flows.relay.figures import RelayFigures
from flows.relay.peers import Peers
from flows.relay.pool import Pool
from flows.relay.service import RelayService
from flows.relay.settings import RelaySettings
from flows.rpc.limits import Limits
from flows.rpc.methods import health_methods
from flows.rpc.server import Server
from flows.rpc.tls import ServerTls, TlsError

CALLS = 64  # open at once: each is one at every node, and a node lets one connection have a hundred
STOP_GRACE = 0.5  # seconds that streams have when the server stops
log = logging.getLogger("deflector.relay")


async def run_relay(settings: RelaySettings) -> int:
    """Run until SIGINT or SIGTERM; the exit code. Raises EnvironmentProblem when it cannot start."""
    configure()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    relay = Relay(settings)
    try:
        await relay.start()
        log.info("relay: serving %s, told of nodes by %s", settings.listen, settings.peer_service)
        await stop.wait()
    finally:
        await relay.stop()
    return 0


class Relay:
    """Raises EnvironmentProblem for what a person has to correct."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._tasks = Tasks()
        self._peers = Peers(settings.service, settings.tls, log.warning, settings.retry)
        self._pool = Pool(lambda: self._peers.known, settings.tls)
        service = RelayService(self._peers, self._pool, settings.name, importlib.metadata.version("deflector"))
        self._server = Server(service.methods(), Limits(calls=CALLS))
        self._health = Server(health_methods(service.is_healthy))
        self._registry = CollectorRegistry()
        self._registry.register(RelayFigures(self._peers, self._pool, lambda: self._server.calls))
        self._page: MetricsServer | None = None
        try:
            self._tls = ServerTls(settings.server_tls, log.warning) if settings.server_tls is not None else None
            if settings.tls is not None:
                settings.tls.credentials()
        except TlsError as error:
            raise EnvironmentProblem(f"certificate of the relay: {error}") from None
        except OSError as error:
            raise EnvironmentProblem(f"certificate for nodes: {error.filename}: {error.strerror}") from None

    @property
    def port(self) -> int:
        """Where it listens, if that is TCP."""
        return self._server.ports[0]

    async def start(self) -> None:
        """Serve, and follow the nodes."""
        settings = self._settings
        await self._listen(self._server, settings.listen, self._tls, "--listen-address")
        if settings.health:
            await self._listen(self._health, settings.health, None, "--health-listen-address")
        if settings.metrics:
            try:
                self._page = MetricsServer(settings.metrics, self._registry)
            except MetricsServeError as error:
                raise EnvironmentProblem(f"{error} (--metrics-listen-address)") from None
            self._page.start()
        self._tasks.start("peer service", self._peers.follow())

    async def _listen(self, server: Server, address: str, tls: ServerTls | None, option: str) -> None:
        try:
            await server.listen(address, tls)
        except (OSError, ValueError, OverflowError):
            raise EnvironmentProblem(f"cannot serve on {address}: in use or not permitted ({option})") from None

    async def stop(self) -> None:
        """Serve no more."""
        await self._tasks.stop()
        await asyncio.gather(self._server.stop(STOP_GRACE), self._health.stop(STOP_GRACE))
        if self._page is not None:
            await asyncio.to_thread(self._page.stop)
        await self._pool.close()
