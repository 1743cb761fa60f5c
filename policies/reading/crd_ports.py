"""toPorts and icmps of Cilium's policies: raw entries -> ToPorts (facts 1.2 - 1.4). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from policies.errors import Reason
from policies.ir import L7Rule
from policies.reading.crd_dns import read_dns_rules
from policies.reading.crd_http import read_http_rules
from policies.reading.crd_kafka import read_kafka_rules
from policies.reading.crd_l7 import check_generic, check_listener, check_server_names, check_tls
from policies.reading.crd_scope import Scope
from policies.reading.fields import Findings, Path, Raw, Schema, integer, items, mapping, submap, text
from policies.reading.icmp import ICMP_TYPE_MAX, MISSPELT, PROTOCOLS, TYPES
from policies.reading.sanitize import Refused, port_value
from policies.rules import Action, PortSpec, SecretRule, ToPorts
from policies.types import ALL_PORTS, PORT_MAX, Direction, PortRange, Protocol

PORTS_MAX: Final = 40  # per toPorts entry (facts 1.3)
ICMP_FIELDS_MAX: Final = 40  # per icmps entry
_DROPPED: Final = (
    Reason.DROPPED_FIELD,
    "Cilium drops it without a word: a deny rule is about ports only, so this would deny more than it says",
)
_TO_PORTS: Final = Schema.of("ports", "rules", "terminatingTLS", "originatingTLS", "serverNames", "listener")
_TO_PORTS_DENY: Final = Schema(
    known=frozenset({"ports"}), unsupported=dict.fromkeys(_TO_PORTS.known - {"ports"}, _DROPPED)
)
_PORTS_AND_RULES: Final = frozenset({"ports", "rules"})
_RULES: Final = Schema.of("http", "kafka", "dns", "l7proto", "l7")
_HTTP_ONLY: Final = frozenset({"http"})
_RULE_LISTS: Final = ("http", "kafka", "dns", "l7")
_PORT: Final = Schema.of("port", "endPort", "protocol")
_PROTOCOLS: Final = {
    "TCP": Protocol.TCP,
    "UDP": Protocol.UDP,
    "SCTP": Protocol.SCTP,
    "ANY": Protocol.ANY,
    "VRRP": None,
    "IGMP": None,
}
_NOT_TCP: Final = (None, *(name for name in _PROTOCOLS if name != "TCP"))
_ICMP: Final = Schema.of("fields")
_ICMP_FIELD: Final = Schema.of("family", "type")
_INT32: Final = range(-(2**31), 2**31)


class Place(NamedTuple):
    """Which list a clause stands in."""

    direction: Direction
    action: Action


def read_to_ports(raw: Raw, path: Path, place: Place, scope: Scope) -> tuple[ToPorts, ...]:
    """Every entry of toPorts, then every one of icmps; one that says no port allows nothing."""
    findings = scope.findings
    entries, icmps = items(raw, "toPorts", path, findings), items(raw, "icmps", path, findings)
    if not entries and not icmps:
        return ()
    if entries and icmps:
        findings.add(path / "icmps", Reason.CONFLICT, "icmps only without toPorts: write a second entry for the ports")
    found = []
    for i, item in enumerate(entries):
        here = (path / "toPorts")[i]
        entry = mapping(item, here, findings)
        if entry is not None:
            found.append(_read_entry(entry, here, place, scope))
    for i, item in enumerate(icmps):
        here = (path / "icmps")[i]
        entry = mapping(item, here, findings)
        if entry is not None:
            found.append(ToPorts(_read_icmp(entry, here, findings)))
    if not any(entry.ports for entry in found) and not findings.errors:
        findings.warn(path / ("toPorts" if entries else "icmps"), Reason.SELECTS_NOTHING, "no entry has a port")
    return tuple(found)


def _read_entry(raw: Raw, path: Path, place: Place, scope: Scope) -> ToPorts:
    findings = scope.findings
    if place.action is Action.DENY:
        _TO_PORTS_DENY.check(raw, path, findings)
        return ToPorts(_read_ports(raw, path, scope, _L7()))
    _TO_PORTS.check(raw, path, findings)
    rules = submap(raw, "rules", path, findings)
    l7 = _L7.of(rules)
    found, secret_rules = _read_rules(rules, path / "rules", scope) if rules else ((), ())
    _check_l7(raw, l7, path, place, findings)
    return ToPorts(_read_ports(raw, path, scope, l7), found, secret_rules)


class _L7(NamedTuple):
    """Which rules an entry has, as Cilium counts them: lists that are not empty."""

    has_rules: bool = False
    has_dns: bool = False

    @classmethod
    def of(cls, rules: Raw) -> _L7:
        return cls(any(rules.get(name) for name in _RULE_LISTS), bool(rules.get("dns")))


def _read_rules(rules: Raw, path: Path, scope: Scope) -> tuple[tuple[L7Rule, ...], tuple[SecretRule, ...]]:
    """The rules of the one kind that is there, and those of them that need secrets."""
    findings = scope.findings
    _RULES.check(rules, path, findings)
    http = read_http_rules(items(rules, "http", path, findings), path / "http", scope)
    if rules.keys() == _HTTP_ONLY:
        return http
    kinds = [name for name in ("http", "kafka", "dns") if rules.get(name) is not None]
    if rules.get("l7proto"):
        kinds.append("l7proto")
    if len(kinds) > 1:
        words = f"{' and '.join(kinds)} cannot be in one entry: write one for each"
        findings.add(path, Reason.CONFLICT, words)
    kafka = read_kafka_rules(items(rules, "kafka", path, findings), path / "kafka", scope)
    dns = read_dns_rules(items(rules, "dns", path, findings), path / "dns", scope)
    check_generic(rules, path, findings)
    return http.rules or dns or kafka, http.secret_rules


def _check_l7(raw: Raw, l7: _L7, path: Path, place: Place, findings: Findings) -> None:
    """What goes together in one entry of toPorts (facts 1.3)."""
    ingress = place.direction is Direction.INGRESS
    if l7.has_rules and not raw.get("ports"):
        if l7.has_dns:
            findings.add(path / "ports", Reason.MISSING, "port 53 must be specified for DNS rules")
        else:
            findings.ours(path / "ports", Reason.MISSING, "L7 rules need the ports that they are for")
    if l7.has_dns and ingress:
        findings.add(path / "rules" / "dns", Reason.NOT_ALLOWED, "DNS rules are for egress only")
    if raw.keys() <= _PORTS_AND_RULES:
        return
    check_tls(raw, "terminatingTLS", path, findings)
    check_tls(raw, "originatingTLS", path, findings)
    check_server_names(raw, path, findings)
    check_listener(raw, path, findings)
    if raw.get("serverNames") and l7.has_rules and raw.get("terminatingTLS") is None:
        findings.add(path / "serverNames", Reason.CONFLICT, "not with L7 rules, unless TLS is terminated")
    if raw.get("listener") is not None and ingress:
        findings.add(path / "listener", Reason.NOT_ALLOWED, "a listener is for egress only")
    if raw.get("listener") is not None and l7.has_rules:
        findings.add(path / "listener", Reason.CONFLICT, "a listener cannot be combined with L7 rules")


def _read_ports(raw: Raw, path: Path, scope: Scope, l7: _L7) -> tuple[PortSpec, ...]:
    findings = scope.findings
    written = items(raw, "ports", path, findings)
    if len(written) > PORTS_MAX:
        findings.add(path / "ports", Reason.TOO_MANY, f"{len(written)} ports, the most is {PORTS_MAX}")
        return ()
    if not written or not scope.allows("ports", len(written), path):
        return ()
    where = path / "ports"
    specs = (_read_port(item, where[i], findings, l7) for i, item in enumerate(written))
    return tuple(spec for spec in specs if spec is not None)


def _read_port(item: Any, path: Path, findings: Findings, l7: _L7) -> PortSpec | None:
    raw = mapping(item, path, findings)
    if raw is None:
        return None
    _PORT.check(raw, path, findings)
    before = len(findings.errors)
    protocol = _read_protocol(raw, path, findings)
    ports = _read_range(raw, path, findings, l7)
    is_other = raw.get("protocol") in _NOT_TCP
    if l7.has_rules and not l7.has_dns and is_other:
        findings.add(path / "protocol", Reason.NOT_ALLOWED, "L7 rules can only apply to TCP: say protocol: TCP")
    if l7.has_dns and protocol is Protocol.SCTP:
        findings.ours(path / "protocol", Reason.NOT_SUPPORTED, "DNS rules are for UDP and TCP")
    if l7.has_rules and ports == ALL_PORTS:
        findings.add(path / "port", Reason.NOT_ALLOWED, "L7 rules can not be used when a port is 0")
    if len(findings.errors) > before or protocol is None or ports is None:
        return None
    return PortSpec(protocol, ports)


def _read_protocol(raw: Raw, path: Path, findings: Findings) -> Protocol | None:
    """The protocol; None after a finding."""
    written = raw.get("protocol")
    if written is None:
        return Protocol.ANY
    if not isinstance(written, str):
        text(raw, "protocol", path, findings)
    elif written not in _PROTOCOLS:
        findings.add(path / "protocol", Reason.INVALID, f'"{written}" is none of {", ".join(_PROTOCOLS)}')
    elif _PROTOCOLS[written] is None:
        findings.ours(path / "protocol", Reason.NOT_SUPPORTED, f"protocol {written} is not enforced here")
        if raw.get("port") not in (None, "", "0"):
            findings.add(path / "port", Reason.BAD_PORT, f"{written} has no ports: it must be 0")
    else:
        return _PROTOCOLS[written]
    return None


def _read_range(raw: Raw, path: Path, findings: Findings, l7: _L7) -> PortRange | str | None:
    before = len(findings.errors)
    written = text(raw, "port", path, findings)
    last = integer(raw, "endPort", path, findings) or 0  # 0 counts as absent, as in Go
    if len(findings.errors) > before:
        return None
    if not 0 <= last <= PORT_MAX:
        findings.add(path / "endPort", Reason.BAD_PORT, f"{last} is not within 0..{PORT_MAX}")
        return None
    try:
        first = port_value(written)
    except Refused as refused:
        refuse = findings.add if refused.by_cilium else findings.ours
        refuse(path / "port", refused.reason, refused.message)
        return None
    if isinstance(first, str):
        if first.startswith(("0x", "0b", "0o")):
            findings.warn(path / "port", Reason.REWRITTEN, f'"{written}" is the name of a port, not a number')
        if last:
            findings.ours(path / "endPort", Reason.BAD_PORT, f'Cilium ignores it behind a name like "{first}"')
        return first
    if not last:
        return PortRange(first, first) if first else ALL_PORTS
    return _span(first, last, path / "endPort", findings, l7)


def _span(first: int, last: int, path: Path, findings: Findings, l7: _L7) -> PortRange | None:
    if l7.has_dns and last > first:
        findings.add(path, Reason.NOT_ALLOWED, "DNS rules do not support port ranges")
    elif not first:
        findings.ours(path, Reason.BAD_PORT, "port 0 is every port already")
    elif last < first:
        findings.ours(path, Reason.BAD_PORT, f"{last} is less than port {first}: Envoy refuses the whole policy for it")
    else:
        return PortRange(first, last)
    return None


def _read_icmp(raw: Raw, path: Path, findings: Findings) -> tuple[PortSpec, ...]:
    _ICMP.check(raw, path, findings)
    written: Sequence[Any] = items(raw, "fields", path, findings)
    if len(written) > ICMP_FIELDS_MAX:
        findings.add(path / "fields", Reason.TOO_MANY, f"{len(written)} types, the most is {ICMP_FIELDS_MAX}")
        return ()
    found = []
    for i, item in enumerate(written):
        here = (path / "fields")[i]
        field = mapping(item, here, findings)
        if field is not None:
            found.append(_read_icmp_field(field, here, findings))
    return tuple(spec for spec in found if spec is not None)


def _read_icmp_field(raw: Raw, path: Path, findings: Findings) -> PortSpec | None:
    _ICMP_FIELD.check(raw, path, findings)
    family = "IPv4" if raw.get("family") is None else text(raw, "family", path, findings)
    if family not in PROTOCOLS:
        if isinstance(raw.get("family"), str):
            findings.add(path / "family", Reason.BAD_ICMP, f'"{family}" is none of {", ".join(PROTOCOLS)}')
        return None
    number = _icmp_type(raw.get("type"), family, path / "type", findings)
    return None if number is None else PortSpec(PROTOCOLS[family], PortRange(number, number))


def _icmp_type(written: Any, family: str, path: Path, findings: Findings) -> int | None:
    """A number, or a number or a name in a string."""
    if isinstance(written, int) and not isinstance(written, bool):
        if 0 <= written <= ICMP_TYPE_MAX:
            return written
        refuse = findings.ours if written in _INT32 else findings.add
        refuse(path, Reason.BAD_ICMP, f"{written} is not within 0..{ICMP_TYPE_MAX}")
    elif written is None:
        findings.add(path, Reason.MISSING, "say which type: a number or a name")
    elif not isinstance(written, str):
        findings.add(path, Reason.WRONG_TYPE, "must be a number or a name")
    elif written in TYPES[family]:
        if written in MISSPELT:
            findings.theirs(path, Reason.NOT_IN_SCHEMA, f"Cilium's schema misspells {written}: use the number")
        return TYPES[family][written]
    elif written.isascii() and written.isdigit() and str(int(written[:4])) == written and int(written) <= ICMP_TYPE_MAX:
        return int(written)
    else:
        findings.add(path, Reason.BAD_ICMP, f'"{written}" is neither a number within 0..255 nor a type of {family}')
    return None
