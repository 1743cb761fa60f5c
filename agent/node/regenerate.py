"""From desired to realized: the one place that knows the order of effects (docs/architecture.md, section A).

    adding     listener and filter first, the map entry after their ACK
    removing   the map entry first, then the slot denies (or lets all pass), then its listener goes; its filter stays
               for as long as Envoy drains what is open, and its name is not given away before
    editing    the filter is replaced in place; nothing else moves
So no redirect ever points at nothing, and no request is judged by rules that are not its own.

Nothing waits long for a proxy: what needs none is programmed at once, and what a late proxy owes is finished by the
next call (agent.node.meanwhile says what holds in between). When a proxy refuses something, or no port is left, the
groups concerned keep their last good policy, or are denied where there is none.
Knows no sockets: proxies and kernel are Protocols, satisfied in agent/node/wiring.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent.node.meanwhile import InForce, after_restart, meanwhile
from agent.node.ports import IsFree, Place, ProxyPorts, named_ports, places
from agent.proxies.draining import REST_SECONDS
from policies.compiling.slots import SlotBook, assign
from policies.ir import DirectionPolicy, EndpointPolicy, NodePolicy, RuleSet, Slot, SlotState

PROMPT_SECONDS = 0.2  # a proxy that lives answers within milliseconds; for a later one nobody stops
ROUNDS_MAX = 4  # in one call: as desired, with last good policies, with denials; others may fail only then
REFUSALS_MAX = 3  # a slot that was refused so often, each time at another port, is parked until its rules change


class EffectFailed(Exception):
    """Kernel, host or disk did not do what was asked; one line. What is enforced stays enforced."""


@dataclass(frozen=True, slots=True)
class Programmed:
    """What became of a set of slots: refused ones (slot -> the proxy's words) and those nobody answered for in time."""

    refused: Mapping[str, str] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Patience:
    """Wait `seconds` for an answer, but not for these slots: they are late already."""

    seconds: float
    late: Collection[str] = ()


class Proxies(Protocol):
    """Tells every proxy about the slots of a node and waits, bounded, until they have it."""

    async def program(self, node: NodePolicy, ports: Mapping[str, int], patience: Patience) -> Programmed: ...


class Kernel(Protocol):
    """Makes the kernel hold exactly this policy. A redirect to a slot without a port is a deny."""

    async def reserve(self, places: Iterable[Place]) -> None:
        """Refuse what goes straight to these proxy ports."""

    async def program(self, node: NodePolicy, ports: Mapping[str, int]) -> tuple[str, ...]:
        """A line for each thing that the kernel has no room for: it is denied."""


@dataclass(frozen=True, slots=True)
class Books:
    """What must survive the agent: who has which slot and which port."""

    slots: SlotBook
    ports: ProxyPorts


@dataclass(frozen=True, slots=True)
class Outcome:
    """`degraded`: one line for each thing that is not as the newest policy wants it. `complete`: there is none.

    `retry`: another try may help although nothing has changed. `due`: seconds after which to look again at the latest,
    because nobody waits for a late proxy any longer then. `behind`: groups that are not on their newest policy, with
    the reason.
    """

    node: NodePolicy
    degraded: tuple[str, ...] = ()
    complete: bool = True
    retry: bool = False
    due: float | None = None
    behind: Mapping[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Refusal:
    """How often this rule set of a slot was refused, and the last words."""

    rule_set: RuleSet
    words: str
    times: int = 0


@dataclass(frozen=True, slots=True)
class _Told:
    """A node with slots as proxies were told it, and their answer; `unplaced`: active slots without a proxy port."""

    node: NodePolicy
    answer: Programmed
    unplaced: frozenset[str] = frozenset()
    given_up: Mapping[int, str] = field(default_factory=dict)  # groups that are not on their newest policy, and why

    @property
    def failed(self) -> frozenset[str]:
        return frozenset(self.answer.refused) | self.unplaced


class Regenerator:
    """Owns the realized state of one node. One caller at a time; `regenerate` is not reentrant."""

    def __init__(
        self,
        proxies: Proxies,
        kernel: Kernel,
        books: Books,
        *,
        save: Callable[[Books], None],
        is_free: IsFree,
        now: Callable[[], float],
        ack_timeout: float,
    ) -> None:
        """`ack_timeout`: seconds after which the peers of a slot that nobody confirms are denied."""
        self._proxies = proxies
        self._kernel = kernel
        self._books = books
        self._save = save
        self._is_free = is_free
        self._now = now
        self._ack_timeout = ack_timeout
        self._resting: dict[str, float] = {}  # slots without a listener -> when Envoy has drained it, at the latest
        self._late: dict[str, float] = {}  # slots that wait for an answer -> since when
        self._refusals: dict[str, _Refusal] = {}
        self._good: dict[int, EndpointPolicy] = {}  # by group: the newest policy that was enforced whole
        self._served: dict[str, Slot] = {}  # slots in the form that proxies were told last
        # Slots that a proxy has confirmed: at first those that an earlier agent left behind, with Envoy still serving,
        # and whom the kernel sends there since.
        self._proven = set(books.ports.by_slot)
        self._in_force = InForce(reach={r.name: r.sent for r in books.slots.records})
        self._prompt = ack_timeout  # the first time: what an earlier agent left in force is better than a hurry

    @property
    def ports(self) -> Mapping[str, int]:
        return self._books.ports.by_slot

    async def regenerate(self, desired: NodePolicy) -> Outcome:
        """Make `desired` (compiled, without slots) real and say what of it could not be, or not yet.

        Raises EffectFailed; what has been done until then stands, and the next call starts from there.
        """
        self._forget_rested()
        failures: dict[str, bool] = {}
        told = await self._tell_what_can_be(desired, failures)
        failures.update(dict.fromkeys(await self._enforce(told), False))
        missing = await self._retire(told)
        self._prompt = PROMPT_SECONDS
        late = (f"slot {name}: no proxy has confirmed it yet" for name in sorted(missing | told.answer.missing))
        return Outcome(
            told.node,
            (*failures, *late),
            complete=not missing and not told.answer.missing and not failures,
            retry=any(failures.values()),
            due=self._due(told, missing),
            behind=self._behind(told, missing),
        )

    async def _tell_what_can_be(self, desired: NodePolicy, failures: dict[str, bool]) -> _Told:
        """Tell proxies `desired`; where that fails, the last good policy of the groups concerned; where that fails as
        well, deny. Adds a line for each failure, and whether another try may help."""
        before = self._books.slots
        failed: dict[int, int] = {}  # group -> how often
        why: dict[int, str] = {}
        for _ in range(ROUNDS_MAX):
            told = await self._tell(_with_last_good(desired, self._good, failed), before)
            failures.update(self._lines(told))
            if not told.failed:
                break
            culprits = {slot.group: slot.name for slot in reversed(told.node.slots) if slot.name in told.failed}
            for group, name in culprits.items():
                failed[group] = failed.get(group, 0) + 1
                words = told.answer.refused.get(name)
                why.setdefault(group, f"slot {name}: " + (f"refused: {words}" if words else "no free proxy port"))
            # A refused listener may have met a busy port: the next try takes another one. The slots of this try are
            # forgotten with it, so that those of the last good policy are as they were.
            self._keep(Books(before, self._books.ports.without(told.failed - self._proven)))
        return replace(told, given_up=why)

    async def _tell(self, desired: NodePolicy, known: SlotBook) -> _Told:
        """Assign slots and ports, write that down, and tell the proxies everything but what is to be retired."""
        node, book = assign(desired, known)
        listening = [s for s in node.slots if s.state is SlotState.ACTIVE or s.name in self.ports]
        ports = self._books.ports.assign(listening, self._is_free, named_ports(node))
        unplaced = frozenset({s.name for s in listening} - ports.by_slot.keys())
        self._keep(Books(book, ports))
        await self._kernel.reserve(places(node, ports.by_slot))
        parked = self._parked(node)
        if parked:
            return _Told(node, Programmed(parked), unplaced)
        if not self._served:
            await self._close_after_restart(node)
        answer = await self._publish(self._staged(node))
        self._book_refusals(node, answer)
        return _Told(node, answer, unplaced)

    async def _close_after_restart(self, node: NodePolicy) -> None:
        """Deny those who left a slot while no agent ran, before its rules become those of others."""
        interim = after_restart(self._in_force, node)
        if interim is not None:
            await self._kernel.program(interim, self.ports)
            self._in_force = InForce.of(interim, self.ports)

    async def _enforce(self, told: _Told) -> tuple[str, ...]:
        """Program the kernel with all that needs no late proxy; peers of late slots stay as they were. Returns what it
        has no room for."""
        now, missing = self._now(), told.answer.missing
        waiting = {name: now - self._late[name] < self._ack_timeout for name in missing}
        unready = told.failed | (missing - self._proven)
        ports = {name: port for name, port in self.ports.items() if name not in unready}
        node = meanwhile(told.node, self._in_force, waiting)
        closed = await self._kernel.program(node, ports)
        self._in_force = InForce.of(node, ports)
        self._proven = set(ports)
        late = {slot.group for slot in told.node.slots if slot.name in missing and slot.state is SlotState.ACTIVE}
        behind = late | told.given_up.keys()
        self._good = {
            policy.group: self._good.get(policy.group, policy) if policy.group in behind else policy
            for policy in told.node.policies
            if policy.group in self._good or policy.group not in behind
        }
        return closed

    async def _retire(self, told: _Told) -> frozenset[str]:
        """Where the kernel sends nothing any more: change what inactive slots answer, then take their listeners away.

        Their filters stay: connections that Envoy drains are still judged by them. Returns what is not confirmed.
        """
        left = [s for s in told.node.slots if s.state is not SlotState.ACTIVE and s.name not in self._in_force.reach]
        missing = told.answer.missing
        if any(slot.name in self.ports or self._served.get(slot.name) != slot for slot in left):
            missing = (await self._publish(self._staged(told.node))).missing
        gone = [slot.name for slot in left if slot.name in self.ports and slot.name not in missing]
        if gone:
            self._keep(replace(self._books, ports=self._books.ports.without(gone)))
            missing = (await self._publish(self._staged(told.node))).missing
            await self._kernel.reserve(places(told.node, self.ports))
        for slot in left:
            if slot.name not in self.ports:
                self._resting.setdefault(slot.name, self._now() + REST_SECONDS[slot.parser])
        return missing

    async def _publish(self, node: NodePolicy) -> Programmed:
        answer = await self._proxies.program(node, self.ports, Patience(self._prompt, self._late.keys()))
        self._served = {slot.name: slot for slot in node.slots}
        self._late = {name: self._late.get(name, self._now()) for name in answer.missing}
        return answer

    def _staged(self, node: NodePolicy) -> NodePolicy:
        """`node` with slots to be retired still in the form they have, where the kernel yet sends connections there."""
        reach = self._in_force.reach
        slots = (
            self._served.get(s.name, s) if s.state is not SlotState.ACTIVE and s.name in reach else s
            for s in node.slots
        )
        return replace(node, slots=tuple(slots))

    def _due(self, told: _Told, missing: frozenset[str]) -> float | None:
        """When peers of a late slot will have waited long enough; at once if an answer has come since, or a slot need
        not rest."""
        now = self._now()
        if told.answer.missing - missing or any(until <= now for until in self._resting.values()):
            return 0.0
        left = (self._late[name] + self._ack_timeout - now for name in told.answer.missing)
        return min((seconds for seconds in left if seconds > 0), default=None)

    def _behind(self, told: _Told, missing: frozenset[str]) -> dict[int, str]:
        """Groups that are not on their newest policy, each with its first reason."""
        found = {
            slot.group: f"slot {slot.name}: no proxy has confirmed it yet"
            for slot in reversed(told.node.slots)
            if slot.state is SlotState.ACTIVE and slot.name in missing | told.answer.missing
        }
        return found | dict(told.given_up)

    def _parked(self, node: NodePolicy) -> dict[str, str]:
        """Slots that were refused often enough as they are, and the proxy's words."""
        found = {}
        for slot in node.slots:
            refusal = self._refusals.get(slot.name)
            if refusal is not None and refusal.times >= REFUSALS_MAX and refusal.rule_set == slot.rule_set:
                found[slot.name] = refusal.words
        return found

    def _book_refusals(self, node: NodePolicy, answer: Programmed) -> None:
        for slot in node.slots:
            words, known = answer.refused.get(slot.name), self._refusals.get(slot.name)
            if words is not None:
                times = known.times if known is not None and known.rule_set == slot.rule_set else 0
                self._refusals[slot.name] = _Refusal(slot.rule_set, words, times + 1)
            elif known is not None and slot.name not in answer.missing and known.rule_set == slot.rule_set:
                del self._refusals[slot.name]

    def _lines(self, told: _Told) -> dict[str, bool]:
        """A line for each failure, and whether another try may help."""
        parked = {name for name, refusal in self._refusals.items() if refusal.times >= REFUSALS_MAX}
        lines = {
            f"slot {name}: refused by the proxy: {words}": name not in parked
            for name, words in sorted(told.answer.refused.items())
        }
        if told.unplaced:
            ports, first = self._books.ports, min(told.unplaced)
            more = f" and {len(told.unplaced) - 1} more" if len(told.unplaced) > 1 else ""
            lines[f"slot {first}{more}: no free proxy port in {ports.first}-{ports.last}: widen --proxy-ports"] = True
        return lines

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


def _with_last_good(desired: NodePolicy, good: Mapping[int, EndpointPolicy], failed: Mapping[int, int]) -> NodePolicy:
    """`desired`, but groups that failed on their last good policy, or on deny where there is none (law 1), or where
    that failed as well."""
    if not failed:
        return desired
    policies = []
    for policy in desired.policies:
        times = failed.get(policy.group, 0)
        last = good.get(policy.group) if times == 1 else None
        policies.append(policy if not times else last or _denied(policy))
    return replace(desired, policies=tuple(policies))


def _denied(policy: EndpointPolicy) -> EndpointPolicy:
    """Deny in each direction that the policy enforces."""
    return replace(
        policy,
        ingress=DirectionPolicy(enforced=policy.ingress.enforced),
        egress=DirectionPolicy(enforced=policy.egress.enforced),
    )
