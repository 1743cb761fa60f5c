"""Peers of Cilium's policies: the from and to fields of one entry -> Peer values (facts 1.2, 2.2 - 2.4). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from policies.dns_patterns import canonical, canonical_pattern
from policies.errors import Reason
from policies.ir import FqdnSelector
from policies.labels import ANY
from policies.reading.cidr_text import Cidr, parse_address_or_prefix, parse_prefix
from policies.reading.crd_scope import Scope
from policies.reading.crd_selectors import (
    CIDR_GROUP,
    read_cidr_group_selector,
    read_node_peer,
    read_peer,
    read_plain_selector,
)
from policies.reading.dns_names import check_entry
from policies.reading.fields import Findings, Path, Raw, Schema, items, mapping, sequence, strings, submap, text
from policies.reading.sanitize import Refused, group_name_fault, object_name_fault
from policies.rules import CidrGroupPeer, CidrPeer, Entity, EntityPeer, FqdnPeer, Peer, ServicePeer
from policies.selectors import Operator, Requirement, Selector
from policies.types import Direction

EXCEPTS_MAX: Final = 10_000  # per entry of a CIDRSet
CIDR_GROUP_NAME_KEY: Final = f"{CIDR_GROUP}:io.cilium.policy.cidrgroupname/"
_ENTITIES: Final = {entity.value: entity for entity in Entity}
_NOT_IN_SCHEMA: Final = frozenset({Entity.WORLD_IPV4, Entity.WORLD_IPV6})
_CIDR_RULE: Final = Schema.of("cidr", "cidrGroupRef", "cidrGroupSelector", "except")
_SERVICE: Final = Schema.of("k8sService", "k8sServiceSelector")
_SERVICE_NAME: Final = Schema.of("serviceName", "namespace")
_SERVICE_SELECTOR: Final = Schema.of("selector", "namespace")
_GROUP: Final = Schema.of("aws")
_AWS: Final = Schema.of("labels", "securityGroupsIds", "securityGroupsNames", "region")

_Reader = Callable[[Any, Path, Scope], Sequence[Peer]]


def read_peers(raw: Raw, path: Path, direction: Direction, scope: Scope) -> tuple[Peer, ...] | None:
    """Whom an entry is about; None if it says nothing of peers, () if a list is there and empty (facts 2.3)."""
    findings = scope.findings
    found: list[Peer] = []
    named: list[str] = []
    empty: list[str] = []
    for name, reader in _FIELDS[direction].items():
        if raw.get(name) is None:
            continue
        where = path / name
        written = sequence(raw[name], where, findings)
        if written and scope.allows("peers", len(written), where):
            for i, item in enumerate(written):
                found += reader(item, where[i], scope)
        (named if written else empty).append(name)
    if len(named) != 1 or empty or named[0] in _REMARKED:
        _check_combination(raw, path, (named, empty), findings)
    if empty:
        return ()
    return tuple(dict.fromkeys(found)) if named else None


def _check_combination(raw: Raw, path: Path, lists: tuple[list[str], list[str]], findings: Findings) -> None:
    """One kind of peers per entry. `lists`: names of those with items, and of those without."""
    named, empty = lists
    if len(named) > 1:
        words = f"combining {' and '.join(named)} is not supported: write an entry for each"
        findings.add(path / named[1], Reason.CONFLICT, words)
    for name in empty:
        if name in _EMPTY_IS_ABSENT:
            words = "Cilium takes an empty list for an absent one, which is any peer: leave it out, or name some"
            findings.ours(path / name, Reason.EMPTY, words)
        elif raw[name] == []:
            findings.warn(path / name, Reason.SELECTS_NOTHING, "an empty list of peers is nobody; {} would be all")
    for nodes in _REMARKED.intersection(named):
        words = "Cilium refuses it, unless it runs with --enable-node-selector-labels"
        findings.theirs(path / nodes, Reason.NOT_IN_SCHEMA, words)


def _endpoint(item: Any, path: Path, scope: Scope) -> list[Peer]:
    return [read_peer(item, path, scope.home, scope.findings)]


def _node(item: Any, path: Path, scope: Scope) -> list[Peer]:
    return [read_node_peer(item, path, scope.findings)]


def _entity(item: Any, path: Path, scope: Scope) -> list[Peer]:
    if not isinstance(item, str):
        scope.findings.add(path, Reason.WRONG_TYPE, "must be a string, the name of an entity")
        return []
    entity = _ENTITIES.get(item)
    if entity is None:
        scope.findings.add(path, Reason.BAD_ENTITY, f'"{item}" is none of {", ".join(_ENTITIES)}')
        return []
    if entity in _NOT_IN_SCHEMA:
        scope.findings.theirs(path, Reason.NOT_IN_SCHEMA, f"the schema of Cilium's policies lacks {entity}: use world")
    return [EntityPeer(entity)]


def _cidr(item: Any, path: Path, scope: Scope) -> list[Peer]:
    cidr = _parsed(item, path, scope.findings, parse_address_or_prefix)
    return [] if cidr is None else [CidrPeer(str(cidr))]


def _parsed(item: Any, path: Path, findings: Findings, parse: Callable[[str], Cidr]) -> Cidr | None:
    if not isinstance(item, str):
        findings.add(path, Reason.WRONG_TYPE, "must be a string ADDRESS/LENGTH")
        return None
    try:
        cidr = parse(item)
    except Refused as refused:
        findings.add(path, refused.reason, refused.message)
        return None
    if cidr.has_host_bits:
        findings.warn(path, Reason.REWRITTEN, f"{item} means {cidr}")
    return cidr


def _cidr_rule(item: Any, path: Path, scope: Scope) -> list[Peer]:
    findings = scope.findings
    raw = mapping(item, path, findings)
    if raw is None:
        return []
    _CIDR_RULE.check(raw, path, findings)
    written, group = text(raw, "cidr", path, findings), text(raw, "cidrGroupRef", path, findings)
    named = [bool(written), bool(group), raw.get("cidrGroupSelector") is not None]
    if sum(named) != 1:
        words = "exactly one of cidr, cidrGroupRef and cidrGroupSelector is required"
        findings.add(path, Reason.CONFLICT if any(named) else Reason.MISSING, words)
        return []
    if written:
        cidr = _parsed(written, path / "cidr", findings, parse_prefix)
        excepts = _read_excepts(raw, path, scope, cidr)
        return [] if cidr is None else [CidrPeer(str(cidr), excepts)]
    excepts = _read_excepts(raw, path, scope, None)
    if not group:
        where = path / "cidrGroupSelector"
        return [CidrGroupPeer(read_cidr_group_selector(raw["cidrGroupSelector"], where, findings), excepts)]
    if fault := group_name_fault(group):
        findings.add(path / "cidrGroupRef", Reason.INVALID, fault)
    return [CidrGroupPeer(Selector.of([Requirement(CIDR_GROUP_NAME_KEY + group, Operator.EXISTS)]), excepts)]


def _read_excepts(raw: Raw, path: Path, scope: Scope, inside: Cidr | None) -> tuple[str, ...]:
    """`except`, sorted. Cilium looks only whether each one's address is inside (facts 1.4)."""
    where, findings = path / "except", scope.findings
    written = items(raw, "except", path, findings)
    if len(written) > EXCEPTS_MAX:
        findings.ours(where, Reason.TOO_MANY, f"{len(written)} prefixes, the most is {EXCEPTS_MAX}")
        return ()
    if not scope.allows("exceptions", len(written), where):
        return ()
    found = set()
    for i, item in enumerate(written):
        cidr = _parsed(item, where[i], findings, parse_prefix)
        if cidr is None:
            continue
        found.add(str(cidr))
        if inside is not None:
            check_except(cidr, inside, where[i], findings)
    return tuple(sorted(found))


