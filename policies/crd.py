"""CiliumNetworkPolicy (cilium.io/v2): raw object -> typed rules, strictly. Pure.

Every field of the schema is known here: read, refused as not supported yet, or refused as Cilium refuses it; a field
that is not in the schema is refused too. Reads raw dicts, because the difference between absent, [] and [{}] is policy
(facts 2.3): no peers field is "any peer", an empty one is "nobody", [{}] is "everyone in the namespace".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.crd_selectors import read_peer, read_subject
from policies.errors import Reason
from policies.fields import ROOT, Findings, Path, Raw, Schema, integer, items, mapping, sequence, submap, text
from policies.ir import HeaderMatch, HttpRule
from policies.rules import Clause, Policy, PortSpec, Rule, ToPorts
from policies.sanitize import Refused, header_match, object_name_fault, port_number, regex_fault
from policies.selectors import Selector
from policies.types import ALL_PORTS, PORT_MAX, Direction, Origin, PortRange, Protocol

KIND: Final = "CiliumNetworkPolicy"
PORTS_MAX: Final = 40  # per toPorts entry (facts 1.3)


# The schema, field by field (facts 1.2).
_OBJECT: Final = Schema(known=("apiVersion", "kind", "metadata", "spec", "specs", "status"))
_METADATA: Final = Schema(
    known=(
        *("name", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation", "creationTimestamp"),
        *("deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "generateName", "managedFields"),
        *("ownerReferences", "selfLink"),
    )
)
_SPEC: Final = Schema(
    known=("endpointSelector", "ingress", "egress", "labels", "description"),
    later=("ingressDeny", "egressDeny", "enableDefaultDeny", "log"),
    refused={"nodeSelector": (Reason.NOT_ALLOWED, "nodeSelector is for CiliumClusterwideNetworkPolicy only")},
)
_PEERS_LATER: Final = ("CIDR", "CIDRSet", "Entities", "Groups", "Nodes")
_GONE: Final = (Reason.NOT_ALLOWED, "removed in Cilium 1.19: use a second policy")
_CLAUSES: Final = {
    Direction.INGRESS: Schema(
        known=("fromEndpoints", "toPorts"),
        later=(*(f"from{name}" for name in _PEERS_LATER), "icmps", "authentication"),
        refused={"fromRequires": _GONE},
    ),
    Direction.EGRESS: Schema(
        known=("toEndpoints", "toPorts"),
        later=(*(f"to{name}" for name in _PEERS_LATER), "toServices", "toFQDNs", "icmps", "authentication"),
        refused={"toRequires": _GONE},
    ),
}
_PEERS_FIELD: Final = {Direction.INGRESS: "fromEndpoints", Direction.EGRESS: "toEndpoints"}
_TO_PORTS: Final = Schema(
    known=("ports", "rules"), later=("terminatingTLS", "originatingTLS", "serverNames", "listener")
)
_RULES: Final = Schema(known=("http",), later=("kafka", "dns", "l7proto", "l7"))
_PORT: Final = Schema(known=("port", "endPort", "protocol"))
_PROTOCOLS: Final = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "ANY": Protocol.ANY}
_PROTOCOLS_LATER: Final = ("SCTP", "VRRP", "IGMP")
_HTTP: Final = Schema(known=("path", "method", "host", "headers"), later=("headerMatches",))
_HTTP_KNOWN: Final = frozenset(("path", "method", "host", "headers"))
_LABEL: Final = Schema(known=("key", "value", "source"))


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is the same for everything inside one object."""

    namespace: str
    name: str
    findings: Findings

    def origin(self, path: Path) -> Origin:
        return Origin(KIND, self.namespace, self.name, str(path))


def read_policy(raw: Raw, findings: Findings) -> Policy | None:
    """The typed policy; None, or one of no use, after findings."""
    _OBJECT.check(raw, ROOT, findings)
    _read_metadata(submap(raw, "metadata", ROOT, findings), findings)
    scope = _Scope(findings.namespace, findings.name, findings)
    specs = [(ROOT / "spec", raw["spec"])] if raw.get("spec") is not None else []
    specs += [((ROOT / "specs")[i], item) for i, item in enumerate(items(raw, "specs", ROOT, findings))]
    if not specs:
        findings.add(ROOT / "spec", Reason.MISSING, "a policy has spec or specs")
    rules = [_read_spec(spec, path, scope) for path, spec in specs]
    return Policy(KIND, scope.namespace, scope.name, tuple(rule for rule in rules if rule is not None))


