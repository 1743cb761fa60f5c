"""Proxies and a kernel that only remember: for stories about the order of effects.

Held against the real thing by the conformance suite, which plays the same stories on Envoy and the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.node.ports import Place
from agent.node.regenerate import EffectFailed, Patience, Programmed
from policies.ir import NodePolicy, Slot, Verdict


@dataclass
class Effects:
    """What was done, in order, in words; and what a request or a packet would meet now."""

    log: list[str] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)  # slot -> the proxy's words
    silent: set[str] = field(default_factory=set)  # slots that nobody answers for
    kernel_fails: bool = False
    closed: tuple[str, ...] = ()  # what the kernel has no room for
    waited: float = 0.0  # seconds for answers that did not come
    listeners: dict[str, int] = field(default_factory=dict)
    filters: dict[str, Slot] = field(default_factory=dict)
    redirects: dict[tuple[int, int], str] = field(default_factory=dict)  # (group, identity) -> slot
    allowed: set[tuple[int, int]] = field(default_factory=set)  # (group, identity), plainly
    reserved: set[int] = field(default_factory=set)

    def take(self) -> list[str]:
        """The log since the last call."""
        taken, self.log = self.log, []
        return taken


class FakeProxies:
    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    async def program(self, node: NodePolicy, ports: Mapping[str, int], patience: Patience) -> Programmed:
        effects = self._effects
        listening = {slot.name: ports[slot.name] for slot in node.slots if slot.name in ports}
        refused = {name: words for name, words in effects.refuse.items() if name in listening}
        missing = frozenset(effects.silent & listening.keys())
        effects.waited += patience.seconds if missing - set(patience.late) else 0.0
        for name in sorted(effects.listeners.keys() - listening.keys()):
            effects.log.append(f"listener {name} goes")
        for slot in node.slots:
            if slot.name in refused or slot.name in missing:
                continue
            if slot.name in listening and slot.name not in effects.listeners:
                effects.log.append(f"listener {slot.name} comes")
            before = effects.filters.get(slot.name)
            if before is None or (before.rule_set, before.state) != (slot.rule_set, slot.state):
                effects.log.append(f"filter {slot.name} {slot.state}")
            effects.filters[slot.name] = slot
        effects.listeners = {n: p for n, p in listening.items() if n not in refused and n not in missing}
        return Programmed(refused, missing)


class FakeKernel:
    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    async def reserve(self, places: Iterable[Place]) -> None:
        self._effects.reserved = {port for _, port in places}

    async def program(self, node: NodePolicy, ports: Mapping[str, int]) -> tuple[str, ...]:
        effects = self._effects
        if effects.kernel_fails:
            raise EffectFailed("the map is full")
        wanted, allowed = {}, set()
        for policy in node.policies:
            for port in policy.ingress.ports:
                for peer in port.peers:
                    if peer.verdict is Verdict.ALLOW:
                        allowed |= {(policy.group, identity) for identity in peer.identities}
                    if peer.verdict is Verdict.REDIRECT and peer.slot in ports:
                        wanted.update({(policy.group, identity): peer.slot for identity in peer.identities})
        for key, slot in sorted(wanted.items()):
            assert slot in effects.listeners or slot in effects.silent, f"a redirect points at nothing: {slot}"
            if effects.redirects.get(key) != slot:
                effects.log.append(f"redirect {key[1]} to {slot}")
        effects.log += [f"redirect {key[1]} ends" for key in sorted(effects.redirects.keys() - wanted.keys())]
        effects.redirects, effects.allowed = wanted, allowed
        return effects.closed
