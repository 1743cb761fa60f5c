"""Our own proxies as processes of their own: there while some slot needs them, and a while longer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

from agent.config import RunDir
from agent.proxies.supervised import Program, Supervised
from xds.l7 import DNS_PROXY, KAFKA_PROXY

IDLE_SECONDS: Final = 60.0  # a policy that is edited may need it again at once
NAMES: Final = {DNS_PROXY: "the DNS proxy", KAFKA_PROXY: "the Kafka proxy"}


class OwnProxy(Supervised):
    """One of our proxies, by the cluster as which it asks (xds.l7), which is the name of its command as well."""

    def __init__(
        self, consumer: str, files: RunDir, node_name: str, on_change: Callable[[str], None], *options: str
    ) -> None:
        """`options` of its command, beside those that say where it is."""
        own = files.proxy(consumer)
        command = [
            *(sys.executable, "-P", "-m", "agent", consumer),
            *("--run-dir", str(files.root), "--node-name", node_name),
            *options,
        ]
        super().__init__(Program(NAMES[consumer], own.pid, own.log, lambda: command), on_change)
        self._own = own
        self._is_needed = False
        self._changed = asyncio.Event()

    def need(self, is_needed: bool) -> None:
        """Whether some slot is this proxy's."""
        if is_needed != self._is_needed:
            self._is_needed = is_needed
            self._changed.set()

    @property
    def is_needed(self) -> bool:
        """Whether it should be there."""
        return self._is_needed

    async def run(self) -> None:
        """Keep one alive while it is needed, until cancelled. Cancelling leaves it running: `stop` ends it."""
        self.adopt()
        while True:
            if self.pid is None:
                await self._until(True)
            async with asyncio.TaskGroup() as group:
                living = group.create_task(super().run())
                await self._idle()
                living.cancel()
            await self.stop()

    def forget(self) -> None:
        """Remove what it leaves behind for its next life: there is none."""
        for path in (self._own.log, self._own.last_told):
            path.unlink(missing_ok=True)

    async def _until(self, is_needed: bool) -> None:
        while self._is_needed is not is_needed:
            await self._changed.wait()
            self._changed.clear()

    async def _idle(self) -> None:
        """Until nobody has needed it for a while."""
        while True:
            await self._until(False)
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._until(True)
            except TimeoutError:
                return
