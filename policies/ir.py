"""The IR: what one node must enforce, compiled, merged, sorted. The border between policy and enforcement.

    NodePolicy
      EndpointPolicy (one per policy group: all local endpoints with the same labels)
        DirectionPolicy (ingress, egress: enforced or not)
          PortPolicy (protocol, disjoint port ranges)
            PeerRule (disjoint identity sets -> allow | deny | redirect to a slot)
      Slot (a rule set and the state it is in)
      Endpoint, Address, ServiceAddress (who lives where)

Everything is frozen and ordered, so that the same input gives the same bytes. Imports the standard library,
policies.types and the bitmaps that identity sets are (docs/decisions/0007) only: this file is a leaf. `to_dict` is the
form of the golden files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, TypeAlias

from pyroaring import FrozenBitMap

from policies.types import ALL_PORTS, ICMP_TYPE_MAX, IDENTITY_ANY, Direction, Origin, PortRange, Protocol

_ICMP: Final = (Protocol.ICMP, Protocol.ICMPV6)
WILDCARD: Final = FrozenBitMap([IDENTITY_ANY])


class Verdict(StrEnum):
    """What the kernel does with a packet of a new or established connection."""

    ALLOW = "allow"
    DENY = "deny"
    REDIRECT = "redirect"


class L7Parser(StrEnum):
    """Who judges what arrives at a slot: Envoy (HTTP, TLS), or one of the proxies of l7proxy."""

    HTTP = "http"
    DNS = "dns"
    KAFKA = "kafka"
    TLS = "tls"

    __hash__ = str.__hash__


_HTTP: Final = L7Parser.HTTP  # what nearly all slots are of: members of an Enum take long to look up
REDACTED = "[redacted]"


class Secret(str):
    """A header's value that came from a Kubernetes Secret: compared and sent like any text, never shown as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return REDACTED

    def __str__(self) -> str:
        return REDACTED

    def __format__(self, _: str) -> str:
        return REDACTED


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """`value` is compared exactly with the comma-joined header; an absent value (None) asks for presence."""

    name: str
    value: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.name, "" if self.value is None else "=" + self.value)


class Mismatch(StrEnum):
    """What a request whose header is not as expected is made to look like; it passes all the same."""

    LOG = "LOG"
    ADD = "ADD"
    DELETE = "DELETE"
    REPLACE = "REPLACE"


# What a message is framed by, and whom it is for: with another value the verdict would be about another message.
FRAMING_HEADERS = frozenset(
    ("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect")
)


@dataclass(frozen=True, slots=True)
class HeaderAction:
    """An entry of headerMatches with a mismatch action (facts 4.3); one without (FAIL) is a HeaderMatch.

    FRAMING_HEADERS can be logged only.
    """

    name: str
    mismatch: Mismatch
    value: str | None = None  # None expects presence

    @property
    def key(self) -> tuple[str, str]:
        return (self.name, self.mismatch + ("" if self.value is None else "=" + self.value))


