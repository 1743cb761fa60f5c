"""From desired to realized: the one place that knows the order of effects (docs/architecture.md, section A).

    adding     listener and filter first, the map entry after their ACK
    removing   the map entry first, then the slot denies (or lets all pass), then its listener goes; its filter stays
               for as long as Envoy drains what is open, and its name is not given away before
    editing    the filter is replaced in place; nothing else moves
So no redirect ever points at nothing, and no request is judged by rules that are gone.

When a proxy refuses something, the groups concerned keep their last good policy, or are denied where there is none.
Knows no sockets: proxies and kernel are Protocols, satisfied in agent/wiring.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from agent.ports import PortsExhausted, ProxyPorts
from policies.ir import DirectionPolicy, EndpointPolicy, NodePolicy, Slot, SlotState
from policies.slots import SlotBook, assign

DRAIN_SECONDS = 600.0  # how long Envoy lets connections of a removed listener live (agent.envoy tells it so)


class EffectFailed(Exception):
    """Kernel, host or disk did not do what was asked; one line. What is enforced stays enforced."""


@dataclass(frozen=True, slots=True)
class Programmed:
    """What became of a set of slots: refused ones (slot -> the proxy's words) and those nobody answered for in time."""

    refused: Mapping[str, str]
    missing: frozenset[str] = frozenset()


class Proxies(Protocol):
    """Tells every proxy about the slots of a node and waits, bounded, until they have it."""

    async def program(self, node: NodePolicy, ports: Mapping[str, int]) -> Programmed: ...


class Kernel(Protocol):
    """Makes the kernel hold exactly this policy. A redirect to a slot without a port is a deny."""

    async def reserve(self, ports: Iterable[int]) -> None:
        """Refuse connections that go straight to these proxy ports."""

    async def program(self, node: NodePolicy, ports: Mapping[str, int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Books:
    """What must survive the agent: who has which slot and which port."""

    slots: SlotBook
    ports: ProxyPorts


@dataclass(frozen=True, slots=True)
class Outcome:
    """`degraded`: one line per group that is not on its newest policy. `complete`: False asks for another try soon."""

    node: NodePolicy
    degraded: tuple[str, ...]
    complete: bool


class Regenerator:
    """Owns the realized state of one node. One caller at a time; `regenerate` is not reentrant."""

    def __init__(
        self,
        proxies: Proxies,
        kernel: Kernel,
        books: Books,
        *,
        save: Callable[[Books], None],
        is_free: Callable[[int], bool],
        now: Callable[[], float],
    ) -> None:
        self._proxies = proxies
        self._kernel = kernel
        self._books = books
        self._save = save
        self._is_free = is_free
        self._now = now
        self._resting: dict[str, float] = {}  # slots without a listener -> when Envoy has drained it, at the latest
        self.enforced = NodePolicy(revision=0)
        # Slots that a proxy has confirmed: at first those that an earlier agent left behind, with Envoy still serving.
        self._proven = set(books.ports.by_slot)

    @property
    def ports(self) -> Mapping[str, int]:
        return self._books.ports.by_slot

    async def regenerate(self, desired: NodePolicy) -> Outcome:
        """Make `desired` (compiled, without slots) real and say what of it could not be.

        Raises EffectFailed; what has been done until then stands, and the next call starts from there.
        """
        self._forget_rested()
        before = self._books.slots
        node, told = await self._tell(desired, before)
        degraded = dict(told.refused)
        if told.refused:
            failed = {slot.group for slot in node.slots if slot.name in told.refused}
            # A refused listener may have met a busy port: the next try takes another one. The slots of this try are
            # forgotten with it, so that those of the last good policy are as they were.
            self._keep(Books(before, self._books.ports.without(told.refused.keys() - self._proven)))
            node, told = await self._tell(_with_last_good(desired, self.enforced, failed), before)
            degraded.update(told.refused)
        unproven = set(told.refused) | (told.missing - self._proven)
        ports = {name: port for name, port in self.ports.items() if name not in unproven}
        await self._kernel.program(node, ports)
        await self._retire(node)
        self.enforced = replace(node, slots=tuple(s for s in node.slots if s.name not in unproven))
        self._proven = {slot.name for slot in self.enforced.slots if slot.name in self.ports}
        lines = [f"slot {name}: refused by the proxy: {words}" for name, words in sorted(degraded.items())]
        lines += [f"slot {name}: no proxy has confirmed it yet" for name in sorted(told.missing)]
        return Outcome(node, tuple(lines), complete=not told.missing and not degraded)

    async def _tell(self, desired: NodePolicy, known: SlotBook) -> tuple[NodePolicy, Programmed]:
        """Assign slots and ports, write that down, and tell the proxies everything but what is to be retired."""
        node, book = assign(desired, known)
        listening = [s.name for s in node.slots if s.state is SlotState.ACTIVE or s.name in self.ports]
        try:
            ports = self._books.ports.assign(listening, self._is_free)
        except PortsExhausted as error:
            raise EffectFailed(str(error)) from error
        self._keep(Books(book, ports))
        await self._kernel.reserve(ports.by_slot.values())
        return node, await self._proxies.program(_staged(node, self.enforced), ports.by_slot)

    async def _retire(self, node: NodePolicy) -> None:
        """The kernel sends nothing there any more: change what inactive slots answer, then take their listeners away.

        Their filters stay: connections that Envoy drains are still judged by them.
        """
        inactive = [slot.name for slot in node.slots if slot.state is not SlotState.ACTIVE]
        gone = [name for name in inactive if name in self.ports]
        if inactive:
            await self._proxies.program(node, self.ports)
        if gone:
            self._keep(replace(self._books, ports=self._books.ports.without(gone)))
            await self._proxies.program(node, self.ports)
            await self._kernel.reserve(self.ports.values())
        for name in inactive:
            self._resting.setdefault(name, self._now() + DRAIN_SECONDS)

    def _forget_rested(self) -> None:
        """Slots whose last connection has ended: their names may be given again."""
        rested = [name for name, until in self._resting.items() if until <= self._now()]
        for name in rested:
            del self._resting[name]
        if rested:
            self._keep(replace(self._books, slots=self._books.slots.forget(rested)))

    def _keep(self, books: Books) -> None:
        self._save(books)
        self._books = books


def _staged(node: NodePolicy, before: NodePolicy) -> NodePolicy:
    """`node` with slots to be retired still in the form they have: the kernel may yet send connections there."""
    old = {slot.name: slot for slot in before.slots}
    return replace(node, slots=tuple(_unretired(slot, old.get(slot.name)) for slot in node.slots))


def _unretired(slot: Slot, old: Slot | None) -> Slot:
    return old if old is not None and slot.state is not SlotState.ACTIVE else slot


def _with_last_good(desired: NodePolicy, enforced: NodePolicy, failed: set[int]) -> NodePolicy:
    """`desired`, but the failed groups on their last good policy, or on deny where there is none (law 1)."""
    good = {policy.group: policy for policy in enforced.policies}
    policies = tuple(
        good.get(policy.group, _denied(policy)) if policy.group in failed else policy for policy in desired.policies
    )
    return replace(desired, policies=policies)


def _denied(policy: EndpointPolicy) -> EndpointPolicy:
    """Deny in each direction that the policy enforces."""
    return replace(
        policy,
        ingress=DirectionPolicy(enforced=policy.ingress.enforced),
        egress=DirectionPolicy(enforced=policy.egress.enforced),
    )
