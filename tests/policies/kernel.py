"""What the kernel does with the IR, in the few lines that docs/architecture.md gives it: a fake for the tests here."""

from __future__ import annotations

from policies.ir import DirectionPolicy, PeerRule, PortPolicy, Verdict
from policies.types import IDENTITY_ANY, Protocol


def look_up(policy: DirectionPolicy, identity: int, protocol: Protocol, port: int) -> PeerRule | None:
    """The entry found: of the identity, else of the wildcard; each the most specific one. None: denied."""
    matching = [p for p in policy.ports if p.protocol in (protocol, Protocol.ANY) and port in p.ports]
    matching.sort(key=_specificity)
    for wanted in (identity, IDENTITY_ANY):
        for candidate in matching:
            for peer in candidate.peers:
                if wanted in peer.identities:
                    return peer
    return None


def verdict(policy: DirectionPolicy, identity: int, protocol: Protocol, port: int) -> tuple[Verdict, PeerRule | None]:
    """What becomes of a packet, and by which entry."""
    if not policy.enforced:
        return Verdict.ALLOW, None
    peer = look_up(policy, identity, protocol, port)
    return (peer.verdict, peer) if peer is not None else (Verdict.DENY, None)


def _specificity(port: PortPolicy) -> tuple[bool, int]:
    return (port.protocol is Protocol.ANY, port.ports.last - port.ports.first)