def check_except(cidr: Cidr, inside: Cidr, path: Path, findings: Findings, *, is_strict: bool = False) -> None:
    """An exception is a part of what it is an exception from. `is_strict`: a part only, as Kubernetes wants it."""
    if cidr.network.version != inside.network.version or cidr.address not in inside.network:
        findings.add(path, Reason.BAD_CIDR, f"{cidr} is not inside {inside}")
    elif is_strict and cidr.network.prefixlen <= inside.network.prefixlen:
        findings.add(path, Reason.BAD_CIDR, f"{cidr} is no part of {inside}")
    elif cidr.network.prefixlen < inside.network.prefixlen:
        findings.ours(path, Reason.BAD_CIDR, f"{cidr} reaches beyond {inside}")
    elif cidr.network == inside.network:
        findings.warn(path, Reason.SELECTS_NOTHING, f"nothing is left of {inside}")


def _service(item: Any, path: Path, scope: Scope) -> list[Peer]:
    findings = scope.findings
    raw = mapping(item, path, findings)
    if raw is None:
        return []
    _SERVICE.check(raw, path, findings)
    found: list[Peer] = []
    if raw.get("k8sService") is not None:
        where = path / "k8sService"
        named = submap(raw, "k8sService", path, findings)
        _SERVICE_NAME.check(named, where, findings)
        name, namespace = text(named, "serviceName", where, findings), _namespace(named, where, findings)
        if not name:
            findings.ours(where / "serviceName", Reason.MISSING, "say which service: no name selects none")
        found.append(ServicePeer(namespace, name))
    if raw.get("k8sServiceSelector") is not None:
        where = path / "k8sServiceSelector"
        chosen = submap(raw, "k8sServiceSelector", path, findings)
        _SERVICE_SELECTOR.check(chosen, where, findings)
        if chosen.get("selector") is None:
            findings.add(where / "selector", Reason.MISSING, "say which services: {} is every one")
            return found
        selector = read_plain_selector(chosen["selector"], where / "selector", findings, lambda key: (ANY, key))
        found.append(ServicePeer(_namespace(chosen, where, findings), "", selector))
    if not found:
        findings.ours(path, Reason.MISSING, "say k8sService or k8sServiceSelector: neither selects no service")
    return found