def fallback(raw: Any) -> Policy | None:
    """What must hold for a policy that was refused and was never good: whom it selects is denied in its directions.

    None if its name or every one of its selectors is unreadable too: then nobody is known to be meant.
    """
    aside = Findings()
    metadata = submap(raw, "metadata", ROOT, aside)
    name, namespace = text(metadata, "name", ROOT, aside), text(metadata, "namespace", ROOT, aside) or "default"
    specs: list[Any] = [raw.get("spec")]
    if isinstance(raw.get("specs"), list):
        specs += raw["specs"]
    rules = []
    for spec in specs:
        findings = Findings()
        if isinstance(spec, dict) and spec.get("endpointSelector") is not None:
            subject = read_subject(spec["endpointSelector"], ROOT, namespace, findings)
            if not findings.errors and (directions := _mentioned(spec)):
                rules.append(Rule(subject, enforces=directions, invalid=True))
    if not name or aside.errors or not rules:
        return None
    return Policy(KIND, namespace, name, tuple(rules), valid=False)


def _mentioned(spec: Raw) -> tuple[Direction, ...]:
    """Directions that a refused spec is about; both, if it names none and has a field that may be a misspelt one."""
    nothing: tuple[Any, ...] = (None, [])
    found = tuple(d for d in Direction if spec.get(d) not in nothing or spec.get(f"{d}Deny") not in nothing)
    unknown = any(name not in _SPEC.known and name not in _SPEC.later for name in spec if name != "nodeSelector")
    return tuple(Direction) if unknown and not found else found


def _read_metadata(raw: Raw, findings: Findings) -> None:
    path = ROOT / "metadata"
    _METADATA.check(raw, path, findings)
    name = text(raw, "name", path, findings)
    namespace = text(raw, "namespace", path, findings)
    if not name:
        findings.add(path / "name", Reason.MISSING, "every object has a name")
    for field, value in (("name", name), ("namespace", namespace)):
        if value and (fault := object_name_fault(value)):
            findings.add(path / field, Reason.INVALID, fault)


def _read_spec(raw: Any, path: Path, scope: _Scope) -> Rule | None:
    findings = scope.findings
    spec = mapping(raw, path, findings)
    if spec is None:
        return None
    _SPEC.check(spec, path, findings)
    text(spec, "description", path, findings)
    _check_labels(items(spec, "labels", path, findings), path / "labels", findings)
    selector = spec.get("endpointSelector")
    if selector is None:
        findings.add(path / "endpointSelector", Reason.MISSING, "say which pods: {} is every pod of the namespace")
    subject = Selector()
    if selector is not None:
        subject = read_subject(selector, path / "endpointSelector", scope.namespace, findings)
    clauses = {d: _read_clauses(spec, d, path, scope) for d in Direction}
    enforces = tuple(d for d in Direction if clauses[d])
    if all(spec.get(field) in (None, []) for field in ("ingress", "egress", *_SPEC.later)):
        findings.add(path, Reason.EMPTY, "a rule has at least one entry in ingress or egress")
    return Rule(subject, clauses[Direction.INGRESS], clauses[Direction.EGRESS], enforces)


def _check_labels(labels: Any, path: Path, findings: Findings) -> None:
    """Labels of the rule take no part in enforcement: `source:key=value`, or {key, value, source}."""
    for i, label in enumerate(labels):
        if isinstance(label, str):
            continue
        raw = mapping(label, path[i], findings)
        if raw is not None:
            _LABEL.check(raw, path[i], findings)
            for field in ("key", "value", "source"):
                text(raw, field, path[i], findings)


def _read_clauses(spec: Raw, direction: Direction, path: Path, scope: _Scope) -> tuple[Clause, ...]:
    where = path / direction.value
    found = []
    for i, item in enumerate(items(spec, direction.value, path, scope.findings)):
        raw = mapping(item, where[i], scope.findings)
        if raw is not None:
            found.append(_read_clause(raw, direction, where[i], scope))
    return tuple(found)


def _read_clause(raw: Raw, direction: Direction, path: Path, scope: _Scope) -> Clause:
    _CLAUSES[direction].check(raw, path, scope.findings)
    field = _PEERS_FIELD[direction]
    peers: tuple[Selector, ...] | None = None
    if raw.get(field) is not None:
        written = sequence(raw[field], path / field, scope.findings) or ()
        where = path / field
        peers = tuple(read_peer(p, where[i], scope.namespace, scope.findings) for i, p in enumerate(written))
    origin = scope.origin(path)
    entries = items(raw, "toPorts", path, scope.findings)
    where = path / "toPorts"
    to_ports = (_read_to_ports(item, where[i], origin, scope.findings) for i, item in enumerate(entries))
    return Clause(origin, peers, tuple(to_ports))


