"""One reaction to a burst: pods come up with a dozen link events each, and many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until_quiet(drain: Callable[[], bool], quiet: float, hold: float) -> None:
    """Drain a source until nothing came for `quiet` seconds, but `hold` seconds at most. `drain` takes what is there
    and says whether there was anything."""
    clock = asyncio.get_running_loop().time
    end = clock() + hold
    while clock() < end:
        await asyncio.sleep(min(quiet, end - clock()))
        if not drain():
            return