MatchKey: TypeAlias = tuple[str, str, str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], str]


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One entry of rules.http: RE2 patterns, full match; "" is any value. Fields are ANDed.

    `path` is matched against `:path` with its query string, `host` against `:authority` with its port.
    `header_actions` are taken, in their order, when all else matches; they decide nothing about the verdict.
    """

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[HeaderMatch, ...] = ()
    origins: tuple[Origin, ...] = ()  # who asks for it: equal rules of several policies are one rule
    header_actions: tuple[HeaderAction, ...] = ()
    unavailable: str = ""  # why the rule matches nothing for now: a secret that it needs is not there

    parser = L7Parser.HTTP

    @property
    def match_key(self) -> MatchKey:
        """What the rule matches and does, without where it comes from; also its sort key. Not to be shown: secrets."""
        return (
            self.method,
            self.path,
            self.host,
            tuple(h.key for h in self.headers),
            tuple(a.key for a in self.header_actions),
            self.unavailable,
        )

    @property
    def is_wildcard(self) -> bool:
        return not (self.method or self.path or self.host or self.headers or self.unavailable)


@dataclass(frozen=True, slots=True)
class DnsRule:
    """One entry of rules.dns: a name or a pattern (facts 6.1) in canonical form (policies.dns_patterns): lower-cased,
    with a trailing dot; the pattern for every name is `*`. Both empty: the root only.

    A matchName and a matchPattern in one entry are two rules.
    """

    name: str = ""
    pattern: str = ""
    origins: tuple[Origin, ...] = ()

    parser = L7Parser.DNS

    @property
    def match_key(self) -> tuple[str, str]:
        """What the rule matches, without where it comes from; also its sort key."""
        return (self.name, self.pattern)

    @property
    def is_wildcard(self) -> bool:
        return self.pattern == "*"


@dataclass(frozen=True, slots=True)
class KafkaRule:
    """One entry of rules.kafka, its role or key as numbers of APIs (policies.kafka_keys). Fields are ANDed."""

    api_keys: tuple[int, ...] = ()  # sorted; none: any
    api_version: int | None = None  # None: any
    client_id: str = ""  # "": any
    topic: str = ""  # "": any, and requests that name no topic
    origins: tuple[Origin, ...] = ()

    parser = L7Parser.KAFKA

    @property
    def match_key(self) -> tuple[tuple[int, ...], int, str, str]:
        """What the rule matches, without where it comes from; also its sort key."""
        return (self.api_keys, -1 if self.api_version is None else self.api_version, self.client_id, self.topic)

    @property
    def is_wildcard(self) -> bool:
        return not (self.api_keys or self.client_id or self.topic) and self.api_version is None


@dataclass(frozen=True, slots=True)
class TlsRule:
    """Connections whose ClientHello names this server (SNI): a name or a pattern of toFQDNs, as in FqdnSelector.

    No rule matches a connection that names none, or is no TLS.
    """

    name: str = ""
    pattern: str = ""
    origins: tuple[Origin, ...] = ()

    parser = L7Parser.TLS

    @property
    def match_key(self) -> tuple[str, str]:
        """What the rule matches, without where it comes from; also its sort key."""
        return (self.name, self.pattern)

    @property
    def is_wildcard(self) -> bool:
        return False


L7Rule: TypeAlias = HttpRule | DnsRule | KafkaRule | TlsRule


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What a request on a slot is judged by: allowed iff some rule matches, or iff there is a wildcard.

    Rules are of one parser: two for the same peers and port is a conflict, which the compiler refuses. `wildcard` names
    the allows without L7 that cover the same peers and port (facts: an L7 rule restricts only where no other allow
    covers the same peer and port). An empty rule set denies everything.
    """

    http: tuple[HttpRule, ...] = ()
    wildcard: tuple[Origin, ...] = ()
    dns: tuple[DnsRule, ...] = ()
    kafka: tuple[KafkaRule, ...] = ()
    tls: tuple[TlsRule, ...] = ()

    @classmethod
    def of(cls, rules: Sequence[L7Rule], wildcard: tuple[Origin, ...] = ()) -> RuleSet:
        """Of rules of one parser, sorted."""
        found: dict[str, Any] = {rules[0].parser.value: tuple(rules)} if rules else {}
        return cls(wildcard=wildcard, **found)

    @property
    def rules(self) -> tuple[L7Rule, ...]:
        """Those of its parser, whichever it is."""
        return self.http or self.dns or self.kafka or self.tls

    @property
    def parser(self) -> L7Parser:
        """Who judges by it; of a set without rules, which decides without a look at requests, HTTP's."""
        return _HTTP if self.http or not self.rules else self.rules[0].parser

    @property
    def allows_all(self) -> bool:
        return bool(self.wildcard) or any(rule.is_wildcard for rule in self.rules)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Every clause that contributes, sorted, once."""
        return tuple(sorted({*self.wildcard, *(o for rule in self.rules for o in rule.origins)}))

    def digest(self) -> str:
        """Content hash (hex, 16 digits): equal sets, equal digest."""
        text = json.dumps([_plain(self), [rule.match_key for rule in self.http]], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class PeerRule:
    """What holds for these identities on the port of the PortPolicy around it.

    `identities` is an immutable set that iterates in order (made of any numbers that are given); {0} means every
    identity that no other PeerRule of the same PortPolicy names. `origins` are the clauses that decide: of a denial
    those that deny. A redirect carries its rule set and, once policies.compiling.slots has assigned one, the name of
    its slot.
    """

    identities: FrozenBitMap
    verdict: Verdict
    origins: tuple[Origin, ...] = ()
    rule_set: RuleSet | None = None
    slot: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.identities, FrozenBitMap):
            object.__setattr__(self, "identities", FrozenBitMap(self.identities))

    @property
    def is_wildcard(self) -> bool:
        return self.identities == WILDCARD


@dataclass(frozen=True, slots=True)
class PortPolicy:
    """Peers on one protocol and port range, which is a range of types for ICMP and ICMPV6. Ranges of one protocol never
    overlap within a DirectionPolicy.

    What it says of an identity is complete: what Protocol.ANY says of it is already in it. Whom it does not name is
    judged by Protocol.ANY; if it has a wildcard it names everybody whom Protocol.ANY names. So an enforcer takes the
    most specific PortPolicy that names the identity, else the most specific one with a wildcard, and looks no further.
    """

    protocol: Protocol
    ports: PortRange
    peers: tuple[PeerRule, ...]


@dataclass(frozen=True, slots=True)
class DirectionPolicy:
    """Not enforced: everything passes. Enforced: what no PeerRule allows is denied."""

    enforced: bool = False
    ports: tuple[PortPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """Policy of one policy group. `group` is the numeric identity of the labels that its endpoints share."""

    group: int
    labels: tuple[str, ...]
    ingress: DirectionPolicy
    egress: DirectionPolicy

    def direction(self, direction: Direction) -> DirectionPolicy:
        return self.ingress if direction is Direction.INGRESS else self.egress


class SlotState(StrEnum):
    """ACTIVE: the kernel redirects to it. RETIRED: denies and closes. DRAINED: its peers are now allowed without L7;
    open connections are served to their end, new ones do not come here."""

    ACTIVE = "active"
    RETIRED = "retired"
    DRAINED = "drained"


@dataclass(frozen=True, slots=True)
class Slot:
    """A listener-to-be: the rule set that judges what arrives at its proxy port. Edits of rules keep the name."""

    name: str
    direction: Direction
    group: int
    protocol: Protocol
    ports: PortRange
    rule_set: RuleSet
    state: SlotState = SlotState.ACTIVE
    parser: L7Parser = L7Parser.HTTP


@dataclass(frozen=True, slots=True)
class Listening:
    """A slot, and the proxy port at which its proxy takes what is redirected to it."""

    slot: Slot
    port: int


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A pod on this node. `id` is the interface index of its host-side veth: unique on the node, outlives the agent."""

    id: int
    group: int
    namespace: str
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One entry of the ipcache: a prefix ("10.0.0.7/32", "fd00::7/128") and the identity that lives there."""

    prefix: str
    identity: int


@dataclass(frozen=True, slots=True, order=True)
class ServiceAddress:
    """A service frontend, for egress policy, which is judged by backend and target port though the packet still
    carries the service address. identity 0: backends are none or of different identities; denied where enforced."""

    address: str
    port: int
    protocol: Protocol
    identity: int
    target_port: int


@dataclass(frozen=True, slots=True, order=True)
class PolicyLog:
    """What the author of a policy wants to read in the flows that this clause decides (`log.value`)."""

    origin: Origin
    value: str


@dataclass(frozen=True, slots=True, order=True)
class FqdnSelector:
    """Names whose addresses some policy of the node allows (toFQDNs): one name, or those of a pattern, in canonical
    form (policies.dns_patterns). Both empty: the root only."""

    name: str = ""
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """All that this node enforces. `revision` counts accepted policy states; `logs` has each origin at most once.

    `addresses` are what is known without DNS: where names lead to is learned (docs/dns.md), and only the kernel is
    told. `fqdn_selectors`: the names that matter.
    """

    revision: int
    policies: tuple[EndpointPolicy, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    addresses: tuple[Address, ...] = ()
    services: tuple[ServiceAddress, ...] = ()
    slots: tuple[Slot, ...] = ()
    logs: tuple[PolicyLog, ...] = ()
    fqdn_selectors: tuple[FqdnSelector, ...] = ()

    def validate(self) -> None:
        """Raise ValueError naming everything that contradicts the laws of the IR; nothing is raised for a good one."""
        problems = list(_problems(self))
        if problems:
            raise ValueError("; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for goldens and -o json: enums by value, empty fields left out."""
        plain = _plain(self)
        assert isinstance(plain, dict)
        return plain


