"""kube-proxy's iptables mode, as its rules look on a node: ClusterIP, NodePort and hostPort by chains of DNAT.

Chains and marks are those of Kubernetes (KUBE-SERVICES, KUBE-NODEPORTS, KUBE-SVC-*, KUBE-SEP-*, KUBE-MARK-MASQ with
mark 0x4000, KUBE-POSTROUTING), hostPort's that of the portmap plugin of CNI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from conformance import netns

MASQUERADE = "0x4000/0x4000"
TABLES = ("iptables-nft-restore", "iptables-legacy-restore")


@dataclass(frozen=True)
class Frontend:
    """One port of a service, its NodePort, and a hostPort of its first backend. `local`: externalTrafficPolicy Local,
    which leaves clients their address."""

    address: str
    port: int
    backends: Sequence[str]
    target: int
    node_port: int
    host_port: int
    local: bool = False


def rules(frontend: Frontend) -> str:
    """For iptables-restore: the whole table nat."""
    return "\n".join(["*nat", *_chains(frontend), *_rules(frontend), "COMMIT", ""])


def take_over(namespace: str, restore: str, frontend: Frontend) -> None:
    """These rules stand in the place of those that the galaxy came with."""
    netns.tool(netns.inside(namespace, ["nft", "delete", "table", "inet", "kube-proxy"]))
    netns.tool(netns.inside(namespace, [restore]), rules(frontend))


def _chains(frontend: Frontend) -> Iterator[str]:
    names = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-SVC-X", "KUBE-EXT-X", "KUBE-MARK-MASQ", "KUBE-POSTROUTING"]
    names += ["CNI-HOSTPORT-DNAT", *(f"KUBE-SEP-{number}" for number in range(len(frontend.backends)))]
    yield from (f":{name} - [0:0]" for name in names)


def _rules(frontend: Frontend) -> Iterator[str]:
    for hook in ("PREROUTING", "OUTPUT"):
        yield f'-A {hook} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
        yield f"-A {hook} -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT"
    yield "-A POSTROUTING -j KUBE-POSTROUTING"
    yield f"-A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE.partition('/')[0]}"
    yield f"-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE} -j RETURN"
    yield "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000"
    yield "-A KUBE-POSTROUTING -j MASQUERADE --random-fully"
    yield f"-A KUBE-SERVICES -d {frontend.address}/32 -p tcp -m tcp --dport {frontend.port} -j KUBE-SVC-X"
    yield "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    yield f"-A KUBE-NODEPORTS -p tcp -m tcp --dport {frontend.node_port} -j KUBE-EXT-X"
    if not frontend.local:
        yield "-A KUBE-EXT-X -j KUBE-MARK-MASQ"
    yield "-A KUBE-EXT-X -j KUBE-SVC-X"
    left = len(frontend.backends)
    for number, backend in enumerate(frontend.backends):
        chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        yield f"-A KUBE-SVC-X {chance}-j KUBE-SEP-{number}"
        yield f"-A KUBE-SEP-{number} -s {backend}/32 -j KUBE-MARK-MASQ"
        yield f"-A KUBE-SEP-{number} -p tcp -m tcp -j DNAT --to-destination {backend}:{frontend.target}"
        left -= 1
    first = f"{frontend.backends[0]}:{frontend.target}"
    yield f"-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport {frontend.host_port} -j DNAT --to-destination {first}"
