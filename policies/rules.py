"""Checked rules: what every kind of policy object is read into, and all that the compiler knows of one. Pure data.

CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and NetworkPolicy end here in one form, with namespaces put in and
defaults resolved; nothing behind this file asks again which kind an object was. Absent, [] and [{}] stay apart (facts
2.3): `peers` None is "anybody, on these ports", () is "nobody".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from policies.ir import FqdnSelector, HeaderAction, HeaderMatch, HttpRule, L7Parser, L7Rule, Mismatch
from policies.selectors import Selector
from policies.types import Direction, Origin, PortRange, Protocol


class Action(StrEnum):
    """What a clause does with what it covers. Deny beats every allow, whatever is more specific (facts 3.3)."""

    ALLOW = "allow"
    DENY = "deny"


class Entity(StrEnum):
    """Peers by name (facts 2.4)."""

    ALL = "all"
    WORLD = "world"
    WORLD_IPV4 = "world-ipv4"
    WORLD_IPV6 = "world-ipv6"
    CLUSTER = "cluster"
    HOST = "host"
    REMOTE_NODE = "remote-node"
    INIT = "init"
    INGRESS = "ingress"
    HEALTH = "health"
    UNMANAGED = "unmanaged"
    NONE = "none"
    KUBE_APISERVER = "kube-apiserver"


@dataclass(frozen=True, slots=True)
class EntityPeer:
    """fromEntities, toEntities: one of them."""

    entity: Entity


@dataclass(frozen=True, slots=True)
class CidrPeer:
    """A prefix (canonical, host bits masked) less the prefixes of `excepts` (sorted). Never a pod or a node (2.6)."""

    prefix: str
    excepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CidrGroupPeer:
    """The prefixes of every CiliumCIDRGroup that `groups` chooses, less those of `excepts`.

    A group has its own labels (`cidrgroup:KEY=VALUE`) and one for its name; cidrGroupRef asks for the latter.
    """

    groups: Selector
    excepts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """toServices: by name, or by a selector over the labels of services; namespace "" is any.

    A service with a selector stands for the pods it selects, one without for its backends' addresses.
    """

    namespace: str = ""
    name: str = ""
    selector: Selector | None = None


@dataclass(frozen=True, slots=True)
class FqdnPeer:
    """toFQDNs: where names that are selected lead to, as far as pods of the node have asked. Never a pod or a node."""

    selector: FqdnSelector


Peer = Selector | EntityPeer | CidrPeer | CidrGroupPeer | ServicePeer | FqdnPeer


@dataclass(frozen=True, slots=True)
class PortSpec:
    """Ports of one protocol: a range, or a name to be looked up in pods. ANY with ALL_PORTS is also what has no ports.

    Of ICMP and ICMPV6 the "port" is the type.
    """

    protocol: Protocol
    ports: PortRange | str


@dataclass(frozen=True, slots=True)
class SecretHeader:
    """An entry of headerMatches whose expected value is that of a Secret, or `fallback` where that is not there (4.3).

    Without `mismatch` the rule matches only requests that have it.
    """

    header: str
    namespace: str
    secret: str
    mismatch: Mismatch | None = None
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class SecretRule:
    """What becomes of an HTTP rule of ToPorts.l7 once secrets are known (policies.compiling.secret_headers). Until then
    `rule` matches nothing. `expects`: its headerMatches, in their order."""

    rule: HttpRule
    expects: tuple[HeaderMatch | HeaderAction | SecretHeader, ...]


@dataclass(frozen=True, slots=True)
class ToPorts:
    """One entry of toPorts, or the fields of icmps. `l7` is of one parser and sorted, each match once; empty: no L7
    (`{}` would be a rule that matches all). An entry without `ports` allows and denies nothing.

    A Kafka rule for a role has the keys of today's roles: a node may take them for Cilium's (policies.compiling.roles).
    """

    ports: tuple[PortSpec, ...] = ()
    l7: tuple[L7Rule, ...] = ()
    secret_rules: tuple[SecretRule, ...] = ()

    @property
    def parser(self) -> L7Parser | None:
        return self.l7[0].parser if self.l7 else None


@dataclass(frozen=True, slots=True)
class Clause:
    """One entry of ingress, ingressDeny, egress or egressDeny. `to_ports` (): all ports."""

    origin: Origin
    peers: tuple[Peer, ...] | None
    to_ports: tuple[ToPorts, ...] = ()
    action: Action = Action.ALLOW


@dataclass(frozen=True, slots=True)
class Rule:
    """One spec. `enforces`: directions that it turns on default deny for; L7 rules of other directions see and refuse
    nothing (3.2). `invalid`: it stands in for a refused one. `log` is shown with the flows that it decides."""

    subject: Selector
    ingress: tuple[Clause, ...] = ()
    egress: tuple[Clause, ...] = ()
    enforces: tuple[Direction, ...] = ()
    invalid: bool = False
    log: str = ""

    def clauses(self, direction: Direction) -> tuple[Clause, ...]:
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy object of any kind; `namespace` is "" for clusterwide ones. Not `valid`: nothing of it can be used but
    whom it selects, who are denied until it is good."""

    kind: str
    namespace: str
    name: str
    rules: tuple[Rule, ...]
    valid: bool = True
