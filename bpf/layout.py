"""The contract between Python and the C programs: constants, structs of keys, values and events, and the maps.

One table each; the C side is bpf/src/maps.h. `c_constants()` and `c_assertions()` are compiled together with it, so a
difference in size or offset stops the build instead of corrupting a map. Pure: packs and unpacks, touches nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Self

from policies.types import (
    IDENTITY_ANY,
    IDENTITY_HOST,
    IDENTITY_KUBE_APISERVER,
    IDENTITY_REMOTE_NODE,
    IDENTITY_WORLD,
    Direction,
)

# Raise it when a key, a value or the meaning of one changes: pinned maps of another version are replaced, not read.
LAYOUT_VERSION = 2

# --- marks (docs/architecture.md, section B) ---------------------------------------------------------------------
MARK_MASK = 0xF00
MARK_TO_PROXY = 0x200
MARK_INGRESS_UPSTREAM = 0xA00
MARK_EGRESS_UPSTREAM = 0xB00
MARK_INGRESS_ANSWER = 0xC00
MARK_EGRESS_ANSWER = 0xD00
ROUTE_TABLE = 2004


class Dir(IntEnum):
    """Direction in keys and events; the numbers of Hubble's TrafficDirection."""

    UNKNOWN = 0
    INGRESS = 1
    EGRESS = 2

    @classmethod
    def of(cls, direction: Direction) -> Dir:
        return cls.INGRESS if direction is Direction.INGRESS else cls.EGRESS


class Code(IntEnum):
    """Verdict of a policy entry; 0 is none of them and denies."""

    ALLOW = 1
    DENY = 2
    REDIRECT = 3


class Scope(IntEnum):
    """How much of protocol and port a policy entry names."""

    ANY = 0
    PROTOCOL = 1
    PORTS = 2


class Reason(IntEnum):
    """Why a packet was dropped: the numbers of Hubble's DropReason (0: it passed)."""

    NONE = 0
    INVALID_SOURCE = 132
    POLICY_DENIED = 133
    INVALID_PACKET = 134
    UNSUPPORTED_L3 = 139
    CT_INSERTION_FAILED = 155
    INVALID_EXTENSION = 156
    FRAGMENTS_UNSUPPORTED = 157
    SERVICE_BACKEND = 158
    ENCAPSULATION = 170
    FRAGMENT_NOT_FOUND = 175
    FORBIDDEN_ICMP6 = 176
    SOCKET_LOOKUP_FAILED = 178
    SOCKET_ASSIGN_FAILED = 179
    PROXY_PROTOCOL = 180
    POLICY_DENY = 181
    NOT_READY = 203


class EventType(IntEnum):
    """Numbers of Hubble's CiliumEventType."""

    DROP = 1
    TRACE = 4
    VERDICT = 5


class Observed(IntEnum):
    """Where a trace was seen: the sub type of a trace event as Cilium's data path numbers it."""

    TO_ENDPOINT = 0
    TO_PROXY = 1
    TO_STACK = 3


class TraceReason(IntEnum):
    """Numbers of Hubble's TraceReason."""

    UNKNOWN = 0
    NEW = 1
    ESTABLISHED = 2
    REPLY = 3
    RELATED = 4


class Match(IntEnum):
    """Hubble's policy_match_type."""

    NONE = 0
    L3_ONLY = 1
    L3_L4 = 2
    L4_ONLY = 3
    ALL = 4
    L3_PROTO = 5
    PROTO_ONLY = 6


class Reply(IntEnum):
    """Whether an event is about a reply."""

    NO = 0
    YES = 1
    UNKNOWN = 2


class Counter(IntEnum):
    """Index in the map `counters`."""

    EVENTS_LOST = 0  # the ring was full
    EVENTS_BOUNDED = 1  # a drop of a tuple that was told a moment ago


ENFORCED_INGRESS = 1
ENFORCED_EGRESS = 2
CT_PROXIED = 1  # the proxy has the connection of the side that opened it
CT_FROM_PROXY = 2  # the proxy opened it
ENDPOINT_ADDRESSES = 4
METRIC_DIRECTIONS = 4
METRIC_REASONS = 256
EVENT_VERSION = 1

GENERATION_MAX = 0xFFFFFFFF

IPCACHE_FIXED_BITS = 32  # family and padding
POLICY_BITS_ANY = 72  # group, identity, direction
POLICY_BITS_PROTOCOL = 80
POLICY_BITS_PORT = 96

