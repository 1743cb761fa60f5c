"""Takes away what agent.operator.garbage names. Each removal names the object that was looked at, and no other."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES, DEFLECTOR_NODES, PODS
from agent.operator.garbage import MARK, EndpointGarbage, IdentityGarbage, Labelled, Step, Use
from agent.operator.pen import NotLeading, Pen
from policies.objects import PodKey

Raw = dict[str, Any]
ENDPOINT_GRACE: Final = 0.5  # of the interval
log = logging.getLogger("deflector.operator")


@dataclass(frozen=True, slots=True)
class GarbageTimes:
    """Seconds between sweeps, and how long an identity is unused before it goes."""

    identities_every: float = 15 * 60.0
    identity_grace: float = 30 * 60.0
    endpoints_every: float = 5 * 60.0


@dataclass(slots=True)
class Holdings:
    """What is there. Filled by watches; `pods` are those of the whole cluster."""

    identities: dict[PodKey, Labelled] = field(default_factory=dict)
    endpoints: dict[PodKey, Use] = field(default_factory=dict)
    pods: set[PodKey] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    reports: dict[str, str] = field(default_factory=dict)  # uid of the report of each node


class Collector:
    """`run` sweeps, for ever. `is_complete` says whether all that there is has been told: before that nothing goes."""

    def __init__(self, pen: Pen, holdings: Holdings, times: GarbageTimes, is_complete: Callable[[], bool]) -> None:
        self.removed: Counter[str] = Counter()  # by kind
        self._pen = pen
        self._server: ApiServer = pen.server
        self._holdings = holdings
        self._times = times
        self._is_complete = is_complete
        self._identities = IdentityGarbage(times.identity_grace)
        self._endpoints = EndpointGarbage(times.endpoints_every * ENDPOINT_GRACE)

    async def run(self) -> None:
        """Sweep identities, endpoints and reports, each in its own time."""
        times = self._times
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(min(times.identities_every, times.identity_grace / 4), self.sweep_identities))
            tasks.create_task(self._every(times.endpoints_every, self.sweep_endpoints))
            tasks.create_task(self._every(times.endpoints_every, self.sweep_reports))

    async def _every(self, seconds: float, sweep: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self._is_complete():
                await sweep()

    async def sweep_identities(self) -> None:
        """Mark, unmark, remove. Where no node publishes endpoints nobody knows what is used: then nothing goes."""
        held = self._holdings
        if held.pods and not held.endpoints:
            return
        now = asyncio.get_running_loop().time()
        for identity, step in list(self._identities.sweep(held.identities, held.endpoints, now)):
            await self._gently(f"CiliumIdentity {identity.number}", self._identity(identity, step))

    async def sweep_endpoints(self) -> None:
        """The pod is asked for once more: a watch may be behind."""
        now = asyncio.get_running_loop().time()
        for key, use in list(self._endpoints.sweep(self._holdings.endpoints, self._holdings.pods, now)):
            await self._gently(f"CiliumEndpoint {key.namespace}/{key.name}", self._endpoint(key, use))

    async def sweep_reports(self) -> None:
        """Of nodes that are gone."""
        held = self._holdings
        for name in sorted(held.reports.keys() - held.nodes) if held.nodes else ():
            await self._gently(f"DeflectorNode {name}", self._report(name, held.reports[name]))

    async def _identity(self, identity: Labelled, step: Step) -> None:
        if step is Step.DELETE:
            await self._pen.delete(CILIUM_IDENTITIES, "", identity.number, uid=identity.uid, version=identity.version)
            self.removed["CiliumIdentity"] += 1
            return
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if step is Step.MARK else None
        metadata = {"annotations": {MARK: stamp}, "resourceVersion": identity.version}
        await self._pen.patch(CILIUM_IDENTITIES, "", identity.number, {"metadata": metadata})

    async def _endpoint(self, key: PodKey, use: Use) -> None:
        try:
            await self._server.get(PODS, key.namespace, key.name)
        except ApiError as error:
            if not error.is_missing:
                raise
            await self._pen.delete(CILIUM_ENDPOINTS, key.namespace, key.name, uid=use.uid)
            self.removed["CiliumEndpoint"] += 1

    async def _report(self, name: str, uid: str) -> None:
        await self._pen.delete(DEFLECTOR_NODES, "", name, uid=uid)
        self.removed["DeflectorNode"] += 1

    async def _gently(self, about: str, work: Awaitable[None]) -> None:
        """What fails is left for the next sweep; what somebody has changed or removed meanwhile is no failure."""
        try:
            await work
        except ApiError as error:
            if error.status not in (404, 409):
                log.warning("%s cannot be cleaned up: %s", about, error)
        except (Unreachable, NotLeading):
            return
