"""kube-proxy's part: Service and EndpointSlice become nftables rules that DNAT a ClusterIP to a ready backend. Pure.

The rules sit in prerouting (pods) and output (the node itself); a service without backends is refused, as kube-proxy
does in nftables mode.
"""

from __future__ import annotations

from collections.abc import Iterable

from conformance.blueprint import Service

TABLE = "kube-proxy"


def ruleset(services: Iterable[Service]) -> str:
    """The whole table as text for `nft -f`; loading it replaces what was there in one transaction."""
    services = sorted(services, key=lambda service: (service.namespace, service.name))
    nat = [rule for service in services for family in (4, 6) for rule in _nat_rules(service, family)]
    refused = [rule for service in services for family in (4, 6) for rule in _refusals(service, family)]
    chains = [
        _chain("services", "", nat),
        _chain("nat-prerouting", "type nat hook prerouting priority dstnat; policy accept;", ["jump services"]),
        _chain("nat-output", "type nat hook output priority -100; policy accept;", ["jump services"]),
        _chain("no-backends", "", refused),
        _chain("filter-forward", "type filter hook forward priority filter; policy accept;", ["jump no-backends"]),
        _chain("filter-output", "type filter hook output priority filter; policy accept;", ["jump no-backends"]),
    ]
    body = "\n".join(chains)
    return f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{body}\n}}\n"


def _nat_rules(service: Service, family: int) -> list[str]:
    backends = [pod.address(family) for pod in service.backends]
    if not backends:
        return []
    protocol = "ip" if family == 4 else "ip6"
    choice = ", ".join(f"{n} : {address} . {service.target_port}" for n, address in enumerate(backends))
    return [
        f"{protocol} daddr {service.address(family)} {transport.lower()} dport {service.port} "
        f"dnat {protocol} to numgen random mod {len(backends)} map {{ {choice} }}"
        for transport in service.protocols
    ]


def _refusals(service: Service, family: int) -> list[str]:
    if service.backends:
        return []
    protocol = "ip" if family == 4 else "ip6"
    frontend = f"{protocol} daddr {service.address(family)}"
    answers = {"TCP": " with tcp reset", "UDP": ""}
    return [f"{frontend} {t.lower()} dport {service.port} reject{answers[t]}" for t in service.protocols]


def _chain(name: str, head: str, rules: list[str]) -> str:
    lines = [f"    {line}" for line in ([head] if head else []) + rules]
    return "\n".join([f"  chain {name} {{", *lines, "  }"])
