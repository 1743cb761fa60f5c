"""toFQDNs held by the name in a request instead of, or beside, the address that it goes to. Pure.

    ip      connections go to addresses that names were seen to have (as in Cilium)
    name    requests go anywhere in the world under an allowed name: churning addresses do not matter, and who sends the
            request may choose the address
    both    requests go to learned addresses under an allowed name

Names are judged where requests are: at ports with HTTP rules, by the Host that is asked for. A rule that asks for a
host of its own says already which, and its port is held by addresses; so is whatever has no HTTP rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Final

from policies.dns_patterns import Dialect, is_everything, regex_of
from policies.ir import FqdnSelector, HttpRule
from policies.rules import Action, Clause, Entity, EntityPeer, FqdnPeer, SecretRule, ToPorts

_ANY_NAME: Final = "(?:[-a-zA-Z0-9_]+[.])*[-a-zA-Z0-9_]+"
_ROOT_DOT: Final = "[.]$"
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
    judged = [entry for entry in clause.to_ports if _asks_no_host(entry)]
    if len(selectors) < len(clause.peers) or not judged:
        return (clause,)
    host = host_regex(selectors)
    named = replace(
        clause,
        peers=clause.peers if how is FqdnEnforcement.BOTH else _WORLD,
        to_ports=tuple(_with_host(entry, host) for entry in judged),
    )
    rest = tuple(entry for entry in clause.to_ports if entry not in judged)
    return (replace(clause, to_ports=rest), named) if rest else (named,)


def host_regex(selectors: Iterable[FqdnSelector]) -> str:
    """RE2, full match, of an authority under a name that one of these selects: in any case, with a port or without."""
    return f"(?i:(?:{'|'.join(sorted({_name_regex(selector) for selector in selectors}))})[.]?(?::[0-9]{{1,5}})?)"


def _name_regex(selector: FqdnSelector) -> str:
    """Without the dot at the end. The root has no name that a host could have."""
    if selector.pattern and is_everything(selector.pattern):
        return _ANY_NAME
    if selector.pattern:
        return regex_of(selector.pattern, Dialect.TO_FQDNS).removeprefix("^").removesuffix(_ROOT_DOT)
    return re.escape(selector.name.removesuffix(".")) if selector.name else "[^\\x00-\\x{10FFFF}]"


def _asks_no_host(entry: ToPorts) -> bool:
    return bool(entry.l7) and all(isinstance(rule, HttpRule) and not rule.host for rule in entry.l7)


def _with_host(entry: ToPorts, host: str) -> ToPorts:
    rules = sorted((replace(rule, host=host) for rule in _http(entry)), key=lambda rule: rule.match_key)
    secret = tuple(SecretRule(replace(one.rule, host=host), one.expects) for one in entry.secret_rules)
    return ToPorts(entry.ports, tuple(rules), secret)


def _http(entry: ToPorts) -> Iterator[HttpRule]:
    return (rule for rule in entry.l7 if isinstance(rule, HttpRule))
