"""NodePolicy + proxy ports -> the map entries that should be, and the steps from those that are. Pure.

The steps are ordered so that at no moment a lookup gives what neither the old nor the new policy says. A lookup takes
the entry of the highest rank that covers the packet (bpf/src/policy.h). So entries are written from the highest rank
down (an entry only comes into view when everything above it is in place) and deleted from the lowest up (what is
uncovered last is already the new policy's). The same holds for the longest prefix of the ipcache.
Between maps: peers before pods, and pods gone before their peers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bpf.layout import (
    ENFORCED_EGRESS,
    ENFORCED_INGRESS,
    POLICY_BITS_ANY,
    POLICY_BITS_PORT,
    POLICY_BITS_PROTOCOL,
    Code,
    Dir,
    PolicyKey,
    Reason,
    Scope,
    endpoint_key,
    endpoint_value,
    ipcache_key,
    ipcache_value,
    policy_value,
    service_key,
    service_value,
)
from policies.ir import EndpointPolicy, NodePolicy, PeerRule, PortPolicy, Verdict
from policies.types import ALL_PORTS, IDENTITY_ANY, Direction, PortRange, Protocol

Entries = Mapping[bytes, bytes]
PORT_BITS = 16


@dataclass(frozen=True, slots=True)
class Desired:
    """Packed entries of every map that the agent writes; also the form of what is realised."""

    endpoints: Entries = field(default_factory=dict)
    ipcache: Entries = field(default_factory=dict)
    policy: Entries = field(default_factory=dict)
    services: Entries = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """Entries of one map to write in this order, or keys to delete in this order; never both."""

    map: str
    writes: tuple[tuple[bytes, bytes], ...] = ()
    deletes: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Ops:
    """Steps in the order in which they must be taken; empty ones are left out."""

    steps: tuple[Step, ...]

    @property
    def count(self) -> int:
        """How many entries change."""
        return sum(len(step.writes) + len(step.deletes) for step in self.steps)


def port_prefixes(ports: PortRange) -> Iterator[tuple[int, int]]:
    """The fewest (port, prefix length) that together are the range, in order."""
    at, end = ports.first, ports.last + 1
    while at < end:
        size = at & -at or 1 << PORT_BITS  # the largest block that starts here
        while size > end - at:
            size >>= 1
        yield at, PORT_BITS - size.bit_length() + 1
        at += size


def desired(node: NodePolicy, ports: Mapping[str, int]) -> Desired:
    """`ports` is slot name -> proxy port. A slot without one is not ready: its peers are denied, never let through."""
    enforced = {policy.group: _enforced(policy) for policy in node.policies}
    closed = ENFORCED_INGRESS | ENFORCED_EGRESS  # a group without a policy is one that nobody has compiled
    return Desired(
        endpoints={
            endpoint_key(e.id): endpoint_value(e.group, enforced.get(e.group, closed), e.addresses)
            for e in node.endpoints
        },
        ipcache={ipcache_key(a.prefix): ipcache_value(a.identity) for a in node.addresses},
        policy=dict(entry for policy in node.policies for entry in _policy_entries(policy, ports)),
        services={
            service_key(s.address, s.port, s.protocol): service_value(s.identity, s.target_port) for s in node.services
        },
    )


def _enforced(policy: EndpointPolicy) -> int:
    return (ENFORCED_INGRESS if policy.ingress.enforced else 0) | (ENFORCED_EGRESS if policy.egress.enforced else 0)


def _policy_entries(policy: EndpointPolicy, ports: Mapping[str, int]) -> Iterator[tuple[bytes, bytes]]:
    for direction in Direction:
        rules = policy.direction(direction)
        if not rules.enforced:
            continue
        for port in rules.ports:
            keys = list(_port_keys(port))
            for peer in port.peers:
                for protocol, number, bits in keys:
                    value = _value(peer, _scope(bits), ports)
                    for identity in peer.identities:
                        key = PolicyKey(bits, policy.group, identity, Dir.of(direction), protocol, number)
                        yield key.pack(), value


def _port_keys(port: PortPolicy) -> Iterator[tuple[int, int, int]]:
    """(protocol, port, prefix bits of the key)."""
    if port.protocol is Protocol.ANY:
        yield 0, 0, POLICY_BITS_ANY
        return
    if port.ports == ALL_PORTS:
        yield port.protocol, 0, POLICY_BITS_PROTOCOL
        return
    for number, length in port_prefixes(port.ports):
        yield port.protocol, number, POLICY_BITS_PROTOCOL + length


def _scope(bits: int) -> Scope:
    if bits < POLICY_BITS_PROTOCOL:
        return Scope.ANY
    return Scope.PROTOCOL if bits == POLICY_BITS_PROTOCOL else Scope.PORTS


def _value(peer: PeerRule, scope: Scope, ports: Mapping[str, int]) -> bytes:
    if peer.verdict is Verdict.ALLOW:
        return policy_value(Code.ALLOW, scope)
    if peer.verdict is Verdict.DENY:
        return policy_value(Code.DENY, scope, Reason.POLICY_DENY)
    proxy_port = ports.get(peer.slot, 0)
    if not proxy_port:
        return policy_value(Code.DENY, scope, Reason.NOT_READY)
    return policy_value(Code.REDIRECT, scope, proxy_port=proxy_port)


# --- from what is to what should be ------------------------------------------------------------------------------


def rank(key: bytes) -> tuple[bool, bool, int, bytes]:
    """Order of precedence of a policy key, as bpf/src/policy.h looks it up; the key itself makes it total."""
    parsed = PolicyKey.unpack(key)
    return parsed.bits > POLICY_BITS_ANY, parsed.identity != IDENTITY_ANY, parsed.bits, key


def _prefix_rank(key: bytes) -> tuple[int, bytes]:
    return int.from_bytes(key[:4], "little" if _LITTLE else "big"), key


_LITTLE = PolicyKey(POLICY_BITS_PORT, 0, 0, 0).pack()[0] == POLICY_BITS_PORT

# In the order of writing; deletes go the other way round.
_ORDER = (
    ("policy", rank),
    ("services", bytes),
    ("ipcache", _prefix_rank),
    ("endpoints", bytes),
)


def diff(wanted: Desired, realized: Desired) -> Ops:
    """Steps that make `wanted` of `realized`, in a safe order (see the head of this file)."""
    writes, deletes = [], []
    for name, order in _ORDER:
        new: Entries = getattr(wanted, name)
        old: Entries = getattr(realized, name)
        changed = [(key, value) for key, value in new.items() if old.get(key) != value]
        gone = [key for key in old if key not in new]
        if changed:
            changed.sort(key=lambda entry, order=order: order(entry[0]), reverse=True)  # type: ignore[misc]
            writes.append(Step(name, writes=tuple(changed)))
        if gone:
            deletes.append(Step(name, deletes=tuple(sorted(gone, key=order))))
    return Ops((*writes, *reversed(deletes)))
