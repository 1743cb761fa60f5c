"""The one hand that writes: only while we lead, only so fast, and counted.

`NotLeading` ends a write before it is sent. Its rate is that of the whole operator: what a burst of policies or of pods
asks for waits its turn here, and the API server does not notice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.resources import Resource

PER_SECOND: Final = 20.0
BURST: Final = 40
MANAGER: Final = "deflector-operator"
T = TypeVar("T")


class NotLeading(Exception):
    """Somebody else may lead by now: nothing is written."""


@dataclass(slots=True)
class Pen:
    """`written` counts by resource and outcome (ok, conflict, missing, refused, unreachable)."""

    server: ApiServer
    is_leading: Callable[[], bool]
    per_second: float = PER_SECOND
    written: Counter[tuple[str, str]] = field(default_factory=Counter)
    _tokens: float = float(BURST)
    _refilled: float | None = None

    async def create(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._write(resource, lambda: self.server.create(resource, namespace, body))

    async def update(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._write(resource, lambda: self.server.update(resource, namespace, body))

    async def apply(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], *, subresource: str = ""
    ) -> dict[str, Any]:
        asked = {"manager": MANAGER, "subresource": subresource}
        return await self._write(resource, lambda: self.server.apply(resource, namespace, body, **asked))

    async def patch(self, resource: Resource, namespace: str, name: str, changes: Any) -> dict[str, Any]:
        return await self._write(resource, lambda: self.server.patch(resource, namespace, name, changes))

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, version: str = "") -> None:
        await self._write(resource, lambda: self.server.delete(resource, namespace, name, uid=uid, version=version))

    async def _write(self, resource: Resource, write: Callable[[], Awaitable[T]]) -> T:
        await self._turn()
        if not self.is_leading():
            raise NotLeading
        outcome = "ok"
        try:
            return await write()
        except ApiError as error:
            outcome = "conflict" if error.status == 409 else "missing" if error.is_missing else "refused"
            raise
        except Unreachable:
            outcome = "unreachable"
            raise
        finally:
            self.written[str(resource), outcome] += 1

    async def _turn(self) -> None:
        """Wait for the right to one write."""
        now = asyncio.get_running_loop().time()
        if self._refilled is not None:
            self._tokens = min(float(BURST), self._tokens + (now - self._refilled) * self.per_second)
        self._refilled = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self.per_second)
