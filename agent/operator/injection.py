"""Tells API servers to trust our own certificate: caBundle of every webhook of one ValidatingWebhookConfiguration.

Every operator puts its authority there and leaves those of others: any of them may be asked. Two that do so at once are
told by the version that they read.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.resources import WEBHOOKS
from agent.operator.certificates import bundle
from agent.operator.webhook import Certificate

AUTHORITIES_MAX: Final = 8
EVERY_SECONDS: Final = 30.0  # between looks: Helm, or a person, may have written it anew
RETRY_SECONDS: Final = 1.0

log = logging.getLogger("deflector.operator")


class Injection:
    """`name`: of the configuration. `renewed` is set when there is another certificate."""

    def __init__(self, server: ApiServer, name: str, certificate: Certificate, renewed: asyncio.Event) -> None:
        self._server = server
        self._name = name
        self._certificate = certificate
        self._renewed = renewed
        self._complaint = ""

    async def run(self) -> None:
        """See to it, for ever."""
        while True:
            wait = EVERY_SECONDS
            try:
                await self.inject()
                self._complaint = ""
            except (ApiError, Unreachable) as error:
                wait = RETRY_SECONDS if isinstance(error, ApiError) and error.is_conflict else EVERY_SECONDS
                self._complain(error)
            self._renewed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._renewed.wait()

    async def inject(self) -> bool:
        """Whether anything had to be written. Raises ApiError, Unreachable."""
        found = await self._server.get(WEBHOOKS, "", self._name)
        now, changed = datetime.now(UTC), False
        for webhook in found.get("webhooks") or ():
            config = webhook["clientConfig"]
            has = base64.b64decode(config.get("caBundle") or "")
            wanted = bundle(has, self._certificate.authority, now, AUTHORITIES_MAX)
            if wanted != has:
                config["caBundle"] = base64.b64encode(wanted).decode()
                changed = True
        if changed:
            await self._server.update(WEBHOOKS, "", found)
        return changed

    def _complain(self, error: ApiError | Unreachable) -> None:
        if isinstance(error, ApiError) and error.is_conflict:
            return
        words = str(error)
        if words != self._complaint:
            self._complaint = words
            log.warning("ValidatingWebhookConfiguration %s cannot be told of our certificate: %s", self._name, words)
