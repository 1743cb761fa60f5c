"""The numbers of the data path: marks, verdicts, reasons, what events say. Pure; bpf/src gets them as #defines.

What Hubble and Cilium number as well has their numbers.
"""

from __future__ import annotations

from enum import IntEnum

from policies.types import (
    IDENTITY_ANY,
    IDENTITY_FIRST_LOCAL,
    IDENTITY_HOST,
    IDENTITY_KUBE_APISERVER,
    IDENTITY_LAST_LOCAL,
    IDENTITY_REMOTE_NODE,
    IDENTITY_WORLD,
    IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6,
    Direction,
)

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

IPCACHE_FIXED_BITS = 32  # family and owner
FAMILY_OWNED = 0x40  # of an entry that is of one endpoint alone
OWNER_SIZE = 3  # bytes of an interface index: the kernel counts them up from 1
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
    "FAMILY_OWNED": FAMILY_OWNED,
    "IDENTITY_WORLD_IPV4": IDENTITY_WORLD_IPV4,
    "IDENTITY_WORLD_IPV6": IDENTITY_WORLD_IPV6,
    "IDENTITY_FIRST_LOCAL": IDENTITY_FIRST_LOCAL,
    "IDENTITY_LAST_LOCAL": IDENTITY_LAST_LOCAL,
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