def _problems(node: NodePolicy) -> list[str]:
    found: list[str] = []
    slots = {slot.name for slot in node.slots}
    if len(slots) != len(node.slots):
        found.append("slot names are not unique")
    if len({entry.prefix for entry in node.addresses}) != len(node.addresses):
        found.append("a prefix has two identities")
    if len({policy.group for policy in node.policies}) != len(node.policies):
        found.append("a group has two policies")
    for policy in node.policies:
        for direction in Direction:
            where = f"group {policy.group} {direction}"
            found += _direction_problems(where, policy.direction(direction), slots)
    return found


def _direction_problems(where: str, policy: DirectionPolicy, slots: set[str]) -> Iterator[str]:
    if policy.ports and not policy.enforced:
        yield f"{where}: has ports, but is not enforced"
    for before, after in pairwise(policy.ports):
        if (before.protocol, before.ports.last) >= (after.protocol, after.ports.first):
            yield f"{where} {after.protocol.name} {after.ports}: overlaps or precedes the range before it"
    everywhere = [peer for port in policy.ports if port.protocol is Protocol.ANY for peer in port.peers]
    named_everywhere = FrozenBitMap.union(FrozenBitMap(), *(peer.identities for peer in everywhere)) - WILDCARD
    for port in policy.ports:
        here = f"{where} {port.protocol.name} {port.ports}"
        if port.protocol is Protocol.ANY and port.ports != ALL_PORTS:
            yield f"{here}: protocol ANY covers all ports"
        if port.protocol in _ICMP and port.ports != ALL_PORTS and port.ports.last > ICMP_TYPE_MAX:
            yield f"{here}: ICMP types end at {ICMP_TYPE_MAX}"
        named = FrozenBitMap.union(FrozenBitMap(), *(peer.identities for peer in port.peers))
        if IDENTITY_ANY in named and not named_everywhere <= named:
            yield f"{here}: has a wildcard, but does not name all whom protocol ANY names"
        for problem in _peer_problems(port, slots):
            yield f"{here}: {problem}"