def _read_to_ports(item: Any, path: Path, origin: Origin, findings: Findings) -> ToPorts:
    raw = mapping(item, path, findings)
    if raw is None:
        return ToPorts()
    _TO_PORTS.check(raw, path, findings)
    written = items(raw, "ports", path, findings)
    if len(written) > PORTS_MAX:
        findings.add(path / "ports", Reason.TOO_MANY, f"{len(written)} ports, the most is {PORTS_MAX}")
    rules = submap(raw, "rules", path, findings)
    _RULES.check(rules, path / "rules", findings)
    http = _read_http_rules(items(rules, "http", path / "rules", findings), path / "rules" / "http", origin, findings)
    has_l7 = bool(rules.get("http"))
    if has_l7 and not written:
        findings.add(path / "ports", Reason.MISSING, "HTTP rules need the ports that they are for")
    specs = [_read_port(port, (path / "ports")[i], has_l7, findings) for i, port in enumerate(written)]
    return ToPorts(tuple(spec for spec in specs if spec is not None), http)


def _read_port(item: Any, path: Path, has_l7: bool, findings: Findings) -> PortSpec | None:
    raw = mapping(item, path, findings)
    if raw is None:
        return None
    _PORT.check(raw, path, findings)
    protocol = _read_protocol(raw, path, findings)
    ports = _read_range(raw, path, findings)
    if has_l7 and protocol is not None and protocol is not Protocol.TCP:
        findings.add(path / "protocol", Reason.NOT_ALLOWED, "HTTP rules can only apply to TCP: say protocol: TCP")
    if has_l7 and ports == ALL_PORTS:
        findings.add(path / "port", Reason.NOT_ALLOWED, "HTTP rules can not be used when the port is 0")
    return PortSpec(protocol, ports) if protocol is not None and ports is not None else None


def _read_protocol(raw: Raw, path: Path, findings: Findings) -> Protocol | None:
    if raw.get("protocol") is None:
        return Protocol.ANY
    before = len(findings.errors)
    written = text(raw, "protocol", path, findings)
    if written in _PROTOCOLS:
        return _PROTOCOLS[written]
    if written in _PROTOCOLS_LATER:
        findings.add(path / "protocol", Reason.NOT_SUPPORTED_YET, f"protocol {written} is not enforced")
    elif len(findings.errors) == before:
        known = ", ".join((*_PROTOCOLS, *_PROTOCOLS_LATER))
        findings.add(path / "protocol", Reason.INVALID, f'"{written}" is none of {known}')
    return None


def _read_range(raw: Raw, path: Path, findings: Findings) -> PortRange | None:
    before = len(findings.errors)
    written = text(raw, "port", path, findings)
    last = integer(raw, "endPort", path, findings)
    if len(findings.errors) > before:
        return None
    try:
        first = port_number(written)
    except Refused as refused:
        findings.add(path / "port", refused.reason, refused.message)
        return None
    if not last:  # 0 counts as absent, as in Go
        return PortRange(first, first) if first else ALL_PORTS
    if not first:
        findings.add(path / "endPort", Reason.BAD_PORT, "port 0 is every port already")
    elif not first <= last <= PORT_MAX:
        findings.add(path / "endPort", Reason.BAD_PORT, f"{last} is not within {first}..{PORT_MAX}")
    else:
        return PortRange(first, last)
    return None


def _read_http_rules(written: Any, path: Path, origin: Origin, findings: Findings) -> tuple[HttpRule, ...]:
    origins = (origin,)
    rules: dict[Any, HttpRule] = {}
    for i, item in enumerate(written):
        raw = mapping(item, path[i], findings)
        if raw is None:
            continue
        rule = _read_http_rule(raw, path[i], origins, findings)
        rules[rule.match_key] = rule
    return tuple(rules[key] for key in sorted(rules))


def _read_http_rule(raw: Raw, path: Path, origins: tuple[Origin, ...], findings: Findings) -> HttpRule:
    if not raw.keys() <= _HTTP_KNOWN:
        _HTTP.check(raw, path, findings)
    pattern: Mapping[str, str] = {
        name: raw[name] if type(raw.get(name)) is str else text(raw, name, path, findings)
        for name in ("method", "path", "host")
    }
    for name, value in pattern.items():
        if value and (fault := regex_fault(value)):
            findings.add(path / name, Reason.BAD_REGEX, fault)
    headers = _read_headers(raw, path, findings) if raw.get("headers") else ()
    return HttpRule(pattern["method"], pattern["path"], pattern["host"], headers, origins)


def _read_headers(raw: Raw, path: Path, findings: Findings) -> tuple[HeaderMatch, ...]:
    found: set[HeaderMatch] = set()
    for i, item in enumerate(items(raw, "headers", path, findings)):
        here = (path / "headers")[i]
        if not isinstance(item, str):
            findings.add(here, Reason.WRONG_TYPE, 'must be a string "Name value"')
            continue
        try:
            found.add(header_match(item))
        except Refused as refused:
            findings.add(here, refused.reason, refused.message)
    return tuple(sorted(found, key=lambda header: (header.name, header.value is not None, header.value or "")))
