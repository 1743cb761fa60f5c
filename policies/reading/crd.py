"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (cilium.io/v2): raw object -> typed rules, strictly. Pure.

Every field of the schema is known (facts 1.2): read, refused as Cilium refuses it, or checked and refused because it is
not enforced here; a field that is not in the schema is refused too. Reads raw dicts, because the difference between
absent, [] and [{}] is policy (facts 2.3). Peers, ports and L7 rules are read in crd_peers, crd_ports, crd_http, crd_l7.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final

from policies.errors import Reason
from policies.reading.crd_peers import PEER_FIELDS, read_peers
from policies.reading.crd_ports import Place, read_to_ports
from policies.reading.crd_scope import Scope
from policies.reading.crd_selectors import Home, is_label_of_init, read_subject
from policies.reading.fields import ROOT, Findings, Path, Raw, Schema, flag, items, mapping, strings, submap, text
from policies.reading.sanitize import object_name_fault
from policies.rules import Action, Clause, Policy, Rule
from policies.selectors import Selector
from policies.types import Direction

KIND: Final = "CiliumNetworkPolicy"
CLUSTERWIDE_KIND: Final = "CiliumClusterwideNetworkPolicy"
LOG_MAX: Final = 32  # characters of log.value (the schema's limit)

# The schema, field by field (facts 1.2).
_OBJECT: Final = Schema.of("apiVersion", "kind", "metadata", "spec", "specs", "status")
METADATA: Final = Schema.of(
    *("name", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation", "creationTimestamp"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "generateName", "managedFields"),
    *("ownerReferences", "selfLink"),
)
# The four lists of a spec, and where each stands.
_LISTS: Final = {
    "ingress": Place(Direction.INGRESS, Action.ALLOW),
    "ingressDeny": Place(Direction.INGRESS, Action.DENY),
    "egress": Place(Direction.EGRESS, Action.ALLOW),
    "egressDeny": Place(Direction.EGRESS, Action.DENY),
}
_SELECTORS: Final = ("endpointSelector", "nodeSelector")
_SPEC: Final = Schema.of(*_SELECTORS, *_LISTS, "enableDefaultDeny", "labels", "description", "log")
_DEFAULT_DENY: Final = Schema.of(*Direction)
_LOG: Final = Schema.of("value")
_LABEL: Final = Schema.of("key", "value", "source")
_AUTHENTICATION: Final = Schema.of("mode")
_MODES: Final = ("disabled", "required", "test-always-fail")
_HOST_RULES: Final[dict[str, tuple[str, ...]]] = {"ingress": (), "egress": ("dns",)}
_REQUIRES: Final = {Direction.INGRESS: "fromRequires", Direction.EGRESS: "toRequires"}
_DROPPED: Final = (Reason.DROPPED_FIELD, "Cilium drops it without a word: a deny rule cannot have it")


def _clause_schema(place: Place) -> Schema:
    allow_only = {"authentication", *(["toFQDNs"] if place.direction is Direction.EGRESS else [])}
    common = PEER_FIELDS[place.direction] | {"toPorts", "icmps", _REQUIRES[place.direction]}
    if place.action is Action.ALLOW:
        return Schema(common | allow_only)
    return Schema(common - allow_only, unsupported=dict.fromkeys(allow_only, _DROPPED))


_CLAUSES: Final = {place: _clause_schema(place) for place in _LISTS.values()}


def read_policy(raw: Raw, findings: Findings) -> Policy | None:
    """The typed policy; None, or one of no use, after errors."""
    _OBJECT.check(raw, ROOT, findings)
    read_metadata(submap(raw, "metadata", ROOT, findings), findings)
    specs = [(ROOT / "spec", raw["spec"])] if raw.get("spec") is not None else []
    written = items(raw, "specs", ROOT, findings)
    specs += [((ROOT / "specs")[i], item) for i, item in enumerate(written)]
    if not specs:
        refuse = findings.add if raw.get("specs") is None else findings.ours
        refuse(ROOT / "spec", Reason.MISSING, "a policy has spec or specs")
    if findings.kind == KIND and not findings.namespace:
        words = 'namespace "" makes it clusterwide, as in Cilium: leave the field out for "default"'
        findings.warn(ROOT / "metadata" / "namespace", Reason.REWRITTEN, words)
    scope = Scope(findings, Home(findings.namespace))
    if not scope.allows("specs", len(specs), ROOT / "specs"):
        return None
    rules = [_read_spec(spec, path, scope) for path, spec in specs]
    return Policy(findings.kind, findings.namespace, findings.name, tuple(rule for rule in rules if rule is not None))


def read_metadata(raw: Raw, findings: Findings) -> None:
    """Strictly: a misspelt field of metadata would put a policy into another namespace."""
    path = ROOT / "metadata"
    METADATA.check(raw, path, findings)
    name = text(raw, "name", path, findings)
    namespace = text(raw, "namespace", path, findings)
    if not name:
        findings.add(path / "name", Reason.MISSING, "every object has a name")
    for field, value in (("name", name), ("namespace", namespace)):
        if value and (fault := object_name_fault(value)):
            findings.add(path / field, Reason.INVALID, fault)
    for field in ("labels", "annotations"):
        if raw.get(field) is not None:
            strings(submap(raw, field, path, findings), path / field, findings)
    if findings.kind == CLUSTERWIDE_KIND and namespace:
        findings.ours(path / "namespace", Reason.NOT_ALLOWED, f"a {CLUSTERWIDE_KIND} is in no namespace")


def fallback(raw: Any, findings: Findings) -> Policy | None:
    """What must hold for a policy that was refused and was never good: whom it selects is denied in its directions.

    None if its name or every one of its selectors is unreadable too: then nobody is known to be meant. `findings` says
    whose the object is; nothing is added to it.
    """
    specs: list[Any] = [raw.get("spec")]
    if isinstance(raw.get("specs"), list):
        specs += raw["specs"]
    rules = []
    for spec in specs:
        aside = Findings()
        if isinstance(spec, dict) and spec.get("endpointSelector") is not None:
            subject = read_subject(spec["endpointSelector"], ROOT, findings.namespace, aside)
            if not aside.errors and (directions := _mentioned(spec)):
                rules.append(Rule(subject, enforces=directions, invalid=True))
    if not findings.name or not rules:
        return None
    return Policy(findings.kind, findings.namespace, findings.name, tuple(rules), valid=False)


def _mentioned(spec: Raw) -> tuple[Direction, ...]:
    """Directions that a refused spec is about; both, if it names none and has a field that may be a misspelt one.

    A direction for which it turns default deny off closes nothing, unless it has denials there.
    """
    flags = spec.get("enableDefaultDeny")
    flags = flags if isinstance(flags, dict) else {}
    found = []
    for direction in Direction:
        has_allows, has_denials = (spec.get(f"{direction}{kind}") not in (None, []) for kind in ("", "Deny"))
        if has_denials or flags.get(direction) is True or (has_allows and flags.get(direction) is not False):
            found.append(direction)
    if not found and any(name not in _SPEC.known for name in spec):
        return tuple(Direction)
    return tuple(found)


def _read_spec(raw: Any, path: Path, scope: Scope) -> Rule | None:
    findings = scope.findings
    spec = mapping(raw, path, findings)
    if spec is None:
        return None
    _SPEC.check(spec, path, findings)
    text(spec, "description", path, findings)
    if spec.get("labels") is not None:
        _check_labels(items(spec, "labels", path, findings), path / "labels", findings)
    subject = _read_subject(spec, path, scope)
    if all(spec.get(name) in (None, []) for name in _LISTS):
        words = f"a rule has at least one entry in {', '.join(_LISTS)}"
        findings.add(path, Reason.EMPTY, words)
    clauses = {name: _read_clauses(spec, name, path, scope) if spec.get(name) is not None else () for name in _LISTS}
    return Rule(
        subject,
        clauses["ingress"] + clauses["ingressDeny"],
        clauses["egress"] + clauses["egressDeny"],
        _read_default_deny(spec, path, findings),
        log=_read_log(spec, path, findings) if spec.get("log") is not None else "",
    )


def _read_subject(spec: Raw, path: Path, scope: Scope) -> Selector:
    """Exactly one selector; nodeSelector is the host firewall's."""
    findings = scope.findings
    selector, nodes = (spec.get(name) for name in _SELECTORS)
    where = path / "endpointSelector"
    if nodes is not None:
        if findings.namespace:
            words = f"nodeSelector is for {CLUSTERWIDE_KIND} only"
            findings.add(path / "nodeSelector", Reason.NOT_ALLOWED, words)
        elif selector is not None:
            findings.add(path / "nodeSelector", Reason.CONFLICT, "not together with endpointSelector")
        else:
            _check_host_policy(spec, path, findings)
            findings.ours(path / "nodeSelector", Reason.NOT_SUPPORTED, "there is no host firewall here")
        read_subject(nodes, path / "nodeSelector", "", findings)
    elif selector is None:
        scope_words = "every pod of the namespace" if findings.namespace else "every pod of the cluster"
        findings.add(where, Reason.MISSING, f"say which pods: {{}} is {scope_words}")
    scope.home = Home(findings.namespace, is_label_of_init(selector))
    return Selector() if selector is None else read_subject(selector, where, findings.namespace, findings)


def _check_host_policy(spec: Raw, path: Path, findings: Findings) -> None:
    """No L7 rules on host ingress, only DNS on host egress (facts 1.3)."""
    for name, allowed in _HOST_RULES.items():
        for i, clause in enumerate(spec[name] if isinstance(spec.get(name), list) else []):
            entries = clause.get("toPorts") if isinstance(clause, dict) else None
            for j, entry in enumerate(entries if isinstance(entries, list) else []):
                rules = entry.get("rules") if isinstance(entry, dict) else None
                kinds = [k for k in ("http", "kafka", "dns", "l7") if isinstance(rules, dict) and rules.get(k)]
                for kind in (k for k in kinds if k not in allowed):
                    where = ((path / name)[i] / "toPorts")[j] / "rules" / kind
                    findings.add(where, Reason.NOT_ALLOWED, f"L7 rules are not supported on host {name}")


def _read_default_deny(spec: Raw, path: Path, findings: Findings) -> tuple[Direction, ...]:
    """Directions that the rule turns default deny on for: those with entries, unless it says otherwise (3.2)."""
    said: dict[Direction, bool | None] = {}
    if spec.get("enableDefaultDeny") is not None:
        where = path / "enableDefaultDeny"
        flags = submap(spec, "enableDefaultDeny", path, findings)
        _DEFAULT_DENY.check(flags, where, findings)
        said = {direction: flag(flags, direction, where, findings) for direction in Direction}
    has_entries = {place.direction for name, place in _LISTS.items() if spec.get(name)}
    return tuple(d for d in Direction if said.get(d) or (said.get(d) is None and d in has_entries))


def _read_log(spec: Raw, path: Path, findings: Findings) -> str:
    where = path / "log"
    raw = submap(spec, "log", path, findings)
    _LOG.check(raw, where, findings)
    value = text(raw, "value", where, findings)
    if len(value) > LOG_MAX or any(unicodedata.category(char).startswith("C") for char in value):
        findings.add(where / "value", Reason.INVALID, f"at most {LOG_MAX} printable characters")
        return ""
    return value


def _check_labels(labels: Any, path: Path, findings: Findings) -> None:
    """Labels of the rule take no part in enforcement: `source:key=value`, or {key, value, source}."""
    for i, label in enumerate(labels):
        here = path[i]
        if isinstance(label, str):
            if not label:
                findings.add(here, Reason.INVALID, "an empty string is no label")
            continue
        raw = mapping(label, here, findings)
        if raw is None:
            continue
        _LABEL.check(raw, here, findings)
        words = [text(raw, field, here, findings) for field in ("key", "value", "source")]
        if not words[0]:
            findings.add(here / "key", Reason.MISSING, "a label has a key")


def _read_clauses(spec: Raw, name: str, path: Path, scope: Scope) -> tuple[Clause, ...]:
    written = items(spec, name, path, scope.findings)
    where = path / name
    if not scope.allows("entries of ingress and egress", len(written), where):
        return ()
    found = []
    for i, item in enumerate(written):
        raw = mapping(item, where[i], scope.findings)
        if raw is not None:
            found.append(_read_clause(raw, where[i], _LISTS[name], scope))
    return tuple(found)


def _read_clause(raw: Raw, path: Path, place: Place, scope: Scope) -> Clause:
    findings = scope.findings
    _CLAUSES[place].check(raw, path, findings)
    requires = _REQUIRES[place.direction]
    if raw.get(requires) is not None and items(raw, requires, path, findings):
        findings.add(path / requires, Reason.NOT_ALLOWED, "removed in Cilium 1.19: use a second policy")
    if place.action is Action.ALLOW:
        _check_authentication(raw, path, findings)
    peers = read_peers(raw, path, place.direction, scope)
    return Clause(scope.origin(path), peers, read_to_ports(raw, path, place, scope), place.action)


def _check_authentication(raw: Raw, path: Path, findings: Findings) -> None:
    """Mutual authentication is not enforced here; "disabled" asks for none."""
    if raw.get("authentication") is None:
        return
    where = path / "authentication"
    authentication = submap(raw, "authentication", path, findings)
    _AUTHENTICATION.check(authentication, where, findings)
    mode = text(authentication, "mode", where, findings)
    if mode not in _MODES:
        findings.add(where / "mode", Reason.INVALID, f'"{mode}" is none of {", ".join(_MODES)}')
    elif mode != "disabled":
        findings.ours(where / "mode", Reason.NOT_SUPPORTED, "authentication of peers is not enforced here")
