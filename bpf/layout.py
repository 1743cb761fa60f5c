"""The contract between Python and the C programs: structs of keys, values and events, and the maps.

One table each; the C side is bpf/src/maps.h. `c_constants()` and `c_assertions()` are compiled together with it, so a
difference in size or offset stops the build instead of corrupting a map. Pure: touches nothing.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

from bpf.constants import CONSTANTS, ENDPOINT_ADDRESSES, ENUMS, METRIC_DIRECTIONS, METRIC_REASONS, Counter

# Raise it when a key, a value or the meaning of one changes: pinned maps of another version are replaced, not read.
LAYOUT_VERSION = 2

# --- structs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Struct:
    """A C struct: its name there, and (member, struct code without byte order) in order, padding written out."""

    name: str
    members: tuple[tuple[str, str], ...]

    @property
    def format(self) -> str:
        return "=" + "".join(code for _, code in self.members)

    @property
    def size(self) -> int:
        return struct.calcsize(self.format)

    def offsets(self) -> list[tuple[str, int]]:
        """Offset of every member."""
        out, at = [], 0
        for member, code in self.members:
            out.append((member, at))
            at += struct.calcsize("=" + code)
        return out


ENDPOINT_KEY = Struct("endpoint_key", (("ifindex", "I"),))
ENDPOINT = Struct(
    "endpoint",
    (
        ("group", "I"),
        ("enforced", "B"),
        ("pad", "3x"),
        ("family", f"{ENDPOINT_ADDRESSES}s"),
        ("address", f"{16 * ENDPOINT_ADDRESSES}s"),
    ),
)
IPCACHE_KEY = Struct("ipcache_key", (("prefixlen", "I"), ("family", "B"), ("owner", "3x"), ("address", "16s")))
IPCACHE_VALUE = Struct("ipcache_value", (("identity", "I"), ("ifindex", "I")))
POLICY_KEY = Struct(
    "policy_key",
    (("prefixlen", "I"), ("group", "I"), ("identity", "I"), ("direction", "B"), ("protocol", "B"), ("port", "2s")),
)
POLICY_VALUE = Struct(
    "policy_value",
    (("verdict", "B"), ("scope", "B"), ("reason", "B"), ("pad", "x"), ("proxy_port", "H"), ("pad2", "2x")),
)
SERVICE_KEY = Struct("service_key", (("address", "16s"), ("port", "2s"), ("protocol", "B"), ("family", "B")))
SERVICE_VALUE = Struct("service_value", (("identity", "I"), ("target_port", "2s"), ("pad", "2x")))
CT_KEY = Struct(
    "ct_key",
    (
        ("local", "16s"),
        ("remote", "16s"),
        ("ifindex", "I"),
        ("local_port", "2s"),
        ("remote_port", "2s"),
        ("protocol", "B"),
        ("family", "B"),
        ("pad", "2x"),
    ),
)
CT_VALUE = Struct(
    "ct_value",
    (
        ("expires", "Q"),
        ("direction", "B"),
        ("flags", "B"),
        ("forward", "B"),
        ("reply", "B"),
        ("proxy_port", "H"),
        ("pad", "2x"),
        ("generation", "I"),
        ("pad2", "4x"),
    ),
)
FRAGMENT_KEY = Struct(
    "fragment_key",
    (
        ("source", "16s"),
        ("destination", "16s"),
        ("id", "I"),
        ("ifindex", "I"),
        ("protocol", "B"),
        ("family", "B"),
        ("pad", "2x"),
    ),
)
FRAGMENT_VALUE = Struct(
    "fragment_value",
    (("source_port", "2s"), ("destination_port", "2s"), ("icmp_type", "B"), ("icmp_code", "B"), ("pad", "2x")),
)
NAMESPACE = Struct("namespace", (("id", "i"),))
DENIED_VALUE = Struct("denied_value", (("told", "Q"),))
METRIC = Struct("metric", (("packets", "Q"), ("bytes", "Q")))
SETTINGS = Struct("settings", (("helper", "I"), ("generation", "I")))
EVENT = Struct(
    "event",
    (
        ("version", "B"),
        ("type", "B"),
        ("sub_type", "B"),
        ("trace_reason", "B"),
        ("direction", "B"),
        ("reply", "B"),
        ("family", "B"),
        ("protocol", "B"),
        ("time", "Q"),
        ("endpoint", "I"),
        ("ifindex", "I"),
        ("source_identity", "I"),
        ("destination_identity", "I"),
        ("source", "16s"),
        ("destination", "16s"),
        ("source_port", "H"),
        ("destination_port", "H"),
        ("tcp_flags", "B"),
        ("icmp_type", "B"),
        ("icmp_code", "B"),
        ("match_type", "B"),
        ("verdict", "i"),
        ("length", "I"),
        ("proxy_port", "H"),
        ("source_mac", "6s"),
        ("destination_mac", "6s"),
        ("pad", "2x"),
    ),
)
STRUCTS = (
    ENDPOINT_KEY,
    ENDPOINT,
    IPCACHE_KEY,
    IPCACHE_VALUE,
    POLICY_KEY,
    POLICY_VALUE,
    SERVICE_KEY,
    SERVICE_VALUE,
    CT_KEY,
    CT_VALUE,
    FRAGMENT_KEY,
    FRAGMENT_VALUE,
    NAMESPACE,
    DENIED_VALUE,
    METRIC,
    SETTINGS,
    EVENT,
)

# --- maps --------------------------------------------------------------------------------------------------------


class MapType(IntEnum):
    """enum bpf_map_type of the kernel; those we use."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


