"""Proxy ports: which slot listens where. Pure, but for the question whether a port is free, which is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


class PortsExhausted(Exception):
    """Every port of the range is taken."""


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

    def assign(self, slots: Iterable[str], is_free: Callable[[int], bool]) -> ProxyPorts:
        """Ports for exactly these slots: those that have one keep it, the others get the next free one.

        Raises PortsExhausted when the range has no free port left.
        """
        wanted = sorted(set(slots))
        by_slot = {name: self.by_slot[name] for name in wanted if name in self.by_slot}
        taken = set(by_slot.values())
        following = self.following or self.first
        for name in wanted:
            if name not in by_slot:
                port = self._next(following, taken, is_free)
                by_slot[name] = port
                taken.add(port)
                following = port + 1 if port < self.last else self.first
        return ProxyPorts(self.first, self.last, by_slot, following)

    def without(self, slots: Iterable[str]) -> ProxyPorts:
        """The same without these slots, e.g. when their port turned out to be busy."""
        gone = set(slots)
        kept = {name: port for name, port in self.by_slot.items() if name not in gone}
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

    def _next(self, start: int, taken: set[int], is_free: Callable[[int], bool]) -> int:
        size = self.last - self.first + 1
        for step in range(size):
            port = self.first + (start - self.first + step) % size
            if port not in taken and is_free(port):
                return port
        raise PortsExhausted(f"no free proxy port in {self.first}-{self.last}: widen --proxy-ports")
