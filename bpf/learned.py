"""Who lives where, from two sources: the policy (ir.Address), and names (what DNS answers have taught). Pure.

The policy's entries change with each compilation, those of names with each answer, and nobody waits for the other: what
the kernel is to hold for one prefix follows from both, and from nothing that was before. So writers may come in any
order, as long as each writes what is true when it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bpf.encoding import address_key, ipcache_identity, ipcache_value
from bpf.entries import Entries
from policies.types import (
    IDENTITY_FIRST_LOCAL,
    IDENTITY_LAST_LOCAL,
    IDENTITY_WORLD,
    IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6,
)

_WORLD: Final = frozenset((IDENTITY_WORLD, IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6))


@dataclass(slots=True)
class Layers:
    """Packed ipcache entries of the policy, and those of names above them. Not to be used from two threads at once."""

    policy: Entries = field(default_factory=dict)
    names: dict[bytes, bytes] = field(default_factory=dict)

    def truth(self, key: bytes) -> bytes | None:
        """The value that the kernel is to hold for this key; None: no entry. A pod, a node or the host is known better
        than by a name that somebody has given to its address; of what lies outside, the name says more."""
        known = self.policy.get(key)
        learned = self.names.get(key)
        if learned is None or (known is not None and not _is_outside(ipcache_identity(known))):
            return known
        return learned

    def learn(self, lives: Mapping[bytes, int]) -> dict[bytes, bytes]:
        """Packed addresses (4 or 16 bytes) -> identities. Returns the entries to write: none for what was known."""
        changed = {}
        for address, identity in lives.items():
            key, value = address_key(address), ipcache_value(identity)
            if self.names.get(key) == value:
                continue
            self.names[key] = value
            if self.truth(key) == value:
                changed[key] = value
        return changed


def _is_outside(identity: int) -> bool:
    """The world's, or of a prefix that a policy speaks of."""
    return identity in _WORLD or IDENTITY_FIRST_LOCAL <= identity <= IDENTITY_LAST_LOCAL
