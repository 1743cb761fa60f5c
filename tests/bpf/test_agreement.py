"""What the IR says and what the kernel does are the same, for any policy: the programs run on packets by the thousand.

The kernel runs a program on a packet that is made here (BPF_PROG_TEST_RUN), on the real maps, without any traffic.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpf import sys as bpfsys
from policies.ir import WILDCARD, DirectionPolicy, PeerRule, PortPolicy, RuleSet, Verdict
from policies.types import ALL_PORTS, PortRange, Protocol
from tests.bpf.galaxy import Pod
from tests.bpf.stage import OPEN, Stage

pytestmark = pytest.mark.privileged
PROG_TEST_RUN = 10
PASSED, DROPPED, REDIRECTED = -1, 2, 7  # TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT
OUTCOME = {Verdict.ALLOW: PASSED, Verdict.DENY: DROPPED, Verdict.REDIRECT: REDIRECTED}
LOCAL = 1 << 24
PEERS = {2001: 1, LOCAL + 7: 2, 7: 3}  # identity -> last byte of its addresses
STRANGER = 9
ICMP = {4: Protocol.ICMP, 6: Protocol.ICMPV6}
SYN = 0x02


class Probe:
    """Runs a program on packets between a pod and its peers."""

    def __init__(self, stage: Stage, program: str, pod: Pod) -> None:
        self.pod = pod
        self._fd = bpfsys.object_get(stage.datapath.options.pins / program)
        self._sends = program == "from_pod"
        context = bytearray(192)
        struct.pack_into("=I", context, 40, pod.ifindex)  # struct __sk_buff.ifindex
        self._context = ctypes.create_string_buffer(bytes(context), len(context))

    def close(self) -> None:
        os.close(self._fd)

    def run(self, family: int, peer: int, protocol: Protocol, port: int) -> int:
        """What becomes of a packet between the pod and peer number `peer`; `port` is the type of an ICMP packet."""
        other = f"198.51.100.{peer}" if family == 4 else f"2001:db8:1::{peer}"
        mine = self.pod.address(family)
        ends = (mine, other) if self._sends else (other, mine)
        frame = _frame(family, ends, protocol, _transport(protocol, port))
        data, out = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(len(frame) + 256)
        at = [ctypes.addressof(buffer) for buffer in (data, out, self._context)]
        attributes = bytearray(
            struct.pack("=4I2Q4I2Q4I", self._fd, 0, len(frame), len(out), *at[:2], 1, 0, 192, 0, at[2], 0, 0, 0, 0, 0)
        )
        bpfsys._bpf_into(PROG_TEST_RUN, attributes, "run a program")
        verdict: int = struct.unpack_from("=i", attributes, 4)[0]
        return verdict


def _transport(protocol: Protocol, port: int) -> bytes:
    if protocol is Protocol.TCP:
        return struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, SYN, 1000, 0, 0)
    if protocol in ICMP.values():
        return struct.pack("!BBHI", port, 0, 0, 0) + bytes(32)
    return struct.pack("!HHHH", 40000, port, 8, 0) + bytes(16)


def _frame(family: int, ends: tuple[str, str], protocol: int, body: bytes) -> bytes:
    if family == 4:
        addresses = b"".join(map(socket.inet_aton, ends))
        return (
            bytes(12)
            + b"\x08\0"
            + struct.pack("!BBHIBBH", 0x45, 0, 20 + len(body), 1 << 16, 64, protocol, 0)
            + (addresses + body)
        )
    addresses = b"".join(socket.inet_pton(socket.AF_INET6, end) for end in ends)
    return bytes(12) + b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, len(body), protocol, 64) + addresses + body


# --- what should be ----------------------------------------------------------------------------------------------


def said_by(policy: DirectionPolicy, identity: int, protocol: Protocol, port: int) -> Verdict:
    """The law of ir.PortPolicy, to the letter."""
    if not policy.enforced:
        return Verdict.ALLOW
    specific = [one for one in policy.ports if one.protocol is protocol and port in one.ports]
    everywhere = [one for one in policy.ports if one.protocol is Protocol.ANY]
    for who in (identity, 0):
        for one in (*specific, *everywhere):
            for peer in one.peers:
                if who in peer.identities:
                    return peer.verdict
    return Verdict.DENY


# --- policies ----------------------------------------------------------------------------------------------------


@st.composite
def peer_rules(draw: st.DrawFn, tcp: bool, named: frozenset[int] = frozenset()) -> tuple[PeerRule, ...]:
    """Disjoint; with a wildcard it names all of `named`."""
    verdicts = [Verdict.ALLOW, Verdict.DENY, *([Verdict.REDIRECT] if tcp else [])]
    wildcard = draw(st.booleans())
    chosen = draw(st.sets(st.sampled_from(sorted(PEERS)), min_size=0 if wildcard else 1))
    groups: dict[Verdict, set[int]] = {}
    for identity in chosen | (named if wildcard else frozenset()):
        groups.setdefault(draw(st.sampled_from(verdicts)), set()).add(identity)
    rules = [_rule(tuple(sorted(identities)), verdict) for verdict, identities in groups.items()]
    if wildcard:
        rules.append(_rule(tuple(WILDCARD), draw(st.sampled_from(verdicts))))
    return tuple(sorted(rules, key=lambda rule: rule.identities[0]))


def _rule(identities: tuple[int, ...], verdict: Verdict) -> PeerRule:
    redirected = verdict is Verdict.REDIRECT
    return PeerRule(identities, verdict, rule_set=RuleSet() if redirected else None, slot="s" if redirected else "")


@st.composite
def directions(draw: st.DrawFn) -> DirectionPolicy:
    """Few ports and types, so that ranges meet; port 65535 for the edge."""
    everywhere = draw(peer_rules(tcp=False)) if draw(st.booleans()) else ()
    ports = [PortPolicy(Protocol.ANY, ALL_PORTS, everywhere)] if everywhere else []
    named = frozenset(i for rule in everywhere for i in rule.identities if i)
    for protocol in draw(st.sets(st.sampled_from([p for p in Protocol if p is not Protocol.ANY]))):
        top = 255 if protocol in ICMP.values() else 65535
        tcp = protocol is Protocol.TCP
        if draw(st.integers(0, 4)) == 0:
            ports.append(PortPolicy(protocol, ALL_PORTS, draw(peer_rules(tcp, named))))
            continue
        cuts = sorted(draw(st.sets(st.sampled_from([0, 1, 2, 3, 5, 8, 9, 13, 16, 128, 129, 130, top + 1]), max_size=5)))
        for first, following in pairwise(cuts):
            if draw(st.booleans()):
                ports.append(PortPolicy(protocol, PortRange(first, following - 1), draw(peer_rules(tcp, named))))
    return DirectionPolicy(True, tuple(sorted(ports, key=lambda one: (one.protocol, one.ports))))


@pytest.fixture(scope="module", params=["from_pod", "to_pod"])
def probe(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Probe]:
    stage.prefixes = {
        prefix: identity
        for identity, number in PEERS.items()
        for prefix in (f"198.51.100.{number}/32", f"2001:db8:1::{number}/128")
    }
    made = Probe(stage, request.param, stage.galaxy.pods["server"])
    yield made
    made.close()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policy=directions())
def test_the_kernel_does_what_the_policy_says(stage: Stage, probe: Probe, policy: DirectionPolicy) -> None:
    ways = (OPEN, policy) if probe._sends else (policy, OPEN)
    stage.rules["server"], stage.ports = ways, {"s": 15001}
    node = stage.node()
    stage.forget_connections()
    with stage.on_node():
        assert stage.datapath.program(node, stage.ports) == ()
        for family in (4, 6):
            for protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP, ICMP[family], ICMP[10 - family]):
                for port in (0, 1, 2, 4, 8, 12, 13, 127, 128, 129, 130, 255):
                    for identity, number in {**PEERS, 0xFFFF: STRANGER}.items():
                        expected = OUTCOME[said_by(policy, identity, protocol, port)]
                        got = probe.run(family, number, protocol, port)
                        assert got == expected, (family, protocol.name, port, identity)
