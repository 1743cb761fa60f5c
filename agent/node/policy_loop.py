"""The one loop that owns policy: takes batches of file events, compiles, regenerates, and knows what is enforced.

One thing at a time: while a regeneration runs, events gather, and the next one takes them all. What waits for a late
proxy is finished when it answers; what may succeed without any news (a full disk, a busy port) is tried again, at last
every 30 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agent.node.regenerate import EffectFailed, Regenerator
from policies.compiling.compiler import Compiled
from policies.errors import PolicyError
from policies.events import Failed, ObjectEvent
from policies.ir import NodePolicy, SlotState
from policies.objects import POLICY_KINDS, ObjectKey
from policies.reading.manifests import FileEvent
from policies.repository import Repository
from policies.world import World

RETRY_DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds until what has failed is tried again; the last one repeats

log = logging.getLogger("deflector.policy")


@dataclass(frozen=True, slots=True)
class Enforced:
    """The realized state as a value: what status shows and conformance waits for."""

    revision: int = 0
    node: NodePolicy = field(default_factory=lambda: NodePolicy(revision=0))
    files: Mapping[str, str] = field(default_factory=dict)  # versions of what is enforced: of files, or of policies
    compile_errors: tuple[PolicyError, ...] = ()
    degraded: tuple[str, ...] = ()
    complete: bool = False
    behind: Mapping[str, str] = field(default_factory=dict)  # policies that are not as they are written, and why


class Store(Protocol):
    """What is known: policies.repository.Repository of files, policies.inventory.Inventory of an API server."""

    def apply(self, event: Any) -> object: ...
    def world(self) -> World: ...
    @property
    def problems(self) -> tuple[PolicyError, ...]: ...
    @property
    def warnings(self) -> tuple[PolicyError, ...]: ...
    @property
    def versions(self) -> Mapping[str, str]: ...


class PolicyLoop:
    """`compile_world(world, revision)` is the compiler bound to this node; `on_enforced` hears of each new state,
    `on_propagated` how many seconds a change took to be enforced whole, `on_failed` why nothing could be."""

    def __init__(
        self,
        regenerator: Regenerator,
        compile_world: Callable[[World, int], Compiled],
        on_enforced: Callable[[World, NodePolicy], None],
        on_propagated: Callable[[float], None] = lambda seconds: None,
        *,
        on_failed: Callable[[str], None] = lambda why: None,
        store: Store | None = None,
    ) -> None:
        self.repository: Store = store if store is not None else Repository()
        self.enforced = Enforced()
        self._regenerator = regenerator
        self._compile = compile_world
        self._on_enforced = on_enforced
        self._on_propagated = on_propagated
        self._on_failed = on_failed
        self._changed_at: float | None = None  # when the oldest change was seen that is not enforced yet
        self._due = asyncio.Event()
        self._listed = False
        self._revision = 0
        self._tries = 0  # in a row, with nothing new
        self._retry = False
        self._look_at: float | None = None  # moment of the loop's clock to look again

    @property
    def pending(self) -> bool:
        """Whether something accepted is not enforced yet."""
        return self._due.is_set() or not self.enforced.complete or self.repository.versions != self.enforced.files

    @property
    def problems(self) -> list[str]:
        """All that a person should know, one line each."""
        errors = (*self.repository.problems, *self.enforced.compile_errors)
        return [*map(str, errors), *self.enforced.degraded]

    def wake(self) -> None:
        """Something else than a file has changed (a link, a late proxy's answer): compile and compare again."""
        self._due.set()

    async def watch(self, batches: AsyncIterator[Sequence[FileEvent]] | AsyncIterator[Sequence[ObjectEvent]]) -> None:
        """Apply batches as they come. The first one lists everything: nothing is computed before it, nor from one that
        tells of nothing but errors, since what an earlier agent left in force would go."""
        async for batch in batches:
            self._apply(batch)
            if batch and self._changed_at is None:
                self._changed_at = asyncio.get_running_loop().time()
            self._tries = 0
            self._listed = self._listed or not batch or any(_tells(event) for event in batch)
            self._due.set()

    async def run(self) -> None:
        """Regenerate whenever something is due, for ever."""
        while True:
            await self._wait_until_due()
            self._due.clear()
            await self._regenerate()

    def _apply(self, batch: Sequence[FileEvent | ObjectEvent]) -> None:
        before = set(self.repository.problems)
        for event in batch:
            self.repository.apply(event)
        for problem in self.repository.problems:
            if problem not in before:
                log.warning("%s", problem)

    async def _wait_until_due(self) -> None:
        """Until something has changed, or it is time to look again."""
        now = asyncio.get_running_loop().time
        moments = [self._look_at] if self._look_at is not None else []
        if self._retry:
            moments.append(now() + RETRY_DELAYS[min(self._tries, len(RETRY_DELAYS) - 1)])
        try:
            async with asyncio.timeout_at(min(moments, default=None)):
                await self._due.wait()
                while not self._listed:
                    self._due.clear()
                    await self._due.wait()
        except TimeoutError:
            self._tries += self._retry

    async def _regenerate(self) -> None:
        files, world = dict(self.repository.versions), self.repository.world()
        changed_at, self._changed_at = self._changed_at, None
        compiled = self._compile(world, self._revision + 1)
        self._look_at = None
        try:
            outcome = await self._regenerator.regenerate(compiled.node)
        except EffectFailed as failure:
            self._retry = True
            self._changed_at = changed_at or self._changed_at
            if (line := str(failure)) not in self.enforced.degraded:
                log.error("%s; the last good state stays in force", line)
            self.enforced = replace(self.enforced, degraded=(line,), complete=False)
            self._on_failed(line)
            return
        self._retry = outcome.retry
        if outcome.due is not None:
            self._look_at = asyncio.get_running_loop().time() + outcome.due
        if not outcome.complete:
            self._changed_at = changed_at or self._changed_at
        elif changed_at is not None:
            self._on_propagated(asyncio.get_running_loop().time() - changed_at)
        behind = policies_behind(compiled.node, outcome.behind)
        state = (outcome.node, files, compiled.errors, outcome.degraded, outcome.complete, behind)
        self._take(Enforced(0, *state), world)

    def _take(self, found: Enforced, world: World) -> None:
        """This is what is enforced now. It is a new revision, and worth a line, only if it differs from the last."""
        before = self.enforced
        changed = replace(found.node, revision=before.revision) != before.node or not before.revision
        self._revision = before.revision + changed
        node = replace(found.node, revision=self._revision)
        self.enforced = replace(found, revision=self._revision, node=node)
        self._report(before, changed)
        self._on_enforced(world, node)

    def _report(self, before: Enforced, changed: bool) -> None:
        now = self.enforced
        for error in now.compile_errors:
            if error not in before.compile_errors:
                log.warning("%s", error)
        for line in now.degraded:
            if line not in before.degraded:
                log.error("%s", line)
        if not now.degraded and (changed or before.degraded):
            active = sum(slot.state is SlotState.ACTIVE for slot in now.node.slots)
            log.info("revision %d is enforced: %d slots", now.revision, active)


def _tells(event: FileEvent | ObjectEvent) -> bool:
    """Whether it tells of anything but errors."""
    return not event.error if isinstance(event, FileEvent) else not isinstance(event, Failed)


def policies_behind(desired: NodePolicy, groups: Mapping[int, str]) -> dict[str, str]:
    """Of groups that are not on their newest policy: which policies ask for what proxies judge there, and why not."""
    found: dict[str, str] = {}
    for policy in desired.policies if groups else ():
        for ports in (*policy.ingress.ports, *policy.egress.ports) if policy.group in groups else ():
            for origin in (o for peers in ports.peers if peers.rule_set for o in peers.rule_set.origins):
                if origin.kind in POLICY_KINDS:
                    found.setdefault(str(ObjectKey(origin.kind, origin.namespace, origin.name)), groups[policy.group])
    return dict(sorted(found.items()))
