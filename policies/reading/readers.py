"""The door for raw objects of every kind: who reads it, what was found, what stands in for a refused one. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from policies.errors import PolicyError, PolicyErrors, Reason, in_order
from policies.objects import Object, ObjectKey, Pod
from policies.reading import core_objects, crd, identity_objects, network_policy, service_objects
from policies.reading.cidr_group import read_cidr_group
from policies.reading.fields import ROOT, Findings, Raw, mapping
from policies.reading.sanitize import object_name_fault
from policies.rules import Policy

FINDINGS_MAX: Final = 100  # errors per object, and warnings
DEFAULT_NAMESPACE: Final = "default"

_Reader = Callable[[Raw, Findings], Object | None]
_CILIUM: Final = "cilium.io/v2"
_READERS: Final[dict[tuple[Any, Any], _Reader]] = {
    ("v1", "Namespace"): core_objects.read_namespace,
    ("v1", "Node"): core_objects.read_node,
    ("v1", "Pod"): core_objects.read_pod,
    ("v1", "Secret"): core_objects.read_secret,
    ("v1", "Service"): service_objects.read_service,
    ("discovery.k8s.io/v1", "EndpointSlice"): service_objects.read_slice,
    (_CILIUM, crd.KIND): crd.read_policy,
    (_CILIUM, crd.CLUSTERWIDE_KIND): crd.read_policy,
    (_CILIUM, "CiliumCIDRGroup"): read_cidr_group,
    (_CILIUM, "CiliumEndpoint"): identity_objects.read_endpoint,
    (_CILIUM, "CiliumIdentity"): identity_objects.read_identity,
    ("cilium.io/v2alpha1", "CiliumCIDRGroup"): read_cidr_group,
    ("networking.k8s.io/v1", network_policy.KIND): network_policy.read_network_policy,
}
_CLUSTER_SCOPED: Final = frozenset({"Namespace", "Node", crd.CLUSTERWIDE_KIND, "CiliumCIDRGroup", "CiliumIdentity"})
_FALLBACKS: Final[dict[str, Callable[[Raw, Findings], Policy | Pod | None]]] = {
    "Pod": core_objects.pod_stand_in,
    "CiliumEndpoint": identity_objects.endpoint_stand_in,
    crd.KIND: crd.fallback,
    crd.CLUSTERWIDE_KIND: crd.fallback,
    network_policy.KIND: network_policy.fallback,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What was made of one raw object: a good one, or errors and perhaps a stand-in. Warnings go with either."""

    good: Object | None = None
    errors: tuple[PolicyError, ...] = ()
    warnings: tuple[PolicyError, ...] = ()
    fallback: Policy | Pod | None = None


def identify(raw: Any) -> ObjectKey | None:
    """The key of a raw object of a kind that is read here, however wrong the rest of it is."""
    if not isinstance(raw, dict):
        return None
    version, kind = raw.get("apiVersion"), raw.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str) or (version, kind) not in _READERS:
        return None
    metadata = raw.get("metadata")
    if not isinstance(metadata, dict):
        return None
    name = metadata.get("name")
    if not isinstance(name, str) or object_name_fault(name):
        return None
    namespace = _namespace(kind, metadata)
    return ObjectKey(kind, namespace, name) if isinstance(namespace, str) else None


def _namespace(kind: Any, metadata: Raw) -> Any:
    """The namespace that is meant, of whatever type. A CiliumNetworkPolicy in "" is clusterwide (facts 1.1)."""
    if kind in _CLUSTER_SCOPED:
        return ""
    written = metadata.get("namespace")
    return written if written == "" and kind == crd.KIND else written or DEFAULT_NAMESPACE


def read_object(raw: Any) -> Reading:
    """The object, and everything that is to be said of it."""
    findings = _findings_for(raw)
    reader = _reader(raw, findings)
    obj = reader(raw, findings) if reader is not None else None
    warnings = _most(in_order(findings.warnings))
    if not findings.errors and obj is not None:
        return Reading(obj, (), warnings)
    stand_in = _FALLBACKS.get(findings.kind) if reader is not None else None
    fallback = stand_in(raw, findings) if stand_in is not None else None
    return Reading(None, _most(in_order(findings.errors)), warnings, fallback)


def parse_object(raw: Any, source: str = "", line: int = 0) -> Object:
    """The typed object. Raises PolicyErrors with everything that is wrong with it, said of this place."""
    reading = read_object(raw)
    if reading.good is None:
        raise PolicyErrors((error.at(source, line) for error in reading.errors), reading.fallback)
    return reading.good


def _most(findings: tuple[PolicyError, ...]) -> tuple[PolicyError, ...]:
    """A generated object may be wrong in ten thousand places: the first hundred say enough."""
    if len(findings) <= FINDINGS_MAX:
        return findings
    rest = findings[FINDINGS_MAX:]
    by_cilium = any(finding.by_cilium for finding in rest)
    more = f"{len(rest)} more are not listed"
    return (
        *findings[:FINDINGS_MAX],
        replace(findings[0], path="", reason=Reason.TOO_MANY, message=more, by_cilium=by_cilium),
    )


def _findings_for(raw: Any) -> Findings:
    if not isinstance(raw, dict):
        return Findings()
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    kind, name = raw.get("kind"), metadata.get("name")
    kind = kind if isinstance(kind, str) else ""
    namespace = _namespace(kind, metadata)
    return Findings(
        kind,
        namespace if isinstance(namespace, str) else DEFAULT_NAMESPACE,
        name if isinstance(name, str) else "",
    )


def _reader(raw: Any, findings: Findings) -> _Reader | None:
    if mapping(raw, ROOT, findings) is None:
        return None
    version, kind = raw.get("apiVersion"), raw.get("kind")
    for name, value in (("apiVersion", version), ("kind", kind)):
        if not isinstance(value, str) or not value:
            findings.add(ROOT / name, Reason.MISSING, "every object has apiVersion and kind")
            return None
    if (version, kind) in _READERS:
        return _READERS[version, kind]
    versions = sorted(v for v, k in _READERS if k == kind)
    if versions:
        findings.add(ROOT / "apiVersion", Reason.UNKNOWN_KIND, f"use apiVersion {versions[0]}")
    else:
        words = f"{kind} ({version}) is not read here: keep it elsewhere"
        findings.ours(ROOT / "kind", Reason.UNKNOWN_KIND, words)
    return None