NO_PREALLOC = 1  # BPF_F_NO_PREALLOC; an LPM trie must have it


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map as the kernel is asked for it. `name` is also the name of its pin."""

    name: str
    type: MapType
    key_size: int  # bytes
    value_size: int  # bytes
    max_entries: int
    flags: int = 0


META_BYTES = 40  # u32 layout version, 4 bytes zero, SHA-256 of the programs
RING_BYTES = 4 << 20  # 40,000 events: a second of drops at line rate is more, and the rest is counted

# How many entries the agent may put into a map. The kernel gets room for twice as many: new entries are written before
# old ones are deleted.
CAPACITY = {"endpoints": 4096, "ipcache": 512_000, "policy": 1_000_000, "services": 65_536}

# The order gives each map the number by which programs name it: append only, or raise LAYOUT_VERSION.
MAPS = (
    MapSpec("endpoints", MapType.HASH, ENDPOINT_KEY.size, ENDPOINT.size, 2 * CAPACITY["endpoints"]),
    MapSpec("ipcache", MapType.LPM_TRIE, IPCACHE_KEY.size, IPCACHE_VALUE.size, 2 * CAPACITY["ipcache"], NO_PREALLOC),
    MapSpec("policy", MapType.LPM_TRIE, POLICY_KEY.size, POLICY_VALUE.size, 2 * CAPACITY["policy"], NO_PREALLOC),
    MapSpec("services", MapType.HASH, SERVICE_KEY.size, SERVICE_VALUE.size, 2 * CAPACITY["services"], NO_PREALLOC),
    MapSpec("ct", MapType.LRU_HASH, CT_KEY.size, CT_VALUE.size, 262_144),
    MapSpec("fragments", MapType.LRU_HASH, FRAGMENT_KEY.size, FRAGMENT_VALUE.size, 8192),
    MapSpec("namespaces", MapType.HASH, ENDPOINT_KEY.size, NAMESPACE.size, 2 * CAPACITY["endpoints"]),
    MapSpec("denied", MapType.LRU_HASH, CT_KEY.size, DENIED_VALUE.size, 16_384),
    MapSpec("metrics", MapType.PERCPU_ARRAY, 4, METRIC.size, METRIC_REASONS * METRIC_DIRECTIONS),
    MapSpec("counters", MapType.PERCPU_ARRAY, 4, 8, len(Counter)),
    MapSpec("settings", MapType.ARRAY, 4, SETTINGS.size, 1),
    MapSpec("events", MapType.RINGBUF, 0, 0, RING_BYTES),
    MapSpec("meta", MapType.ARRAY, 4, META_BYTES, 1),
)
MAP_NUMBER = {spec.name: number for number, spec in enumerate(MAPS)}

PROGRAMS = ("from_pod", "to_pod", "to_proxy")


def c_constants() -> str:
    """The #defines that the C sources expect."""
    values = dict(CONSTANTS)
    for prefix, members in ENUMS.items():
        values |= {f"{prefix}_{member.name}": member.value for member in members}
    values |= {f"MAP_NUMBER_{name.upper()}": number for name, number in MAP_NUMBER.items()}
    return "".join(f"#define {name} {value}\n" for name, value in values.items())


def c_assertions() -> str:
    """Static assertions that the structs of maps.h are those of this file, to be compiled after it."""
    lines = []
    for s in STRUCTS:
        lines.append(f'_Static_assert(sizeof(struct {s.name}) == {s.size}, "size of {s.name}");')
        lines += [
            f'_Static_assert(__builtin_offsetof(struct {s.name}, {member}) == {at}, "{s.name}.{member}");'
            for member, at in s.offsets()
        ]
    return "\n".join(lines) + "\n"


def meta_value(digest: bytes) -> bytes:
    """Value of `meta`: which layout and which programs are pinned beside it."""
    return struct.pack("=I4x32s", LAYOUT_VERSION, digest)


def source_digest(sources: dict[str, bytes]) -> bytes:
    """SHA-256 over the C sources by name and over everything this file adds to them."""
    text = hashlib.sha256()
    for name in sorted(sources):
        text.update(name.encode() + b"\0" + sources[name] + b"\0")
    text.update((c_constants() + c_assertions()).encode())
    return text.digest()
