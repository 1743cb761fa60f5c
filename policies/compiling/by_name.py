"""toFQDNs held by the name in a request instead of, or beside, the address that it goes to. Pure.

    ip      connections go to addresses that names were seen to have (as in Cilium)
    name    requests go anywhere in the world under an allowed name: churning addresses do not matter, and who sends the
            request may choose the address
    both    requests go to learned addresses under an allowed name

Names are judged where they are said: at ports with HTTP rules by the Host of each request, at 443/TCP without L7 rules
by the server name of the ClientHello (SNI). A rule that asks for a host of its own says already which, and its port is
held by addresses; so is whatever else has no HTTP rules: other ports, ranges, named ports, and clauses for all ports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Final

from policies.dns_patterns import bare_regex
from policies.ir import FqdnSelector, HttpRule, TlsRule
from policies.rules import Action, Clause, Entity, EntityPeer, FqdnPeer, PortSpec, SecretRule, ToPorts
from policies.types import PortRange, Protocol

TLS_PORT: Final = PortRange(443, 443)  # where what has no L7 rules is taken for TLS

_WORLD: Final = (EntityPeer(Entity.WORLD),)


class FqdnEnforcement(StrEnum):
    """What toFQDNs hold requests to."""

    IP = "ip"
    NAME = "name"
    BOTH = "both"


def split(clause: Clause, how: FqdnEnforcement) -> tuple[Clause, ...]:
    """The clauses that say the same of an entry, with names in the rules of those ports that can be held by name."""
    if how is FqdnEnforcement.IP or clause.action is Action.DENY or not clause.peers:
        return (clause,)
    selectors = [peer.selector for peer in clause.peers if isinstance(peer, FqdnPeer)]
    if len(selectors) < len(clause.peers):
        return (clause,)
    host = host_regex(selectors)
    names = {TlsRule(selector.name, selector.pattern, (clause.origin,)) for selector in selectors}
    server_names = tuple(sorted(names, key=lambda rule: rule.match_key))
    judged, rest = [], []
    for entry in clause.to_ports:
        if _asks_no_host(entry):
            judged.append(_with_host(entry, host))
            continue
        tls, others = _parted(entry)
        judged += [ToPorts(tls, server_names)] if tls else []
        rest += [replace(entry, ports=others)] if others or not tls else []
    if not judged:
        return (clause,)
    peers = clause.peers if how is FqdnEnforcement.BOTH else _WORLD
    named = replace(clause, peers=peers, to_ports=tuple(judged))
    return (replace(clause, to_ports=tuple(rest)), named) if rest else (named,)


def host_regex(selectors: Iterable[FqdnSelector]) -> str:
    """RE2, full match, of an authority under a name that one of these selects: in any case, with a port or without."""
    return f"(?i:(?:{'|'.join(sorted({_name_regex(selector) for selector in selectors}))})[.]?(?::[0-9]{{1,5}})?)"


def _name_regex(selector: FqdnSelector) -> str:
    """Without the dot at the end. The root has no name that a host could have."""
    if selector.pattern:
        return bare_regex(selector.pattern)
    return re.escape(selector.name.removesuffix(".")) if selector.name else "[^\\x00-\\x{10FFFF}]"


def _asks_no_host(entry: ToPorts) -> bool:
    return bool(entry.l7) and all(isinstance(rule, HttpRule) and not rule.host for rule in entry.l7)


def _parted(entry: ToPorts) -> tuple[tuple[PortSpec, ...], tuple[PortSpec, ...]]:
    """The ports of an entry where TLS is spoken, and all others; 443 of any protocol is UDP's and SCTP's as well."""
    if entry.l7:
        return (), entry.ports
    tls = tuple(PortSpec(Protocol.TCP, TLS_PORT) for spec in entry.ports if _is_tls(spec))[:1]
    others: list[PortSpec] = []
    for spec in entry.ports:
        if not _is_tls(spec):
            others.append(spec)
        elif spec.protocol is Protocol.ANY:
            others += (PortSpec(Protocol.UDP, TLS_PORT), PortSpec(Protocol.SCTP, TLS_PORT))
    return tls, tuple(others)


def _is_tls(spec: PortSpec) -> bool:
    return spec.ports == TLS_PORT and spec.protocol in (Protocol.TCP, Protocol.ANY)


def _with_host(entry: ToPorts, host: str) -> ToPorts:
    rules = sorted((replace(rule, host=host) for rule in _http(entry)), key=lambda rule: rule.match_key)
    secret = tuple(SecretRule(replace(one.rule, host=host), one.expects) for one in entry.secret_rules)
    return ToPorts(entry.ports, tuple(rules), secret)


def _http(entry: ToPorts) -> Iterator[HttpRule]:
    return (rule for rule in entry.l7 if isinstance(rule, HttpRule))
