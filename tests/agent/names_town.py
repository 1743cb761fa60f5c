"""A node that learns names, without a kernel: the real compiler, book and journal, and a kernel of two dictionaries.

The kernel holds what it was told last of each: the identities that policy speaks of, and the ipcache of names. Whatever
is told to a proxy as in force is looked up there, at that moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.names.book import Bounds, Holding, Sweep
from agent.names.learning import Clocks, LayerFull, Learning, Told
from agent.names.names import Lesson, NameOptions, Names, packed
from policies.compiling.compiler import Compiler
from policies.compiling.fqdns import Home
from policies.compiling.identity import IdentityAllocator
from policies.ir import FqdnSelector, NodePolicy, Verdict
from policies.labels import fqdn_key
from policies.prefixes import Prefix
from policies.rules import Clause, FqdnPeer, Peer, Policy
from policies.types import Direction, Protocol
from tests.policies.language import Galaxy, answer_of, clause, policy, to

TIE, XWING = "10.0.0.2", "10.0.0.3"


def fqdn(written: str) -> FqdnPeer:
    """toFQDNs: a name, or a pattern."""
    if written == "*":
        return FqdnPeer(FqdnSelector(pattern="*"))
    return FqdnPeer(FqdnSelector(pattern=f"{written}.") if "*" in written else FqdnSelector(name=f"{written}."))


def key(written: str) -> str:
    return fqdn_key(f"{written}." if written != "*" else "*")


def allow(*names: str, port: int = 443, extra: Sequence[Clause] = ()) -> Policy:
    """A policy of all pods of the galaxy: out to these names only."""
    return policy("names", egress=[clause([fqdn(name) for name in names], to(port)), *extra])


def address(text: str) -> bytes:
    return bytes(map(int, text.split("."))) if "." in text else bytes.fromhex(text.replace(":", "").ljust(32, "0"))


@dataclass
class Kernel:
    """agent.names.learning.Layer, and what the policy loop programs."""

    node: NodePolicy = field(default_factory=lambda: NodePolicy(revision=0))
    names: dict[Home, int] = field(default_factory=dict)
    staged: dict[Home, int | None] = field(default_factory=dict)
    inherited: set[Home] = field(default_factory=set)  # of an earlier agent, until the first policy is programmed
    room: int = 1_000_000
    writes: int = 0

    def learn(self, moves: Mapping[Home, int | None]) -> None:
        if len(self.names.keys() | {h for h, number in moves.items() if number is not None}) > self.room:
            raise LayerFull("map ipcache is full")
        self.writes += 1
        self._take(moves)
        for home in moves:
            self.staged.pop(home, None)

    def stage(self, moves: Mapping[Home, int | None]) -> None:
        self.staged |= moves

    def program(self, node: NodePolicy) -> None:
        for home in self.inherited - self.staged.keys():
            self.names.pop(home, None)
        self.inherited = set()
        self._take(self.staged)
        self.staged = {}
        self.node = node

    def _take(self, moves: Mapping[Home, int | None]) -> None:
        for home, number in moves.items():
            if number is None:
                self.names.pop(home, None)
            else:
                self.names[home] = number


@dataclass
class Paper:
    """A journal that is read as it was written."""

    held: dict[tuple[int, str, bytes], Holding] = field(default_factory=dict)
    is_full: bool = False

    def keep(self, holdings: Iterable[Holding]) -> None:
        if self.is_full:
            raise OSError("no space left on device")
        self.held |= {(h.endpoint, h.name, h.address): h for h in holdings}

    def drop(self, holdings: Iterable[Holding]) -> None:
        for h in holdings:
            self.held.pop((h.endpoint, h.name, h.address), None)


class Town:
    """One node. `apply` changes policies; `loop` runs the policy loop until nothing is due."""

    def __init__(
        self,
        *policies: Policy,
        options: NameOptions | None = None,
        galaxy: Galaxy | None = None,
        after: Town | None = None,
    ) -> None:
        """`after`: a new agent on the node of one that is gone."""
        self.options = options or NameOptions()
        self.kernel = after.kernel if after else Kernel()
        self.kernel.inherited, self.kernel.staged = set(self.kernel.names), {}
        self.paper = after.paper if after else Paper()
        self.galaxy = galaxy or (after.galaxy if after else Galaxy())
        self.policies = policies
        self.now = after.now if after else 1000.0
        self.due = 0
        self.in_force: list[int] = []
        self.cannot_be: list[int] = []
        self.identities = IdentityAllocator.from_dict(after.identities.to_dict()) if after else IdentityAllocator()
        self.names = Names(self.options)
        self.compiler = Compiler(self.identities, self.galaxy.options, self.names)
        self.learning = Learning(
            self.names, self.compiler.fqdns, self.kernel, self.paper, Clocks(self._now, self._now), wake=self._wake
        )
        self.learning.restore(self.paper.held.values())
        self.galaxy.compiler = self.compiler
        self._number = 0
        self.loop()

    def _now(self) -> float:
        return self.now

    def _wake(self) -> None:
        self.due += 1

    def apply(self, *policies: Policy) -> None:
        self.policies = policies
        self.loop()

    def compile(self) -> NodePolicy:
        compiled = self.galaxy.compile(*self.policies)
        self.learning.compiled()
        return compiled.node

    def loop(self) -> int:
        """Compile and program, until nothing is due; how often."""
        for times in range(1, 10):
            self.due = 0
            node = self.compile()
            self.kernel.program(node)
            self.learning.enforced(node.endpoints)
            if not self.due:
                return times
        raise AssertionError("the policy loop never comes to rest")

    def tell(self, name: str, *addresses: str, by: str = TIE, ttl: int = 30, targets: Sequence[str] = ()) -> int:
        """A proxy was answered, and waits; its number."""
        self._number += 1
        lesson = Lesson(f"{name}.", [address(text) for text in addresses], ttl, self.now, [f"{t}." for t in targets])
        self.learning.learned([Told(self._number, by, lesson)], self._answered)
        return self._number

    def _answered(self, in_force: Sequence[int], cannot_be: Sequence[int]) -> None:
        self.in_force += in_force
        self.cannot_be += cannot_be

    def collect(self, alive: Iterable[str] = (), by: int = 11) -> None:
        """A round of the collector, a while later."""
        self.now += 1000.0
        sweep = Sweep(self.now, {address(text): {by} for text in alive})
        self.learning.close(*self.names.collect(self.names.book.names(), sweep))

    def labels(self, text: str) -> tuple[str, ...]:
        """The labels that the kernel gives an address by its names."""
        number = self.kernel.names.get(Home(prefix(text)))
        return self.identities.labels(number) if number is not None else ()

    def may(self, text: str, port: int = 443, by: str = TIE) -> bool:
        """Whether the kernel lets a pod connect."""
        node = self.kernel.node
        group = next(e.group for e in node.endpoints if by in e.addresses)
        own = Home(prefix(text), self.learning.endpoint(by) or 0)
        known = self.kernel.names.get(own) or self.kernel.names.get(Home(prefix(text)))
        number = known or self.compiler._addresses.identity(text)
        return answer_of(node, group, Direction.EGRESS, (number, Protocol.TCP, port)).verdict is not Verdict.DENY


def prefix(text: str) -> Prefix:
    raw = address(text)
    return Prefix(4 if len(raw) == 4 else 6, int.from_bytes(raw, "big"), len(raw) * 8)


__all__ = ["Bounds", "Peer", "packed"]
