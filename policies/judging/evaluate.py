"""What becomes of a packet and of a request, read from the IR as the kernel and Envoy read it. Pure.

The one oracle: `deflector policy explain` answers with it, flows name rules with it, and the differential tests hold
it against the real kernel and the real Envoy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2

from policies.ir import DirectionPolicy, HttpRule, PeerRule, PortPolicy, RuleSet, Verdict
from policies.judging.ambiguity import ambiguous_host, ambiguous_path
from policies.judging.patterns import is_anything, texts
from policies.judging.requests import Arrival, Request, arrive
from policies.types import ALL_PORTS, IDENTITY_ANY, Origin, Protocol

_LATIN1: Final = re2.Options()  # as Envoy compiles: `.` is any byte but a newline
_LATIN1.encoding = re2.Options.Encoding.LATIN1
_LATIN1.log_errors = False


@dataclass(frozen=True, slots=True)
class PacketDecision:
    """What the kernel does with the first packet of a connection in one direction of one endpoint.

    `rule` decided, `ports` is where it stands; both None where nothing is enforced, or nothing allows (default deny).
    """

    verdict: Verdict
    enforced: bool
    rule: PeerRule | None = None
    ports: PortPolicy | None = None


@dataclass(frozen=True, slots=True)
class RequestDecision:
    """What Envoy does with one request. `rule` is the first that matches; `wildcard` are the allows without L7 that
    void the rules. `arrival.status`: Envoy answers by itself, no rule is asked. `fault`: nor is one of a request that
    servers may read differently."""

    allowed: bool
    arrival: Arrival
    rule: HttpRule | None = None
    wildcard: tuple[Origin, ...] = ()
    fault: str = ""


OPEN: Final = PacketDecision(Verdict.ALLOW, enforced=False)


def find_rule(policy: DirectionPolicy, peer: int, protocol: int, port: int) -> PeerRule | None:
    """The rule that decides, if any."""
    found = _find(policy, peer, protocol, port)
    return found[1] if found is not None else None


def decide_packet(policy: DirectionPolicy, peer: int, protocol: int, port: int) -> PacketDecision:
    """The kernel's verdict. Of ICMP the port is the type; of other protocols without ports it is 0."""
    if not policy.enforced:
        return OPEN
    found = _find(policy, peer, protocol, port)
    if found is None:
        return PacketDecision(Verdict.DENY, enforced=True)
    return PacketDecision(found[1].verdict, True, found[1], found[0])


def decide_request(rules: RuleSet, request: Request) -> RequestDecision:
    """Envoy's verdict on a request as the client writes it."""
    arrival = arrive(request)
    if arrival.status:
        return RequestDecision(False, arrival)
    if fault := ambiguity(rules, arrival.request):
        return RequestDecision(False, arrival, fault=fault)
    rule = matching_rule(rules, arrival.request)
    return RequestDecision(bool(rules.wildcard) or rule is not None, arrival, rule, rules.wildcard)


def ambiguity(rules: RuleSet, judged: Request) -> str:
    """Why a slot of these rules refuses the request before any rule is asked (judging.ambiguity); "" if it does not.

    Only patterns need it: what is ambiguous is equal to no literal path or host.
    """
    if rules.allows_all:
        return ""
    fault = ambiguous_path(judged.path)
    if fault and any(_is_pattern(rule.path) and not is_anything(rule.path) for rule in _available(rules)):
        return f"the path has {fault}"
    if ambiguous_host(judged.host) and any(_is_pattern(rule.host) for rule in _available(rules)):
        return "the host is not one host"
    return ""


def matching_rule(rules: RuleSet, judged: Request) -> HttpRule | None:
    """The first rule that matches a request in the form that Envoy judges."""
    return next((rule for rule in rules.http if rule_matches(rule, judged)), None)


def rule_matches(rule: HttpRule, judged: Request) -> bool:
    """All fields of the rule hold (facts 4.1)."""
    if rule.unavailable:
        return False
    if rule.host and not judged.host:  # HTTP/1.0 without a host: no rule about hosts means it
        return False
    if not (_holds(rule.method, judged.method) and _holds(rule.path, judged.path) and _holds(rule.host, judged.host)):
        return False
    for header in rule.headers:
        sent = judged.header(header.name)
        if sent is None or (header.value is not None and header.value != sent):
            return False
    return True


def full_match(pattern: str, text: str) -> bool:
    """Whether RE2 matches the whole text, as Envoy runs it."""
    return compiled(pattern).fullmatch(text.encode(errors="surrogateescape")) is not None


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Any:
    """The pattern as Envoy compiles it. Raises re2.error for one that RE2 refuses (no rule of the IR has one)."""
    return re2.compile(pattern.encode(), _LATIN1)


def _holds(pattern: str, text: str) -> bool:
    return not pattern or full_match(pattern, text)


def _available(rules: RuleSet) -> Iterator[HttpRule]:
    return (rule for rule in rules.http if not rule.unavailable)


def _is_pattern(pattern: str) -> bool:
    return bool(pattern) and texts(pattern) is None


def _find(policy: DirectionPolicy, peer: int, protocol: int, port: int) -> tuple[PortPolicy, PeerRule] | None:
    """As bpf/src/policy.h looks up: what names the protocol before what holds for all, and in each the peer's identity
    before the wildcard."""
    for ports in (_of_protocol(policy, protocol, port), _of_all(policy)):
        for identity in (peer, IDENTITY_ANY):
            for candidate in ports:
                for rule in candidate.peers:
                    if identity in rule.identities:
                        return candidate, rule
    return None


def _of_protocol(policy: DirectionPolicy, protocol: int, port: int) -> tuple[PortPolicy, ...]:
    """The narrower range first. Ranges of one protocol do not overlap, so it is one at most, as compiled today."""
    covering = (
        p for p in policy.ports if p.protocol == protocol and p.protocol is not Protocol.ANY and port in p.ports
    )
    return tuple(sorted(covering, key=lambda p: p.ports == ALL_PORTS))


def _of_all(policy: DirectionPolicy) -> tuple[PortPolicy, ...]:
    return tuple(p for p in policy.ports if p.protocol is Protocol.ANY)


def covering(policy: DirectionPolicy, peer: int) -> Iterator[tuple[PortPolicy, PeerRule]]:
    """What holds for this peer on each port of the policy, in the order of ports."""
    for ports in policy.ports:
        named = next((rule for rule in ports.peers if peer in rule.identities), None)
        rule = named or next((rule for rule in ports.peers if rule.is_wildcard), None)
        if rule is not None:
            yield ports, rule
