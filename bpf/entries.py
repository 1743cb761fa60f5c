"""What the kernel's maps hold, or should: packed entries, and those of the policy map in runs. Pure.

A node of 100 policy groups that 10,000 identities may reach has a million policy entries. One by one they would cost
the agent 200 MB and seconds; as runs (one value for many identities, the very bitmap of the IR) they cost nothing until
one of them changes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pyroaring import FrozenBitMap

from bpf.encoding import PolicyKey
from bpf.layout import POLICY_KEY, POLICY_VALUE
from policies.ir import Address, Endpoint, EndpointPolicy, ServiceAddress

Entries = Mapping[bytes, bytes]


class Place(NamedTuple):
    """A policy key without group and identity."""

    bits: int  # POLICY_BITS_ANY .. POLICY_BITS_PORT
    direction: int
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Run:
    """One value for all of these identities (0: every other one) at one place of a group."""

    place: Place
    value: bytes
    identities: FrozenBitMap

    def keys(self, group: int) -> bytes:
        """Packed, one after the other."""
        bits, direction, protocol, port = self.place
        return PolicyKey.pack_all(PolicyKey(bits, group, 0, direction, protocol, port), self.identities)


@dataclass(frozen=True, slots=True)
class GroupEntries:
    """Policy entries of one group; no key is in two runs. `policy` and `ports` (slot, proxy port) are what they were
    made of, where that is known."""

    runs: tuple[Run, ...] = ()
    policy: EndpointPolicy | None = field(default=None, compare=False, repr=False)
    ports: tuple[tuple[str, int], ...] = field(default=(), compare=False, repr=False)

    @property
    def count(self) -> int:
        return sum(len(run.identities) for run in self.runs)

    def by_place(self) -> dict[Place, list[tuple[bytes, FrozenBitMap]]]:
        """(value, identities) of each place."""
        found: dict[Place, list[tuple[bytes, FrozenBitMap]]] = {}
        for run in self.runs:
            found.setdefault(run.place, []).append((run.value, run.identities))
        return found


NO_ENTRIES = GroupEntries()


@dataclass(frozen=True, slots=True)
class Desired:
    """Entries of every map that the agent writes, `policy` by group; also the form of what is realised.

    `closed` tells, one line each, what could not be put into the maps and is denied instead. `prefixes` are the keys of
    `ipcache` by the text that they were made of. `made_of`: addresses, endpoints and services that it was made of.
    """

    endpoints: Entries = field(default_factory=dict)
    ipcache: Entries = field(default_factory=dict)
    policy: Mapping[int, GroupEntries] = field(default_factory=dict)
    services: Entries = field(default_factory=dict)
    closed: tuple[str, ...] = ()
    prefixes: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    made_of: tuple[tuple[Address, ...], tuple[Endpoint, ...], tuple[ServiceAddress, ...]] | None = field(
        default=None, compare=False, repr=False
    )

    def policy_entries(self) -> dict[bytes, bytes]:
        """Every policy entry by its packed key: for tests and for the eye, not for a million of them."""
        return {
            key: run.value
            for group, entries in self.policy.items()
            for run in entries.runs
            for key in split(run.keys(group), POLICY_KEY.size)
        }


def split(packed: bytes, size: int) -> Iterator[bytes]:
    """The pieces of `size` bytes each that `packed` is made of."""
    return (packed[at : at + size] for at in range(0, len(packed), size))


def group_entries(keys: bytes, values: bytes) -> dict[int, GroupEntries]:
    """Packed keys and values of the policy map, in any order -> entries by group."""
    places: dict[tuple[int, ...], dict[bytes, array[int]]] = {}
    pairs = zip(struct.iter_unpack(POLICY_KEY.format, keys), split(values, POLICY_VALUE.size), strict=True)
    for (bits, group, identity, direction, protocol, port), value in pairs:
        runs = places.setdefault((group, bits, direction, protocol, int.from_bytes(port, "big")), {})
        runs.setdefault(value, array("I")).append(identity)
    found: dict[int, list[Run]] = {}
    for (group, *place), runs in sorted(places.items()):
        made = [Run(Place(*place), value, FrozenBitMap(runs[value])) for value in sorted(runs)]
        found.setdefault(group, []).extend(made)
    return {group: GroupEntries(tuple(made)) for group, made in found.items()}
