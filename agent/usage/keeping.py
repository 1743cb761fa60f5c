"""The book of rule usage at work in a node: fed by the observer, settled every second, read by whoever asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from agent.from_loop import FromLoop
from agent.usage.book import Usage
from agent.usage.document import usage_document
from agent.usage.metrics import Hits, RuleHits, hits_of
from agent.views.node_view import NodeView
from flows.observer import Observer
from flows.tally import Tally

SETTLE_EVERY: Final = 1.0  # seconds


class UsageKeeping:
    """Made in the event loop. `view` gives the current view."""

    def __init__(self, observer: Observer, view: Callable[[], NodeView]) -> None:
        self._view = view
        self._usage = Usage(time.time_ns())
        self._tally = Tally(self._usage)
        observer.count(self._tally)
        self.collector = RuleHits(FromLoop(self._hits, Hits()))

    async def run(self) -> None:
        """Never ends."""
        while True:
            await asyncio.sleep(SETTLE_EVERY)
            self._settle()

    async def document(self) -> dict[str, Any]:
        """The form of `deflector policy usage -o json`."""
        self._settle()
        view = self._view()  # who is selected takes a while to find out, for a thousand policies
        return await asyncio.to_thread(usage_document, self._usage, view.policies, view.groups)

    def _settle(self) -> None:
        self._tally.settle()
        self._usage.follow(self._view(), time.time_ns())

    def _hits(self) -> Hits:
        self._settle()
        return hits_of(self._usage)
