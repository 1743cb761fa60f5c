"""Proxy ports: which slot listens where. Pure, but for the question whether a port is free, which is an argument.

A slot's listener takes no connection to its own port (it was not redirected), so a slot must not listen within the
range that it judges: the pod's own port would be refused. Ports that services and policies of the node name are left
alone as well, since something on the host may want them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from policies.ir import NodePolicy, Slot
from policies.types import Direction, Protocol

NAMED_RANGE_MAX: Final = 16  # a rule for more ports than this names none of them

IsFree = Callable[[Protocol, int], bool]
Place = tuple[Protocol, int]


@dataclass(frozen=True, slots=True)
class ProxyPorts:
    """An immutable assignment of slot names to ports of first..last.

    Ports are handed out in turn and not soon again: Envoy drains a removed listener for a while, and a connection of
    the old slot must never meet the listener of a new one.
    """

    first: int
    last: int
    by_slot: Mapping[str, int] = field(default_factory=dict)
    following: int = 0

    def assign(self, slots: Iterable[Slot], is_free: IsFree, named: Container[int] = ()) -> ProxyPorts:
        """Ports for exactly these slots, as far as there are any: who has one keeps it, the others get the next free
        one, outside of the range that they judge and better not one that is `named`."""
        wanted = {slot.name: slot for slot in slots}
        by_slot = {name: self.by_slot[name] for name in sorted(wanted) if name in self.by_slot}
        turn = _Turn(self, set(by_slot.values()), is_free)
        for name in sorted(wanted.keys() - by_slot.keys()):
            port = turn.take(wanted[name], named)
            if port is not None:
                by_slot[name] = port
        return ProxyPorts(self.first, self.last, by_slot, turn.following)

    def without(self, slots: Container[str]) -> ProxyPorts:
        """The same without these slots, e.g. when their port turned out to be busy."""
        kept = {name: port for name, port in self.by_slot.items() if name not in slots}
        return ProxyPorts(self.first, self.last, kept, self.following)

    def to_dict(self) -> dict[str, object]:
        return {"by_slot": dict(sorted(self.by_slot.items())), "following": self.following}

    def restored(self, stored: Mapping[str, object]) -> ProxyPorts:
        """This range with a stored assignment; ports outside the range are forgotten."""
        by_slot = stored.get("by_slot")
        kept = by_slot if isinstance(by_slot, dict) else {}
        following = stored.get("following")
        return ProxyPorts(
            self.first,
            self.last,
            {str(n): p for n, p in kept.items() if isinstance(p, int) and self.first <= p <= self.last},
            following if isinstance(following, int) and self.first <= following <= self.last else 0,
        )


class _Turn:
    """Hands out ports, beginning where the last turn ended; asks for each port at most once whether it is free."""

    def __init__(self, ports: ProxyPorts, taken: set[int], is_free: IsFree) -> None:
        start = ports.following or ports.first
        self.following = start
        self._last, self._first = ports.last, ports.first
        self._order = [*range(start, ports.last + 1), *range(ports.first, start)]
        self._taken = taken
        self._is_free = is_free

    def take(self, slot: Slot, named: Container[int]) -> int | None:
        """The next free port; None if there is none. A slot for the whole range of proxy ports takes any."""
        own = slot.ports
        is_inside = own.first <= self._first and self._last <= own.last
        second: int | None = None
        for port in self._order:
            if port in self._taken or (port in own and not is_inside):
                continue
            if port in named and second is not None:
                continue
            if not self._is_free(slot.protocol, port):
                self._taken.add(port)
            elif port in named:
                second = port
            else:
                return self._give(port)
        return self._give(second) if second is not None else None

    def _give(self, port: int) -> int:
        self._taken.add(port)
        self.following = port + 1 if port < self._last else self._first
        at = self._order.index(port) + 1
        self._order = [*self._order[at:], *self._order[:at]]
        return port


def places(node: NodePolicy, ports: Mapping[str, int]) -> set[Place]:
    """Where the slots of the node listen, with this assignment."""
    return {(slot.protocol, ports[slot.name]) for slot in node.slots if slot.name in ports}


def named_ports(node: NodePolicy) -> frozenset[int]:
    """Ports that some service or rule of the node speaks of."""
    found = {port for service in node.services for port in (service.port, service.target_port)}
    for policy in node.policies:
        for direction in Direction:
            for rules in policy.direction(direction).ports:
                if rules.ports.last - rules.ports.first < NAMED_RANGE_MAX:
                    found.update(range(rules.ports.first, rules.ports.last + 1))
    return frozenset(found)
