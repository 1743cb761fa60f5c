"""Keys and values of map entries as bytes, and back. Pure; bpf/layout.py has their structs."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from bpf.constants import (
    ENDPOINT_ADDRESSES,
    FAMILY_OWNED,
    GENERATION_MAX,
    IPCACHE_FIXED_BITS,
    OWNER_SIZE,
    Code,
    Reason,
    Scope,
)
from bpf.layout import (
    ENDPOINT,
    ENDPOINT_KEY,
    IPCACHE_KEY,
    IPCACHE_VALUE,
    NAMESPACE,
    POLICY_KEY,
    POLICY_VALUE,
    SERVICE_KEY,
    SERVICE_VALUE,
    SETTINGS,
)


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
_OWNED_KEY = struct.Struct(IPCACHE_KEY.format.replace(f"{OWNER_SIZE}x", f"{OWNER_SIZE}s"))
_OWNED_SIZES = (4 + OWNER_SIZE, 16 + OWNER_SIZE)
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


def address_key(packed: bytes) -> bytes:
    """The same, of the 4 or 16 bytes of an address as they are in packets and DNS answers; or of what `owned` gives."""
    if len(packed) in _OWNED_SIZES:
        address, owner = packed[:-OWNER_SIZE], packed[-OWNER_SIZE:]
        family = (4 if len(address) == 4 else 6) | FAMILY_OWNED
        return _OWNED_KEY.pack(IPCACHE_FIXED_BITS + 8 * len(address), family, owner, address.ljust(16, b"\0"))
    return _IPCACHE_KEY.pack(
        IPCACHE_FIXED_BITS + 8 * len(packed), 4 if len(packed) == 4 else 6, packed.ljust(16, b"\0")
    )


def owned(packed: bytes, ifindex: int) -> bytes:
    """An address (4 or 16 bytes) as one endpoint alone knows it. ValueError for an interface that has no room there."""
    if not 0 < ifindex < 1 << 8 * OWNER_SIZE:
        raise ValueError(f"interface {ifindex} is beyond {OWNER_SIZE} bytes")
    return packed + ifindex.to_bytes(OWNER_SIZE, "little")


def prefix_length(key: bytes) -> int:
    """Of a packed key of an LPM map, in bits, with those that come before the address or port."""
    length: int = _PREFIX.unpack_from(key)[0]
    return length


def ipcache_value(identity: int, ifindex: int = 0) -> bytes:
    """`ifindex` is that of the veth behind which the address lives, 0 if it is not a pod's of this node."""
    return _IPCACHE_VALUE.pack(identity, ifindex)


def ipcache_identity(value: bytes) -> int:
    """The identity of a packed ipcache value."""
    identity: int = _IPCACHE_VALUE.unpack(value)[0]
    return identity


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
