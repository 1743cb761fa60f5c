"""Selectors of Cilium's policies: raw -> Selector, keys made canonical (facts 2.1), namespaces put in (2.2). Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from policies.errors import Reason
from policies.labels import ANY, K8S, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX, RESERVED
from policies.reading.fields import ROOT, Findings, Path, Raw, Schema, items, mapping, strings, submap, text
from policies.reading.sanitize import label_key_fault, label_value_fault
from policies.selectors import Operator, Requirement, Selector

NAMESPACE_LABEL: Final = f"{K8S}:{NAMESPACE_KEY}"
REMOTE_NODE: Final = f"{RESERVED}:remote-node"
INIT: Final = f"{RESERVED}:init"
CIDR_GROUP: Final = "cidrgroup"
REQUIREMENTS_MAX: Final = 256  # per selector: more labels than any pod has
VALUES_MAX: Final = 1000  # per expression

_SELECTOR: Final = Schema.of("matchLabels", "matchExpressions")
_EXPRESSION: Final = Schema.of("key", "operator", "values")
_OPERATORS: Final = {operator.value: operator for operator in Operator}
_WITH_VALUES: Final = frozenset({Operator.IN, Operator.NOT_IN})
_NAMESPACE_KEYS: Final = frozenset({NAMESPACE_LABEL, f"{ANY}:{NAMESPACE_KEY}"})
_NAMESPACE_LABEL_KEYS: Final = (f"{K8S}:{NAMESPACE_LABELS_PREFIX}", f"{ANY}:{NAMESPACE_LABELS_PREFIX}")
# Labels of these sources belong to addresses and nodes, which have fields of their own.
_FIELD_FOR: Final = {
    "cidr": "fromCIDR or toCIDR",
    "cidrgroup": "cidrGroupSelector",
    "fqdn": "toFQDNs",
    "node": "fromNodes or toNodes",
}


def split_key(written: str) -> tuple[str, str]:
    """Source and name of a key (facts 2.1), with Cilium's oddities: `$host` and `reserved.host` are reserved:host, an
    empty source is any, and what follows "=" is cut off."""
    if written.startswith("$"):
        source, name = RESERVED, written[1:]
    elif ":" in written:
        source, _, name = written.partition(":")
    elif written.startswith(f"{RESERVED}."):
        source, name = RESERVED, written.removeprefix(f"{RESERVED}.")
    else:
        source, name = ANY, written
    return source or ANY, name.partition("=")[0]


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How the keys of one kind of selector are read. `sources`: those that are allowed though no endpoint has them."""

    split: Callable[[str], tuple[str, str]] = split_key
    is_plain: bool = False
    sources: frozenset[str] = frozenset()

    def read(self, written: str, path: Path, findings: Findings) -> str:
        """The canonical key. Cilium holds SOURCE.KEY against the rules for label keys: its length counts the source."""
        source, name = self.split(written)
        if fault := label_key_fault(written if self.is_plain else f"{source}.{name}"):
            findings.add(path, Reason.BAD_SELECTOR, fault)
        elif "=" in written:
            findings.ours(path, Reason.BAD_SELECTOR, f'"{written}": Cilium cuts off what follows the "="')
        elif source in _FIELD_FOR and source not in self.sources:
            words = f"labels of source {source} are not given to endpoints: use {_FIELD_FOR[source]}"
            findings.ours(path, Reason.NOT_SUPPORTED, words)
        return f"{source}:{name}"


_ENDPOINTS: Final = _Dialect()
_NODES: Final = _Dialect(sources=frozenset({"node"}))
_CIDR_GROUPS: Final = _Dialect(split=lambda key: (CIDR_GROUP, key), sources=frozenset({CIDR_GROUP}))


@dataclass(frozen=True, slots=True)
class Home:
    """Where a policy's selectors look: its namespace ("" for clusterwide ones), and whether its subject names
    reserved:init, whose endpoints have no labels yet."""

    namespace: str
    of_init: bool = False


def read_subject(raw: Any, path: Path, namespace: str, findings: Findings) -> Selector:
    """A policy speaks for its own namespace only: another one in matchLabels is overwritten, as in Cilium (2.2)."""
    found = _requirements(raw, path, findings, _ENDPOINTS)
    if not namespace:
        return Selector.of(requirement for requirement, _ in found)
    kept = []
    for requirement, is_label in found:
        if is_label and requirement.key == NAMESPACE_LABEL:
            if requirement.values != (namespace,):
                words = f"a policy selects in its own namespace: {namespace} is put in place of {requirement.values[0]}"
                findings.warn(path / "matchLabels", Reason.REWRITTEN, words)
        else:
            kept.append(requirement)
    return Selector.of([*kept, _in_namespace(namespace)])


