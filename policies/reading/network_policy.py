"""NetworkPolicy (networking.k8s.io/v1): raw object -> typed rules; absent and empty as Kubernetes means them. Pure.

Keys of podSelector are `k8s:` labels of pods, those of namespaceSelector labels of their namespace; an absent or empty
`from` is everybody, absent ports are all; policyTypes says which directions are enforced (Cilium: pkg/k8s).
"""

from __future__ import annotations

from typing import Any, Final

from policies.errors import Reason
from policies.labels import K8S, NAMESPACE_LABELS_PREFIX
from policies.reading.cidr_text import parse_prefix
from policies.reading.crd import read_metadata
from policies.reading.crd_peers import EXCEPTS_MAX, check_except
from policies.reading.crd_scope import Scope
from policies.reading.crd_selectors import NAMESPACE_LABEL, Home, read_plain_selector
from policies.reading.fields import ROOT, Findings, Path, Raw, Schema, items, mapping, sequence, submap, text
from policies.reading.sanitize import Refused, port_name_fault
from policies.rules import CidrPeer, Clause, Entity, EntityPeer, Peer, Policy, PortSpec, Rule, ToPorts
from policies.selectors import Operator, Requirement, Selector
from policies.types import ALL_PORTS, PORT_MAX, Direction, PortRange, Protocol

KIND: Final = "NetworkPolicy"
_OBJECT: Final = Schema.of("apiVersion", "kind", "metadata", "spec", "status")
_SPEC: Final = Schema.of("podSelector", "policyTypes", *Direction)
_PEERS: Final = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
_CLAUSES: Final = {direction: Schema.of("ports", field) for direction, field in _PEERS.items()}
_PEER: Final = Schema.of("podSelector", "namespaceSelector", "ipBlock")
_IP_BLOCK: Final = Schema.of("cidr", "except")
_PORT: Final = Schema.of("port", "endPort", "protocol")
_PROTOCOLS: Final = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "SCTP": Protocol.SCTP}
_TYPES: Final = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}


def read_network_policy(raw: Raw, findings: Findings) -> Policy:
    """The typed policy; of no use after errors."""
    _OBJECT.check(raw, ROOT, findings)
    read_metadata(submap(raw, "metadata", ROOT, findings), findings)
    scope = Scope(findings, Home(findings.namespace))
    path = ROOT / "spec"
    if raw.get("spec") is None:
        findings.ours(path, Reason.MISSING, "a policy has a spec")
    spec = submap(raw, "spec", ROOT, findings)
    _SPEC.check(spec, path, findings)
    if raw.get("spec") is not None and spec.get("podSelector") is None:
        findings.ours(path / "podSelector", Reason.MISSING, "say which pods: {} is every pod of the namespace")
    subject = _subject(spec.get("podSelector"), path / "podSelector", findings)
    ingress, egress = (_read_clauses(spec, direction, path, scope) for direction in Direction)
    enforces = _read_types(spec, path, findings)
    for direction in Direction:
        if spec.get(direction) and direction not in enforces:
            words = f"there are rules, but policyTypes leaves {direction} out: Cilium enforces them, others do not"
            findings.ours(path / "policyTypes", Reason.CONFLICT, words)
    return Policy(KIND, findings.namespace, findings.name, (Rule(subject, ingress, egress, enforces),))


def fallback(raw: Any, findings: Findings) -> Policy | None:
    """What must hold for one that was refused and was never good; None if nobody is known to be meant."""
    spec = raw.get("spec")
    if not findings.name or not isinstance(spec, dict) or spec.get("podSelector") is None:
        return None
    aside = Findings(findings.kind, findings.namespace, findings.name)
    subject = _subject(spec["podSelector"], ROOT, aside)
    if aside.errors:
        return None
    enforces = set(_read_types(spec, ROOT, aside))
    enforces |= {direction for direction in Direction if spec.get(direction) not in (None, [])}
    directions = tuple(Direction) if aside.errors else tuple(d for d in Direction if d in enforces)
    return Policy(KIND, findings.namespace, findings.name, (Rule(subject, enforces=directions, invalid=True),), False)


def _in_namespace(namespace: str) -> Requirement:
    return Requirement(NAMESPACE_LABEL, Operator.IN, (namespace,))


def _pod_key(key: str) -> tuple[str, str]:
    return K8S, key


def _namespace_key(key: str) -> tuple[str, str]:
    return K8S, f"{NAMESPACE_LABELS_PREFIX}{key}"


def _subject(raw: Any, path: Path, findings: Findings) -> Selector:
    found = read_plain_selector(raw, path, findings, _pod_key) if raw is not None else Selector()
    return Selector.of([*found.requirements, _in_namespace(findings.namespace)])


def _read_types(spec: Raw, path: Path, findings: Findings) -> tuple[Direction, ...]:
    """policyTypes; absent, ingress, and egress where there are egress rules, as the API server fills it in."""
    where = path / "policyTypes"
    written = items(spec, "policyTypes", path, findings)
    found = set()
    for i, item in enumerate(written):
        direction = _TYPES.get(item) if isinstance(item, str) else None
        if direction is None:
            findings.add(where[i], Reason.INVALID, f"must be one of {', '.join(_TYPES)}")
        else:
            found.add(direction)
    if len(written) > len(_TYPES):
        findings.add(where, Reason.TOO_MANY, f"{len(written)} types, the most is {len(_TYPES)}")
    if not written:
        found = {Direction.INGRESS, *([Direction.EGRESS] if spec.get(Direction.EGRESS) else [])}
    return tuple(direction for direction in Direction if direction in found)


