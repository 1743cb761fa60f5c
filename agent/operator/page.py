"""/metrics, /healthz and /readyz, by HTTP. What is collected is collected in the loop: nothing is ever half changed."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from agent.errors import EnvironmentProblem


class Page:
    """`ready` says what keeps us from being of use, "" if nothing does. Alive is who answers."""

    def __init__(self, address: str, registry: CollectorRegistry, ready: Callable[[], str]) -> None:
        self._address = address
        self._registry = registry
        self._ready = ready
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._runner is not None
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Answer from now on. Raises EnvironmentProblem."""
        host, _, port = self._address.rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            raise EnvironmentProblem(f"metrics address {self._address}: is no HOST:PORT; choose another")
        app = web.Application(client_max_size=1 << 10)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host.strip("[]") or None, int(port)).start()
        except OSError as error:
            await self._runner.cleanup()
            words = (error.strerror or str(error)).lower()
            raise EnvironmentProblem(f"metrics address {self._address}: {words}; choose another") from None

    async def stop(self) -> None:
        """Answer no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        lack = self._ready()
        return web.Response(status=503 if lack else 200, text=f"{lack or 'ok'}\n")
