"""The validating admission webhook: HTTPS by aiohttp, one address, requests of bounded size and number.

It judges in the loop: a policy is read in a millisecond. Every operator answers, not only the one that leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import Final, Protocol

import msgspec
from aiohttp import web

from agent.errors import EnvironmentProblem
from agent.operator.admission import NoReview, answer

PATH: Final = "/validate"
REQUEST_MAX: Final = 8 << 20  # bytes: an object of etcd's 1.5 MiB and the one before it, in JSON
AT_ONCE: Final = 64
READ_SECONDS: Final = 10.0  # API servers wait for ten by default
LOOK_SECONDS: Final = 10.0  # between looks at the certificate's files
_JSON: Final = msgspec.json.Decoder()

log = logging.getLogger("deflector.operator")


class Certificate(Protocol):
    """agent.operator.certificates has two."""

    def renew(self) -> bool: ...
    @property
    def context(self) -> object: ...
    @property
    def authority(self) -> bytes: ...


class Webhook:
    """`answered` counts reviews: allowed, refused, malformed, busy."""

    def __init__(self, port: int, certificate: Certificate) -> None:
        self.answered: Counter[str] = Counter()
        self._port = port
        self._certificate = certificate
        self._under_way = 0
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._runner is not None
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Answer from now on. Raises EnvironmentProblem."""
        app = web.Application(client_max_size=REQUEST_MAX)
        app.router.add_post(PATH, self._validate)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=75.0)
        await self._runner.setup()
        context = self._certificate.context
        try:
            await web.TCPSite(self._runner, None, self._port, ssl_context=context).start()  # type: ignore[arg-type]
        except OSError as error:
            await self._runner.cleanup()
            words = (error.strerror or str(error)).lower()
            raise EnvironmentProblem(f"webhook port {self._port}: {words}; choose another --webhook-port") from None
        log.info("webhook: answering at port %d, %s", self.port, PATH)

    async def stop(self) -> None:
        """Answer no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _validate(self, request: web.Request) -> web.Response:
        if self._under_way >= AT_ONCE:
            self.answered["busy"] += 1
            return web.Response(status=429, text=f"{AT_ONCE} reviews are under way\n")
        self._under_way += 1
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await request.read()
            response = answer(_JSON.decode(body))
        except (NoReview, msgspec.DecodeError) as error:
            self.answered["malformed"] += 1
            return web.Response(status=400, text=f"{error}\n")
        except TimeoutError:
            self.answered["malformed"] += 1
            return web.Response(status=408, text="the request did not come whole in time\n")
        finally:
            self._under_way -= 1
        self.answered["allowed" if response["response"]["allowed"] else "refused"] += 1
        return web.Response(body=msgspec.json.encode(response), content_type="application/json")

    async def follow(self, renewed: asyncio.Event) -> None:
        """Look after the certificate, for ever."""
        while True:
            with suppress(TimeoutError):
                await asyncio.sleep(LOOK_SECONDS)
            if self._certificate.renew():
                log.info("webhook: another certificate is in use")
                renewed.set()