def read_peer(raw: Any, path: Path, home: Home, findings: Findings) -> Selector:
    """A peer is looked for in the policy's namespace, unless it says where, or means something that has none (2.2)."""
    found = [requirement for requirement, _ in _requirements(raw, path, findings, _ENDPOINTS)]
    keys = {requirement.key for requirement in found}
    if not any(key.startswith(f"{RESERVED}:") for key in keys) and not keys & _NAMESPACE_KEYS:
        if home.namespace and not any(key.startswith(_NAMESPACE_LABEL_KEYS) for key in keys):
            found.append(_in_namespace(home.namespace))
        elif not home.namespace and not home.of_init:
            found.append(Requirement(NAMESPACE_LABEL, Operator.EXISTS))
    return Selector.of(found)


def read_node_peer(raw: Any, path: Path, findings: Findings) -> Selector:
    """fromNodes, toNodes: other nodes of the cluster, by their labels; no namespace (2.2)."""
    found = _requirements(raw, path, findings, _NODES)
    return Selector.of([*(requirement for requirement, _ in found), Requirement(REMOTE_NODE, Operator.EXISTS)])


def read_cidr_group_selector(raw: Any, path: Path, findings: Findings) -> Selector:
    """cidrGroupSelector: labels of CiliumCIDRGroups."""
    return Selector.of(requirement for requirement, _ in _requirements(raw, path, findings, _CIDR_GROUPS))


def read_plain_selector(raw: Any, path: Path, findings: Findings, split: Callable[[str], tuple[str, str]]) -> Selector:
    """A selector as Kubernetes writes it, whose keys have no source: `split` gives them source and name."""
    found = _requirements(raw, path, findings, _Dialect(split=split, is_plain=True))
    return Selector.of(requirement for requirement, _ in found)


def is_label_of_init(raw: Any) -> bool:
    """Whether a subject names reserved:init, by label or expression."""
    if not isinstance(raw, dict) or "init" not in str(raw):
        return False
    return any(requirement.key == INIT for requirement, _ in _requirements(raw, ROOT, Findings(), _ENDPOINTS))


def _in_namespace(namespace: str) -> Requirement:
    return Requirement(NAMESPACE_LABEL, Operator.IN, (namespace,))


def _requirements(raw: Any, path: Path, findings: Findings, dialect: _Dialect) -> list[tuple[Requirement, bool]]:
    """All requirements of a selector, and whether each comes from matchLabels."""
    selector = mapping(raw, path, findings)
    if not selector:
        return []
    _SELECTOR.check(selector, path, findings)
    where = path / "matchLabels"
    labels = strings(submap(selector, "matchLabels", path, findings), where, findings)
    expressions = items(selector, "matchExpressions", path, findings)
    if len(labels) + len(expressions) > REQUIREMENTS_MAX:
        findings.ours(path, Reason.TOO_MANY, f"a selector has at most {REQUIREMENTS_MAX} requirements")
        return []
    found: list[tuple[Requirement, bool]] = []
    for key, value in labels.items():
        here = where[key]
        if fault := label_value_fault(value):
            findings.add(here, Reason.BAD_SELECTOR, fault)
        found.append((Requirement(dialect.read(key, here, findings), Operator.IN, (value,)), True))
    for i, item in enumerate(expressions):
        here = (path / "matchExpressions")[i]
        expression = mapping(item, here, findings)
        requirement = _read_expression(expression, here, findings, dialect) if expression is not None else None
        if requirement is not None:
            found.append((requirement, False))
    return found


def _read_expression(raw: Raw, path: Path, findings: Findings, dialect: _Dialect) -> Requirement | None:
    _EXPRESSION.check(raw, path, findings)
    written = text(raw, "operator", path, findings)
    key = dialect.read(text(raw, "key", path, findings), path / "key", findings)
    values = _read_values(raw, path, findings)
    operator = _OPERATORS.get(written)
    if operator is None:
        words = f'"{written}" is none of {", ".join(_OPERATORS)}' if written else "say how to compare"
        findings.add(path / "operator", Reason.BAD_SELECTOR, words)
        return None
    if (operator in _WITH_VALUES) != bool(raw.get("values")):
        words = "needs at least one value" if operator in _WITH_VALUES else "takes no values"
        findings.add(path / "values", Reason.BAD_SELECTOR, f"{operator} {words}")
    return Requirement(key, operator, tuple(sorted(values)))


def _read_values(raw: Raw, path: Path, findings: Findings) -> set[str]:
    written = items(raw, "values", path, findings)
    if len(written) > VALUES_MAX:
        findings.ours(path / "values", Reason.TOO_MANY, f"{len(written)} values, the most is {VALUES_MAX}")
        return set()
    values = set()
    for i, value in enumerate(written):
        here = (path / "values")[i]
        if not isinstance(value, str):
            findings.add(here, Reason.WRONG_TYPE, "must be a string: quote it")
        elif fault := label_value_fault(value):
            findings.add(here, Reason.BAD_SELECTOR, fault)
        else:
            values.add(value)
    return values