def _fqdn(item: Any, path: Path, scope: Scope) -> list[Peer]:
    """A name or a pattern; what is no text is at fault. Neither of them is the root (facts 6.1)."""
    raw = check_entry(item, path, scope.findings)
    name, pattern = raw.get("matchName"), raw.get("matchPattern")
    if name and pattern:
        scope.findings.add(path, Reason.CONFLICT, "only one of matchName and matchPattern is allowed")
    if isinstance(pattern, str) and pattern:
        return [FqdnPeer(_selector(canonical_pattern(pattern)))]
    return [FqdnPeer(FqdnSelector(name=canonical(name)) if isinstance(name, str) and name else FqdnSelector())]


def _selector(pattern: str) -> FqdnSelector:
    """A pattern without a star is a name."""
    return FqdnSelector(pattern=pattern) if "*" in pattern else FqdnSelector(name=pattern)


def _namespace(raw: Raw, path: Path, findings: Findings) -> str:
    namespace = text(raw, "namespace", path, findings)
    if namespace and (fault := object_name_fault(namespace)):
        findings.ours(path / "namespace", Reason.INVALID, fault)
    return namespace


def _cloud_group(item: Any, path: Path, scope: Scope) -> list[Peer]:
    findings = scope.findings
    raw = mapping(item, path, findings)
    if raw is not None:
        _GROUP.check(raw, path, findings)
        aws = submap(raw, "aws", path, findings)
        where = path / "aws"
        _AWS.check(aws, where, findings)
        strings(submap(aws, "labels", where, findings), where / "labels", findings)
        text(aws, "region", where, findings)
        for field in ("securityGroupsIds", "securityGroupsNames"):
            for i, value in enumerate(items(aws, field, where, findings)):
                if not isinstance(value, str):
                    findings.add((where / field)[i], Reason.WRONG_TYPE, "must be a string")
        findings.ours(path, Reason.NOT_SUPPORTED, "groups of cloud providers are not looked up here: use a CIDR group")
    return []


_EMPTY_IS_ABSENT: Final = frozenset({"fromGroups", "toGroups", "toServices"})
_KINDS: Final[dict[str, _Reader]] = {
    "Endpoints": _endpoint,
    "Entities": _entity,
    "CIDR": _cidr,
    "CIDRSet": _cidr_rule,
    "Nodes": _node,
    "Groups": _cloud_group,
}
_FIELDS: Final[dict[Direction, dict[str, _Reader]]] = {
    Direction.INGRESS: {f"from{kind}": reader for kind, reader in _KINDS.items()},
    Direction.EGRESS: {
        **{f"to{kind}": reader for kind, reader in _KINDS.items()},
        "toServices": _service,
        "toFQDNs": _fqdn,
    },
}
_REMARKED: Final = frozenset({"fromNodes", "toNodes"})
PEER_FIELDS: Final = {direction: frozenset(fields) for direction, fields in _FIELDS.items()}
