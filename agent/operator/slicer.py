"""Brings slices of endpoints to the server: what gathers in half a second is one write per slice."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any, Final

from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.resources import CILIUM_ENDPOINT_SLICES
from agent.operator.pen import NotLeading, Pen
from agent.operator.slicing import Slice, Slicing, entry_of
from policies.objects import PodKey

GATHER_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 2.0

log = logging.getLogger("deflector.operator")


class Slicer:
    """`run` writes what `slicing` says is dirty."""

    def __init__(self, pen: Pen) -> None:
        self.slicing = Slicing(lambda: f"ces-{uuid.uuid4().hex[:12]}")
        self._pen = pen
        self._news = asyncio.Event()
        self._may_write = asyncio.Event()

    def endpoint(self, key: PodKey, raw: dict[str, Any] | None) -> None:
        """An endpoint is like this, or gone."""
        self.slicing.update(key, entry_of(key, raw) if raw is not None else None)
        self._news.set()

    def slice(self, raw: dict[str, Any]) -> None:
        """The server has this slice."""
        self.slicing.seen(raw)
        self._news.set()

    def slice_gone(self, name: str) -> None:
        self.slicing.gone(name)
        self._news.set()

    def complete(self, endpoints: dict[PodKey, dict[str, Any]]) -> None:
        """Everything has been told once: from now on slices are made as they should be."""
        if not self._may_write.is_set():
            self.slicing.keep_only(endpoints)
            self._may_write.set()

    async def run(self) -> None:
        """Write, for ever."""
        await self._may_write.wait()
        while True:
            await self._news.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._news.clear()
            for name in sorted(self.slicing.dirty):
                if (found := self.slicing.slices.get(name)) is not None and not await self._write(found):
                    await asyncio.sleep(RETRY_SECONDS)
                    self._news.set()

    async def _write(self, found: Slice) -> bool:
        """Whether it is done, or will come back by itself."""
        resource = CILIUM_ENDPOINT_SLICES
        self.slicing.dirty.discard(found.name)
        try:
            if not found.entries:
                if found.version:
                    await self._pen.delete(resource, "", found.name, uid=found.uid, version=found.version)
                self.slicing.forget(found.name)
                return True
            told = await (
                self._pen.update(resource, "", found.body())
                if found.version
                else self._pen.create(resource, "", found.body())
            )
            found.uid, found.version = told["metadata"]["uid"], told["metadata"]["resourceVersion"]
        except NotLeading:
            return True
        except (ApiError, Unreachable) as error:
            self.slicing.dirty.add(found.name)
            if isinstance(error, ApiError) and error.status in (404, 409):
                return False  # the watch will tell which version there is
            log.warning("CiliumEndpointSlice %s cannot be written: %s; trying again", found.name, error)
            return False
        return True
