"""Names of container ports: which numbers a name has, on which identities. Pure.

An ingress rule means the names of its own pod, an egress rule those of each peer (facts 3.4). What has no such name is
not meant at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pyroaring import BitMap

from policies.types import Protocol


class PortName(NamedTuple):
    """`http` of TCP and `http` of UDP are two names."""

    name: str
    protocol: Protocol


OwnPorts = tuple[tuple[PortName, int], ...]  # sorted; a name may have several numbers


class NamedPorts:
    """Names of all pods of the cluster. Pods of one identity may have different numbers for a name: then all hold."""

    def __init__(self) -> None:
        self._pods: dict[object, tuple[Mapping[tuple[str, Protocol], int], int]] = {}
        self._users: dict[PortName, dict[int, Counter[int]]] = {}
        self._versions: Counter[PortName] = Counter()

    def set(self, pod: object, ports: Mapping[tuple[str, Protocol], int], identity: int) -> None:
        """The pod has these ports and this identity now; none: it is gone."""
        before = self._pods.pop(pod, None)
        if before is not None:
            self._count(*before, -1)
        if ports:
            self._pods[pod] = (ports, identity)
            self._count(ports, identity, 1)

    def version(self, names: Iterable[PortName]) -> int:
        """Rises whenever one of these names changes its meaning."""
        return sum(self._versions[name] for name in names)

    def carriers(self, name: PortName) -> list[tuple[int, BitMap]]:
        """(number, identities for which the name is that number), by number."""
        return [(number, BitMap(users.keys())) for number, users in sorted(self._users.get(name, {}).items())]

    def _count(self, ports: Mapping[tuple[str, Protocol], int], identity: int, times: int) -> None:
        for (text, protocol), number in ports.items():
            name = PortName(text, protocol)
            users = self._users.setdefault(name, {}).setdefault(number, Counter())
            users[identity] += times
            if users[identity] == max(times, 0):
                self._versions[name] += 1
            if not users[identity]:
                del users[identity]
                if not users:
                    del self._users[name][number]
                    if not self._users[name]:
                        del self._users[name]
