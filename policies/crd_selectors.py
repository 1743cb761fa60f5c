"""Selectors of a policy: raw endpointSelector or peers -> Selector, with the namespace put in. Pure."""

from __future__ import annotations

from typing import Any, Final

from policies.errors import Reason
from policies.fields import Findings, Path, Raw, Schema, items, mapping, strings, submap, text
from policies.labels import K8S, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX, RESERVED, canonical_key
from policies.sanitize import label_key_fault, label_value_fault
from policies.selectors import Operator, Requirement, Selector

NAMESPACE_LABEL: Final = f"{K8S}:{NAMESPACE_KEY}"
_SELECTOR: Final = Schema(known=("matchLabels", "matchExpressions"))
_EXPRESSION: Final = Schema(known=("key", "operator", "values"))
_OPERATORS: Final = {operator.value: operator for operator in Operator}
# Labels of these sources belong to addresses and nodes: selecting them means something only once they are given.
_SOURCES_LATER: Final = frozenset({"cidr", "cidrgroup", "fqdn", "node"})


def read_subject(raw: Any, path: Path, namespace: str, findings: Findings) -> Selector:
    """A policy speaks for its own namespace only: another one in matchLabels is overwritten, as in Cilium (2.2)."""
    found = _requirements(raw, path, findings)
    labels = {requirement for requirement, is_label in found if not (is_label and requirement.key == NAMESPACE_LABEL)}
    return Selector.of([*labels, _in_namespace(namespace)])


def read_peer(raw: Any, path: Path, namespace: str, findings: Findings) -> Selector:
    """A peer is looked for in the policy's namespace, unless it says where, or means something that has none (2.2)."""
    found = [requirement for requirement, _ in _requirements(raw, path, findings)]
    if not any(_says_where(requirement.key) for requirement in found):
        found.append(_in_namespace(namespace))
    return Selector.of(found)


def _in_namespace(namespace: str) -> Requirement:
    return Requirement(NAMESPACE_LABEL, Operator.IN, (namespace,))


def _says_where(canonical: str) -> bool:
    source, _, key = canonical.partition(":")
    return source == RESERVED or key == NAMESPACE_KEY or key.startswith(NAMESPACE_LABELS_PREFIX)


def _requirements(raw: Any, path: Path, findings: Findings) -> list[tuple[Requirement, bool]]:
    """All requirements of a selector, and whether each comes from matchLabels."""
    selector = mapping(raw, path, findings)
    if selector is None:
        return []
    _SELECTOR.check(selector, path, findings)
    where = path / "matchLabels"
    found: list[tuple[Requirement, bool]] = []
    for key, value in strings(submap(selector, "matchLabels", path, findings), where, findings).items():
        _check_key(key, where[key], findings)
        if fault := label_value_fault(value):
            findings.add(where[key], Reason.BAD_SELECTOR, fault)
        found.append((Requirement(canonical_key(key), Operator.IN, (value,)), True))
    where = path / "matchExpressions"
    for i, item in enumerate(items(selector, "matchExpressions", path, findings)):
        expression = mapping(item, where[i], findings)
        requirement = _read_expression(expression, where[i], findings) if expression is not None else None
        if requirement is not None:
            found.append((requirement, False))
    return found


def _read_expression(raw: Raw, path: Path, findings: Findings) -> Requirement | None:
    _EXPRESSION.check(raw, path, findings)
    key, written = text(raw, "key", path, findings), text(raw, "operator", path, findings)
    values: list[str] = []
    for i, value in enumerate(items(raw, "values", path, findings)):
        here = (path / "values")[i]
        if not isinstance(value, str):
            findings.add(here, Reason.WRONG_TYPE, "must be a string: quote it")
        elif fault := label_value_fault(value):
            findings.add(here, Reason.BAD_SELECTOR, fault)
        else:
            values.append(value)
    _check_key(key, path / "key", findings)
    if written not in _OPERATORS:
        words = f'"{written}" is none of {", ".join(_OPERATORS)}' if written else "say how to compare"
        findings.add(path / "operator", Reason.BAD_SELECTOR, words)
        return None
    operator = _OPERATORS[written]
    wants_values = operator in (Operator.IN, Operator.NOT_IN)
    if wants_values != bool(raw.get("values")):
        words = "needs at least one value" if wants_values else "takes no values"
        findings.add(path / "values", Reason.BAD_SELECTOR, f"{operator} {words}")
    return Requirement(canonical_key(key), operator, tuple(sorted(set(values))))


def _check_key(key: str, path: Path, findings: Findings) -> None:
    source, colon, name = key.partition(":")
    if colon and source in _SOURCES_LATER:
        findings.add(path, Reason.NOT_SUPPORTED_YET, f"labels of source {source} are not known here")
    elif colon and (not source or label_key_fault(source)):
        findings.add(path, Reason.BAD_SELECTOR, f'"{source}" is no label source')
    elif fault := label_key_fault(name if colon else key):
        findings.add(path, Reason.BAD_SELECTOR, fault)