CONSTANTS: dict[str, int] = {
    "MARK_MASK": MARK_MASK,
    "MARK_TO_PROXY": MARK_TO_PROXY,
    "MARK_INGRESS_UPSTREAM": MARK_INGRESS_UPSTREAM,
    "MARK_EGRESS_UPSTREAM": MARK_EGRESS_UPSTREAM,
    "MARK_INGRESS_ANSWER": MARK_INGRESS_ANSWER,
    "MARK_EGRESS_ANSWER": MARK_EGRESS_ANSWER,
    "IDENTITY_ANY": IDENTITY_ANY,
    "IDENTITY_HOST": IDENTITY_HOST,
    "IDENTITY_WORLD": IDENTITY_WORLD,
    "IDENTITY_REMOTE_NODE": IDENTITY_REMOTE_NODE,
    "IDENTITY_KUBE_APISERVER": IDENTITY_KUBE_APISERVER,
    "ENFORCED_INGRESS": ENFORCED_INGRESS,
    "ENFORCED_EGRESS": ENFORCED_EGRESS,
    "CT_PROXIED": CT_PROXIED,
    "CT_FROM_PROXY": CT_FROM_PROXY,
    "ENDPOINT_ADDRESSES": ENDPOINT_ADDRESSES,
    "METRIC_DIRECTIONS": METRIC_DIRECTIONS,
    "EVENT_VERSION": EVENT_VERSION,
    "IPCACHE_FIXED_BITS": IPCACHE_FIXED_BITS,
    "POLICY_BITS_ANY": POLICY_BITS_ANY,
    "POLICY_BITS_PROTOCOL": POLICY_BITS_PROTOCOL,
    "POLICY_BITS_PORT": POLICY_BITS_PORT,
    # Tunables. TCP: Linux keeps an idle established connection alive after 7,200 s, so it must live a little longer.
    "CT_SECONDS_TCP": 8000,
    "CT_SECONDS_SYN": 60,
    "CT_SECONDS_CLOSING": 10,
    "CT_SECONDS_UDP": 60,
    "CT_SECONDS_ICMP": 60,
    # Where Linux begins to number the ports of those who connect (net.ipv4.ip_local_port_range).
    "EPHEMERAL_PORT": 32768,
    # Shorter than the first retransmission of a SYN (1 s): each of these is told.
    "DENIED_NANOSECONDS": 200_000_000,
}
ENUMS: dict[str, type[IntEnum]] = {
    "DIRECTION": Dir,
    "VERDICT": Code,
    "SCOPE": Scope,
    "REASON": Reason,
    "EVENT": EventType,
    "OBSERVED": Observed,
    "TRACE": TraceReason,
    "MATCH": Match,
    "REPLY": Reply,
    "COUNTER": Counter,
}

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
IPCACHE_KEY = Struct("ipcache_key", (("prefixlen", "I"), ("family", "B"), ("pad", "3x"), ("address", "16s")))
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


# --- packing -----------------------------------------------------------------------------------------------------


def address_bytes(address: str) -> tuple[int, bytes]:
    """(family, 16 bytes): an IPv4 address takes the first four, the rest is zero. ValueError for a bad one."""
    parsed = ipaddress.ip_address(address)
    return parsed.version, parsed.packed.ljust(16, b"\0")


def address_text(family: int, raw: bytes) -> str:
    """The inverse of address_bytes; "" for family 0 (a packet that was not IP)."""
    if family == 4:
        return str(ipaddress.IPv4Address(raw[:4]))
    return str(ipaddress.IPv6Address(raw)) if family == 6 else ""


def port_bytes(port: int) -> bytes:
    """Network byte order."""
    return port.to_bytes(2, "big")


_ENDPOINT_KEY = struct.Struct(ENDPOINT_KEY.format)
_ENDPOINT = struct.Struct(ENDPOINT.format)
_IPCACHE_KEY = struct.Struct(IPCACHE_KEY.format)
_IPCACHE_VALUE = struct.Struct(IPCACHE_VALUE.format)
_POLICY_KEY = struct.Struct(POLICY_KEY.format)
_POLICY_VALUE = struct.Struct(POLICY_VALUE.format)
_IDENTITY = struct.Struct("=I")
_PREFIX = struct.Struct("=I")
_IDENTITY_AT = dict(POLICY_KEY.offsets())["identity"]
_SERVICE_KEY = struct.Struct(SERVICE_KEY.format)
_SERVICE_VALUE = struct.Struct(SERVICE_VALUE.format)


def endpoint_key(ifindex: int) -> bytes:
    return _ENDPOINT_KEY.pack(ifindex)


def endpoint_value(group: int, enforced: int, addresses: tuple[str, ...]) -> bytes:
    """The first ENDPOINT_ADDRESSES addresses in sorted order; the pod may not send from any further one (closed)."""
    known = sorted(address_bytes(a) for a in addresses)[:ENDPOINT_ADDRESSES]
    return _ENDPOINT.pack(group, enforced, bytes(f for f, _ in known), b"".join(raw for _, raw in known))


def ipcache_key(prefix: str) -> bytes:
    """`prefix` as in ir.Address: "10.0.0.7/32". ValueError for a bad one or one with host bits."""
    net = ipaddress.ip_network(prefix)
    return _IPCACHE_KEY.pack(
        IPCACHE_FIXED_BITS + net.prefixlen, net.version, net.network_address.packed.ljust(16, b"\0")
    )