def _read_clauses(spec: Raw, direction: Direction, path: Path, scope: Scope) -> tuple[Clause, ...]:
    where = path / direction.value
    written = items(spec, direction.value, path, scope.findings)
    if not scope.allows("entries of ingress and egress", len(written), where):
        return ()
    found = []
    for i, item in enumerate(written):
        raw = mapping(item, where[i], scope.findings)
        if raw is not None:
            found.append(_read_clause(raw, where[i], direction, scope))
    return tuple(found)


def _read_clause(raw: Raw, path: Path, direction: Direction, scope: Scope) -> Clause:
    findings = scope.findings
    _CLAUSES[direction].check(raw, path, findings)
    field = _PEERS[direction]
    written = items(raw, field, path, findings)
    peers: list[Peer] = [] if written else [EntityPeer(Entity.ALL)]
    if raw.get(field) == []:
        words = f"an empty list is everybody in a NetworkPolicy; for nobody, leave the whole entry out of {direction}"
        findings.warn(path / field, Reason.SELECTS_EVERYTHING, words)
    if scope.allows("peers", len(written), path / field):
        for i, item in enumerate(written):
            peers += _read_peer(item, (path / field)[i], findings)
    ports = items(raw, "ports", path, findings)
    specs: list[PortSpec | None] = []
    if scope.allows("ports", len(ports), path / "ports"):
        specs = [_read_port(item, (path / "ports")[i], findings) for i, item in enumerate(ports)]
    to_ports = (ToPorts(tuple(spec for spec in specs if spec is not None)),) if ports else ()
    return Clause(scope.origin(path), tuple(dict.fromkeys(peers)), to_ports)


def _read_peer(item: Any, path: Path, findings: Findings) -> list[Peer]:
    raw = mapping(item, path, findings)
    if raw is None:
        return []
    _PEER.check(raw, path, findings)
    pods, namespaces, block = (raw.get(name) for name in ("podSelector", "namespaceSelector", "ipBlock"))
    if block is not None:
        if pods is not None or namespaces is not None:
            findings.add(path / "ipBlock", Reason.CONFLICT, "not together with podSelector or namespaceSelector")
        return _read_block(block, path / "ipBlock", findings)
    if pods is None and namespaces is None:
        findings.add(path, Reason.MISSING, "say podSelector, namespaceSelector or ipBlock")
        return []
    found: list[Requirement] = []
    if pods is not None:
        found += read_plain_selector(pods, path / "podSelector", findings, _pod_key).requirements
    if namespaces is None:
        found.append(_in_namespace(findings.namespace))
    else:
        chosen = read_plain_selector(namespaces, path / "namespaceSelector", findings, _namespace_key).requirements
        found += chosen or (Requirement(NAMESPACE_LABEL, Operator.EXISTS),)
    return [Selector.of(found)]


def _read_block(item: Any, path: Path, findings: Findings) -> list[Peer]:
    raw = mapping(item, path, findings)
    if raw is None:
        return []
    _IP_BLOCK.check(raw, path, findings)
    try:
        cidr = parse_prefix(text(raw, "cidr", path, findings))
    except Refused as refused:
        findings.add(path / "cidr", refused.reason, refused.message)
        return []
    if cidr.has_host_bits:
        findings.warn(path / "cidr", Reason.REWRITTEN, f"{raw['cidr']} means {cidr}")
    where = path / "except"
    written = sequence(raw["except"], where, findings) or () if raw.get("except") is not None else ()
    if len(written) > EXCEPTS_MAX:
        findings.ours(where, Reason.TOO_MANY, f"{len(written)} prefixes, the most is {EXCEPTS_MAX}")
        return []
    excepts = set()
    for i, value in enumerate(written):
        try:
            excepted = parse_prefix(value if isinstance(value, str) else "")
        except Refused as refused:
            findings.add(where[i], refused.reason, refused.message)
            continue
        check_except(excepted, cidr, where[i], findings, is_strict=True)
        excepts.add(str(excepted))
    return [CidrPeer(str(cidr), tuple(sorted(excepts)))]


def _read_port(item: Any, path: Path, findings: Findings) -> PortSpec | None:
    raw = mapping(item, path, findings)
    if raw is None:
        return None
    _PORT.check(raw, path, findings)
    written = "TCP" if raw.get("protocol") is None else text(raw, "protocol", path, findings)
    if written not in _PROTOCOLS:
        findings.add(path / "protocol", Reason.INVALID, f'"{written}" is none of {", ".join(_PROTOCOLS)}')
        return None
    ports = _read_range(raw, path, findings)
    return None if ports is None else PortSpec(_PROTOCOLS[written], ports)


def _read_range(raw: Raw, path: Path, findings: Findings) -> PortRange | str | None:
    first, last = raw.get("port"), raw.get("endPort")
    if last is not None and (not _is_port(last) or not _is_port(first) or last < first):
        words = f"must be a number within port..{PORT_MAX}, behind a port that is a number"
        findings.add(path / "endPort", Reason.BAD_PORT, words)
        return None
    if first is None:
        return ALL_PORTS
    if isinstance(first, str):
        if fault := port_name_fault(first):
            findings.add(path / "port", Reason.BAD_PORT, fault)
            return None
        return first
    if not _is_port(first):
        findings.add(path / "port", Reason.BAD_PORT, f"must be a number within 1..{PORT_MAX}, or a name")
        return None
    return PortRange(first, first if last is None else last)


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= PORT_MAX