def _peer_problems(port: PortPolicy, slots: set[str]) -> Iterator[str]:
    seen = FrozenBitMap()
    last = -1
    for peer in port.peers:
        if not peer.identities:
            yield "a peer rule is of nobody"
            continue
        if not seen.isdisjoint(peer.identities):
            yield "an identity is in two peer rules"
        if peer.identities[0] < last:
            yield "peer rules are not in order"
        if IDENTITY_ANY in peer.identities and not peer.is_wildcard:
            yield "the wildcard is in a rule of its own"
        if (peer.verdict is Verdict.REDIRECT) != (peer.rule_set is not None):
            yield "a redirect has a rule set, and nothing else has"
        if peer.slot and peer.slot not in slots:
            yield f"slot {peer.slot} does not exist"
        seen, last = seen | peer.identities, peer.identities[0]


def _plain(value: Any) -> Any:
    if isinstance(value, PortRange):
        return str(value)
    if isinstance(value, Origin):
        return str(value)
    if isinstance(value, Protocol):
        return value.name
    if isinstance(value, Secret):
        return REDACTED
    if isinstance(value, StrEnum):
        return value.value  # yaml.safe_dump takes no subclasses of str
    if isinstance(value, FrozenBitMap):
        return list(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        fields = ((name, getattr(value, name)) for name in value.__dataclass_fields__)
        return {name: _plain(v) for name, v in fields if v not in ("", (), None)}
    return value
