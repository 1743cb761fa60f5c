"""The names of a running node: the book, its journal, and the rounds that collect, under one roof.

open        the journal is read; before anything is compiled
compiled, enforced    the policy loop tells how far it is
learned     a proxy tells what it was answered, and is called back
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from agent.names.collecting import PERIOD, Collecting, Connected, pieces
from agent.names.document import Around, Lister, summary
from agent.names.journal_file import JournalFile
from agent.names.learning import Answer, Clocks, Layer, Learning, Told
from agent.names.names import NameOptions, Names
from policies.compiling.fqdns import FqdnBook
from policies.ir import NodePolicy
from policies.objects import ObjectKey
from policies.rules import Policy

EARLY_MAX: Final = 50_000  # lessons that wait for the first policy; a lesson is some 500 bytes


def steady() -> Callable[[], float]:
    """Unix time as it is now, and from then on as a clock that nobody sets: where the time of day jumps, no name lives
    longer or shorter for it."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


CLOCKS: Final = Clocks(steady(), time.monotonic)

log = logging.getLogger("deflector.names")


class NameKernel(Layer, Protocol):
    """Where addresses of names are in force, and who has connections to them."""

    @property
    def connected(self) -> Connected: ...


class NameKeeping:
    """One node's names. Everything but `run` returns at once."""

    def __init__(self, options: NameOptions, journal: Path, kernel: NameKernel, *, wake: Callable[[], None]) -> None:
        """`wake`: a compilation is due."""
        self.names = Names(options)
        self._file = JournalFile(journal)
        self._kernel = kernel
        self._wake = wake
        self._learning: Learning | None = None
        self._early: list[tuple[Sequence[Told], Answer]] | None = []  # until the first policy is in force

    @property
    def learning(self) -> Learning:
        assert self._learning is not None, "names are learned only for a compiler"
        return self._learning

    def open(self, fqdns: FqdnBook) -> None:
        """For this compiler's addresses, with what an earlier agent has left. OSError where the journal cannot be
        read or written."""
        self._learning = Learning(self.names, fqdns, self._kernel, self._file, CLOCKS, wake=self._wake)
        found = self._file.open()
        if found.lost:
            log.warning("the journal of names was torn: its last %d bytes are not believed", found.lost)
        self._learning.restore(found.holdings.values())

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    async def run(self) -> None:
        """Collect once a minute, for ever."""
        collecting = Collecting(self.learning, self._kernel.connected, CLOCKS.now)
        while True:
            await asyncio.sleep(PERIOD)
            await collecting.round()
            self.learning.tidy()
            if self._file.is_due:
                self._compact()

    def _compact(self) -> None:
        try:
            self._file.snapshot(self.names.book.holdings())
        except OSError as error:
            log.warning("the journal of names cannot be written anew: %s", error)

    # --- the policy loop ---

    def compiled(self) -> None:
        """A policy was compiled, and is to be programmed."""
        self.learning.compiled()

    def enforced(self, node: NodePolicy) -> None:
        """What was compiled is in force."""
        self.learning.enforced(node.endpoints)
        early, self._early = self._early, None
        for lessons, answer in early or ():
            self.learning.learned(lessons, answer)

    # --- the proxies ---

    def learned(self, lessons: Iterable[Told], answer: Answer) -> None:
        """Take these in. `answer` is called once for every lesson with a number: now, or later. What was learned while
        no agent was there comes all at once, before there is a policy."""
        if self._early is None:
            self.learning.learned(lessons, answer)
            return
        told = list(lessons)
        if len(told) + sum(len(some) for some, _ in self._early) <= EARLY_MAX:
            self._early.append((told, answer))
        else:
            log.warning("%d learned names are withheld: more come than a starting node takes", len(told))
            answer([], [one.number for one in told if one.number])

    # --- people ---

    @property
    def problems(self) -> Sequence[str]:
        """What people should do something about."""
        trouble = self._file.trouble
        if not trouble:
            return ()
        return (f"{self._file.path}: {trouble}: what pods learn is open, but will be closed when the agent restarts",)

    @property
    def summary(self) -> Mapping[str, Any]:
        """How many names there are, and what became of what proxies told."""
        if self._learning is None:
            return {}
        return summary(self.names, self._learning)

    async def document(self, node: NodePolicy, policies: Mapping[ObjectKey, Policy]) -> Mapping[str, Any]:
        """Every name (agent.names.document), made in pieces, while queries go on."""
        around = Around(node.endpoints, policies, self.learning.identity, CLOCKS.now())
        lister = Lister(self.names, around)
        found = []
        for book in (self.names.book, self.names.overheard):
            for piece in pieces(sorted(book.names())):
                found += lister.rows(book, piece)
                await asyncio.sleep(0)
        return {"names": sorted(found, key=lambda row: row["name"]), "summary": dict(self.summary)}

    # --- flows ---

    def names_of(self, ip: str, by: str) -> tuple[str, ...]:
        """The names under which the pod with address `by` knows an address, without the last dot."""
        if self._learning is None:
            return ()
        endpoint, address = self._learning.endpoint(by), packed_text(ip)
        if endpoint is None or address is None:
            return ()
        return tuple(name.removesuffix(".") for name in self.names.names_of(address, endpoint))

    def identity_of(self, ip: str) -> int | None:
        """The identity of an address of names."""
        address = packed_text(ip)
        if address is None or self._learning is None:
            return None
        return self._learning.identity(address)


def packed_text(ip: str) -> bytes | None:
    """An address as 4 or 16 bytes; None for what is none."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
    except OSError:
        return None