def host_prefix_key(address: str) -> bytes:
    """The key of this one address."""
    family, raw = address_bytes(address)
    return _IPCACHE_KEY.pack(IPCACHE_FIXED_BITS + (32 if family == 4 else 128), family, raw)


def prefix_length(key: bytes) -> int:
    """Of a packed key of an LPM map, in bits, with those that come before the address or port."""
    length: int = _PREFIX.unpack_from(key)[0]
    return length


def ipcache_value(identity: int, ifindex: int = 0) -> bytes:
    """`ifindex` is that of the veth behind which the address lives, 0 if it is not a pod's of this node."""
    return _IPCACHE_VALUE.pack(identity, ifindex)


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """One entry of the policy map; `bits` is POLICY_BITS_ANY .. POLICY_BITS_PORT."""

    bits: int
    group: int
    identity: int
    direction: int
    protocol: int = 0
    port: int = 0

    def pack(self) -> bytes:
        return _POLICY_KEY.pack(
            self.bits, self.group, self.identity, self.direction, self.protocol, port_bytes(self.port)
        )

    def pack_all(self, identities: Iterable[int]) -> bytes:
        """This key for each of these identities instead of its own, one after the other."""
        raw = self.pack()
        head, tail = raw[:_IDENTITY_AT], raw[_IDENTITY_AT + 4 :]
        middle = (tail + head).join(map(_IDENTITY.pack, identities))
        return head + middle + tail if middle else b""

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        bits, group, identity, direction, protocol, port = _POLICY_KEY.unpack(raw)
        return cls(bits, group, identity, direction, protocol, int.from_bytes(port, "big"))


def policy_value(code: Code, scope: Scope, reason: Reason = Reason.NONE, proxy_port: int = 0) -> bytes:
    return _POLICY_VALUE.pack(code, scope, reason, proxy_port)


def service_key(address: str, port: int, protocol: int) -> bytes:
    family, raw = address_bytes(address)
    return _SERVICE_KEY.pack(raw, port_bytes(port), protocol, family)


def service_value(identity: int, target_port: int) -> bytes:
    return _SERVICE_VALUE.pack(identity, port_bytes(target_port))


@dataclass(frozen=True, slots=True)
class Settings:
    """The one entry of `settings`."""

    helper: int = 0  # interface index of the helper device; 0: there is none yet
    generation: int = 0  # of what is in the maps; 0: every packet is judged anew

    def pack(self) -> bytes:
        return struct.pack(SETTINGS.format, self.helper, self.generation)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        return cls(*struct.unpack(SETTINGS.format, raw))

    def after_change(self) -> Self:
        """The next generation, which is never 0."""
        return replace(self, generation=self.generation % GENERATION_MAX + 1)


def namespace_value(number: int) -> bytes:
    return struct.pack(NAMESPACE.format, number)


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


# --- events ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """One kernel event. Enumerations are given as numbers, as they came: a newer program may know more than we do."""

    type: int  # EventType
    sub_type: int  # drop: Reason; trace: Observed; verdict: 0
    trace_reason: int  # TraceReason
    direction: int  # Dir, of the connection as the endpoint sees it
    reply: int  # Reply
    family: int  # 4, 6; 0 where the packet was not readable as IP
    protocol: int
    time_ns: int  # nanoseconds of CLOCK_MONOTONIC; ringbuf adds the offset to real time
    endpoint: int  # interface index of the pod's veth (ir.Endpoint.id); 0 on the helper device
    ifindex: int
    source_identity: int
    destination_identity: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    match_type: int  # Match, of a verdict
    verdict: int  # of a verdict: -reason, 0 or the proxy port
    length: int  # bytes, with the link header
    proxy_port: int
    source_mac: bytes
    destination_mac: bytes


_EVENT = struct.Struct(EVENT.format)


class LayoutError(ValueError):
    """Bytes that are not in this version's layout."""


def unpack_event(raw: bytes | memoryview, clock_offset_ns: int = 0) -> Event:
    """One record of the ring. `clock_offset_ns` is added to its time. LayoutError for another size or version."""
    if len(raw) != _EVENT.size or raw[0] != EVENT_VERSION:
        raise LayoutError(f"event of {len(raw)} bytes, version {raw[0] if len(raw) else '?'}")
    _, kind, sub, trace, direction, reply, family, protocol, time, *rest = _EVENT.unpack(raw)
    endpoint, ifindex, source_id, destination_id, source, destination, *tail = rest
    return Event(
        kind,
        sub,
        trace,
        direction,
        reply,
        family,
        protocol,
        time + clock_offset_ns,
        endpoint,
        ifindex,
        source_id,
        destination_id,
        address_text(family, source),
        address_text(family, destination),
        *tail,
    )
