"""An Envoy that somebody else runs, in a container beside the agent's: what a node asks of agent.proxies.envoy."""

from __future__ import annotations

import asyncio


class Elsewhere:
    """Nothing to start, nothing to end. Whether it is there is known by its ADS stream."""

    pid: int | None = None
    restarts: int = 0

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """It stays."""
