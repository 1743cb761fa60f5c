"""Events of the kernel's ring buffer to flows; what the kernel could not write is told as lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from agent.node.wiring import packet_record
from bpf.constants import Counter
from bpf.datapath import Datapath, DatapathError
from flows.observer import Observer

EVENTS_AT_ONCE = 1024  # kernel events taken before others get their turn
CAUSES = {Counter.EVENTS_LOST: "lost", Counter.EVENTS_BOUNDED: "bounded"}


class KernelEvents:
    """`follow` is for a task. `lost`: events that the kernel had no room for; `on_lost` hears of more of them."""

    def __init__(self, datapath: Datapath, observer: Observer, on_lost: Callable[[int], None]) -> None:
        self._datapath, self._observer, self._on_lost = datapath, observer, on_lost
        self.lost = 0

    async def follow(self) -> None:
        """Never ends."""
        ring = self._datapath.events
        async for _ in readable(ring.fileno()):
            while events := ring.read(EVENTS_AT_ONCE):
                self._observer.packets([record for record in map(packet_record, events) if record is not None])
                self._tell_losses()
                await asyncio.sleep(0)

    def untold(self) -> Mapping[str, int]:
        """Events that were not told, by cause."""
        try:
            return {CAUSES[counter]: count for counter, count in self._datapath.counters().items()}
        except DatapathError:  # not open yet, or not any more
            return {}

    def _tell_losses(self) -> None:
        lost = self._datapath.counters().get(Counter.EVENTS_LOST, 0)
        if lost > self.lost:
            self._observer.lost(lost - self.lost)
            self._on_lost(lost - self.lost)
        self.lost = lost


async def readable(fd: int) -> AsyncIterator[None]:
    """Yield at once, and then whenever the descriptor is readable."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        while True:
            yield
            ready.clear()
            await ready.wait()
    finally:
        loop.remove_reader(fd)
