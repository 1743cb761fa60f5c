"""From what a proxy has learned to what is in force: the way of every answer that a pod waits for.

    learned ──▶ book, journal ──▶ identity in force? ── yes ──▶ one entry of the ipcache ──▶ answered
                                          └ no ──▶ compile, program ──▶ enforced ──▶ answered

The journal is written before the kernel: after a crash, an address may be known that is not open, never the other way
round; but a disk that is full keeps no pod from its answers. Nothing here waits; whoever asked is called back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from agent.names.book import Holding
from agent.names.names import Lesson, Names, host_prefix
from policies.compiling.fqdns import FqdnBook, Home, Opening
from policies.ir import Endpoint

WAIT_MAX: Final = 10.0  # seconds: no proxy holds an answer for so long
LATENCIES: Final = 4096  # last ones that are remembered

Answer = Callable[[Sequence[int], Sequence[int]], None]
"""Called with numbers of lessons whose addresses are in force, and of those whose will not be."""


class LayerFull(Exception):
    """The kernel takes no more addresses; one line."""


class Layer(Protocol):
    """Addresses in the kernel's ipcache beside those of the policy, and before them; but where the policy knows a pod
    or a node, it is right. None: no address of names any more."""

    def learn(self, moves: Mapping[Home, int | None]) -> None:
        """At once. LayerFull, and nothing has changed, where there is no room."""

    def stage(self, moves: Mapping[Home, int | None]) -> None:
        """Together with the next policy that is programmed: between its additions and its removals."""


class Journal(Protocol):
    """What survives the agent. OSError where it cannot be written."""

    def keep(self, holdings: Iterable[Holding]) -> None: ...

    def drop(self, holdings: Iterable[Holding]) -> None: ...


class Told(NamedTuple):
    """A lesson as a proxy sends it. `pod`: the address that asked; number 0: nobody waits."""

    number: int
    pod: str
    lesson: Lesson


@dataclass
class Counts:
    """What became of lessons since the start."""

    learned: int = 0  # of names that some policy selects
    refused: int = 0  # bounds, no identity, no room in the kernel, unknown pod
    waited: int = 0  # for a compilation
    overdue: int = 0  # given up
    restored: int = 0  # addresses from the journal
    unwritten: int = 0  # addresses that the journal did not take at once
    closed: int = 0  # addresses of names that were collected


@dataclass(slots=True)
class _Wait:
    """A lesson whose addresses are not all in force."""

    told: Told
    answer: Answer
    since: float
    left: set[Home]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Clocks:
    """`now`: Unix time, which survives restarts. `monotonic`: for waiting."""

    now: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass
class _Batch:
    """What one call has to do in the kernel, and to answer."""

    moves: dict[Home, int | None] = field(default_factory=dict)
    done: list[_Wait] = field(default_factory=list)
    waits: list[_Wait] = field(default_factory=list)


class Learning:
    """The one writer of `names`, and of the addresses of `fqdns` between two compilations."""

    def __init__(
        self, names: Names, fqdns: FqdnBook, layer: Layer, journal: Journal, clocks: Clocks, *, wake: Callable[[], None]
    ) -> None:
        """`wake`: a compilation is due."""
        self.names = names
        self.counts = Counts()
        self.latencies: deque[float] = deque(maxlen=LATENCIES)  # seconds from learned to in force
        self._fqdns = fqdns
        self._layer = layer
        self._journal = journal
        self._clocks = clocks
        self._wake = wake
        self._endpoints: dict[str, int] = {}  # by address
        self._waiting: dict[Home, list[_Wait]] = {}

    # --- what proxies tell ---

    def learned(self, lessons: Iterable[Told], answer: Answer) -> None:
        """Take these in. `answer` is called for every lesson with a number, once: before this returns, or later."""
        now, since = self._clocks.now(), self._clocks.monotonic()
        batch = _Batch()
        kept: list[Holding] = []
        for told in lessons:
            wait = _Wait(told, answer, since, set())
            kept += self._take(wait, batch, now)
            (batch.waits if wait.left and not wait.failed else batch.done).append(wait)
        if kept:
            self._keep(kept)
        self._carry_out(batch)

    def _take(self, wait: _Wait, batch: _Batch, now: float) -> list[Holding]:
        told = wait.told
        endpoint = self._endpoints.get(told.pod)
        if endpoint is None:
            wait.failed = self.names.matters(told.lesson.name)
            return []
        learnt = self.names.learn(endpoint, told.lesson, now)
        if not learnt.matters:
            return []
        self.counts.learned += 1
        wait.failed = bool(learnt.refused)
        for home in learnt.homes:
            if (home in learnt.changed or not self._fqdns.is_settled(home)) and not self._open(home, batch):
                wait.left.add(home)
        return learnt.kept

    def _open(self, home: Home, batch: _Batch) -> bool:
        """Whether the address is what its names make of it, with what `batch` does."""
        opening = self._fqdns.open(home, self.names.keys(home))
        if opening is Opening.WRITE:
            batch.moves[home] = self._fqdns.number_of(home)
        elif opening is Opening.COMPILE:
            self.names.mark((home,))
        return opening is not Opening.COMPILE

    def _keep(self, holdings: list[Holding]) -> None:
        try:
            self._journal.keep(holdings)
        except OSError:  # a full disk: the pods are answered; the next agent closes what the file never gets
            self.counts.unwritten += len(holdings)

    def _carry_out(self, batch: _Batch) -> None:
        """The kernel first, then whoever waits for it."""
        if batch.moves:
            try:
                self._layer.learn(batch.moves)
            except LayerFull:
                self._undo(batch)
        for wait in batch.waits:
            if wait.failed:
                batch.done.append(wait)
                continue
            self.counts.waited += 1
            for home in wait.left:
                self._waiting.setdefault(home, []).append(wait)
        self._answer(batch.done)
        if batch.waits:
            self._wake()

    def _undo(self, batch: _Batch) -> None:
        """Nothing of it is in the kernel: the next compilation looks again."""
        for home in batch.moves:
            self._fqdns.doubt(home)
        self.names.mark(batch.moves)
        for wait in batch.done:
            wait.failed = True

    def _answer(self, waits: Iterable[_Wait]) -> None:
        now = self._clocks.monotonic()
        answers: dict[Answer, tuple[list[int], list[int]]] = {}
        for wait in waits:
            self.counts.refused += wait.failed
            if not wait.told.number:
                continue
            if not wait.failed:
                self.latencies.append(now - wait.since)
            answers.setdefault(wait.answer, ([], []))[wait.failed].append(wait.told.number)
        for answer, (in_force, cannot_be) in answers.items():
            answer(in_force, cannot_be)

    # --- what the policy loop tells ---

    def restore(self, holdings: Iterable[Holding]) -> None:
        """Before anything is compiled: what the journal has kept."""
        held = list(holdings)
        self.counts.restored = len(held) - self.names.restore(held)

    def compiled(self) -> None:
        """A policy was compiled and is to be programmed."""
        promoted, self.names.promoted = self.names.promoted, []
        if promoted:
            self._keep(promoted)
        if moves := self._fqdns.drain_moves():
            self._layer.stage(moves)

    def enforced(self, endpoints: Iterable[Endpoint]) -> None:
        """What was compiled is in force."""
        self._fqdns.enforced()
        self._take_endpoints(endpoints)
        batch = _Batch()
        for home in list(self._waiting):
            self._look_again(home, batch)
        self._carry_out(batch)

    def _look_again(self, home: Home, batch: _Batch) -> None:
        if self._fqdns.is_hopeless(home):
            for wait in self._waiting.pop(home):
                self._give_up(wait, batch)
        elif self._open(home, batch):
            for wait in self._waiting.pop(home):
                wait.left.discard(home)
                if not wait.left and not wait.failed:
                    batch.done.append(wait)
        else:
            self._wake()

    def _give_up(self, wait: _Wait, batch: _Batch) -> None:
        if not wait.failed:
            wait.failed = True
            batch.done.append(wait)

    def _take_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        before = set(self._endpoints.values())
        self._endpoints = {address: endpoint.id for endpoint in endpoints for address in endpoint.addresses}
        for gone in (before or self.names.book.endpoints()) - set(self._endpoints.values()):
            self.names.forget(gone, self._clocks.now())

    def tidy(self) -> None:
        """Give up on those who have waited so long that nobody does any longer."""
        limit = self._clocks.monotonic() - WAIT_MAX
        batch = _Batch()
        for home, waits in list(self._waiting.items()):
            for wait in waits:
                if wait.since < limit and not wait.failed:
                    self.counts.overdue += 1
                    self._give_up(wait, batch)
            left = [wait for wait in waits if not wait.failed]
            if left:
                self._waiting[home] = left
            else:
                del self._waiting[home]
        self._carry_out(batch)

    # --- what is collected ---

    def close(self, gone: Sequence[Holding], changed: Iterable[Home]) -> None:
        """These were collected, and these addresses have other selectors now."""
        batch = _Batch()
        waits = [home for home in changed if not self._open(home, batch)]
        self._carry_out(batch)
        if gone:
            self.counts.closed += len(gone)
            try:
                self._journal.drop(gone)
            except OSError:  # the next agent opens them once more, and collects them
                pass
        if waits:
            self._wake()

    # --- who is who ---

    @property
    def waiting(self) -> int:
        """Addresses that are not in force yet."""
        return len(self._waiting)

    def endpoint(self, address: str) -> int | None:
        """The endpoint of this node with an address."""
        return self._endpoints.get(address)

    def latency(self) -> tuple[float, float]:
        """Seconds from a lesson to its addresses in force, lately: median and 99th percentile; 0 if there were none."""
        known = sorted(self.latencies)
        return (known[len(known) // 2], known[len(known) * 99 // 100]) if known else (0.0, 0.0)

    def identity(self, address: bytes, endpoint: int = 0) -> int | None:
        """The identity of an address of names, as it is in the kernel or about to be: for everybody, or for an
        endpoint."""
        prefix = host_prefix(address)
        return self._fqdns.number_of(Home(prefix)) or self._fqdns.number_of(Home(prefix, endpoint))
