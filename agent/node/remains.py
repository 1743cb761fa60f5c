"""What an earlier agent left in the kernel, for one that has lost the books about it (state.json). Pure.

Numbers that stand in pinned maps must not get a second meaning while both policies are there: neither identities nor
proxy ports.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from bpf.constants import Code
from bpf.entries import Desired
from bpf.layout import ENDPOINT, IPCACHE_VALUE, POLICY_VALUE
from policies.compiling.identity import Scope

_ENDPOINT: Final = struct.Struct(ENDPOINT.format)
_IPCACHE_VALUE: Final = struct.Struct(IPCACHE_VALUE.format)
_POLICY_VALUE: Final = struct.Struct(POLICY_VALUE.format)


@dataclass(frozen=True, slots=True)
class Remains:
    """Allocated identities and proxy ports that are in the maps."""

    identities: frozenset[int] = frozenset()
    ports: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.identities or self.ports)

    @property
    def highest(self) -> dict[Scope, int]:
        """The highest number of each scope, but where there is no room behind it."""
        found = {}
        for scope in Scope:
            first, last = scope.value
            used = [number for number in self.identities if first <= number <= last]
            if used and last - max(used) > len(used):
                found[scope] = max(used)
        return found


def remains(realized: Desired) -> Remains:
    """Read from what the maps hold."""
    found = {_ENDPOINT.unpack(value)[0] for value in realized.endpoints.values()}
    found |= {_IPCACHE_VALUE.unpack(value)[0] for value in realized.ipcache.values()}
    ports = set()
    for group, entries in realized.policy.items():
        found.add(group)
        for run in entries.runs:
            found.update(run.identities)
            code, _, _, port = _POLICY_VALUE.unpack(run.value)
            if code == Code.REDIRECT:
                ports.add(port)
    allocated = frozenset(i for i in found if any(first <= i <= last for first, last in (s.value for s in Scope)))
    return Remains(allocated, frozenset(ports))
