"""Kubernetes objects that a node needs to know, as frozen values read from raw ones. Pure.

Core objects are read leniently in fields that are not used here (they have hundreds) and strictly in the types of those
that are; policies are read strictly by policies/crd.py. `parse_object` is the door.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from policies import crd
from policies.errors import PolicyError, PolicyErrors, Reason, in_order
from policies.fields import ROOT, Findings, Path, Raw, flag, integer, items, mapping, strings, submap, text
from policies.rules import Policy
from policies.sanitize import object_name_fault
from policies.types import PORT_MAX, Protocol

ERRORS_MAX: Final = 100  # per object
HASH_LABEL: Final = "pod-template-hash"
SERVICE_LABEL: Final = "kubernetes.io/service-name"
POLICY_KINDS: Final = ("CiliumClusterwideNetworkPolicy", "CiliumNetworkPolicy", "NetworkPolicy")
_CRON_RUN: Final = re.compile(r"(.+)-\d{8,10}")
_PROTOCOLS: Final = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "SCTP": Protocol.SCTP}


class ObjectKey(NamedTuple):
    """What makes an object the same object. `namespace` is "" for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class PodKey(NamedTuple):
    """Namespace and name of a pod (or of anything else that has both)."""

    namespace: str
    name: str


class Workload(NamedTuple):
    """What a pod belongs to, e.g. ("Deployment", "deathstar")."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Namespace", "", self.name)


@dataclass(frozen=True, slots=True)
class Pod:
    """`addresses` are in canonical form, in the order of status.podIPs."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    host_network: bool = False
    node_name: str = ""
    service_account: str = "default"
    workload: Workload | None = None
    phase: str = ""
    ports: Mapping[tuple[str, Protocol], int] = field(default_factory=dict)  # named container ports

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Pod", self.namespace, self.name)

    @property
    def is_over(self) -> bool:
        """A finished pod keeps its address in its status while another pod may already have it."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class ServicePort:
    """`target` is a number, a name, or "" where the service port itself is meant."""

    name: str
    protocol: Protocol
    port: int
    target: int | str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """`addresses`: cluster addresses in canonical form; none for a headless service."""

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)  # none: its slices are written by hand

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Service", self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a slice. `ready`: takes new connections; `serving`: would while terminating."""

    addresses: tuple[str, ...]
    ready: bool = True
    serving: bool = True


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """`ports`: (name, protocol) -> target port, already a number."""

    namespace: str
    name: str
    service: str = ""
    backends: tuple[Backend, ...] = ()
    ports: Mapping[tuple[str, Protocol], int] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("EndpointSlice", self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class CidrGroup:
    """A CiliumCIDRGroup: prefixes by name. `prefixes` are canonical, sorted, each once."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("CiliumCIDRGroup", "", self.name)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster. `addresses` in canonical form, whatever their type but for host names."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Node", "", self.name)


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Values by name, decoded; never written anywhere but into the rules that ask for one."""

    namespace: str
    name: str
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("Secret", self.namespace, self.name)


Object = CidrGroup | Namespace | Node | Pod | Secret | Service | Pod | Service | EndpointSlice | Policy


def key_of(obj: Object) -> ObjectKey:
    """The key of any object."""
    if isinstance(obj, Policy):
        return ObjectKey(obj.kind, obj.namespace, obj.name)
    return obj.key


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
    if kind == "Namespace":
        return ObjectKey(kind, "", name)
    namespace = metadata.get("namespace") or "default"
    return ObjectKey(kind, namespace, name) if isinstance(namespace, str) else None


def parse_object(raw: Any, source: str = "", line: int = 0) -> Object:
    """The typed object. Raises PolicyErrors with everything that is wrong with it, said of this place."""
    findings = _findings_for(raw)
    reader = _reader(raw, findings)
    obj = reader(raw, findings) if reader is not None else None
    if findings.errors or obj is None:
        errors = _most(in_order(error.at(source, line) for error in findings.errors))
        fallback = crd.fallback(raw) if reader is crd.read_policy else None
        raise PolicyErrors(errors, fallback)
    return obj


def _most(errors: tuple[PolicyError, ...]) -> tuple[PolicyError, ...]:
    """A generated object may be wrong in ten thousand places: the first hundred say enough."""
    if len(errors) <= ERRORS_MAX:
        return errors
    more = f"{len(errors) - ERRORS_MAX} more errors are not listed"
    return (*errors[:ERRORS_MAX], replace(errors[0], path="", reason=Reason.TOO_MANY, message=more))


def _findings_for(raw: Any) -> Findings:
    if not isinstance(raw, dict):
        return Findings()
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    words = [value if isinstance(value, str) else "" for value in map(metadata.get, ("namespace", "name"))]
    kind = raw.get("kind")
    namespace = words[0] or ("" if kind == "Namespace" else "default")
    return Findings(kind if isinstance(kind, str) else "", namespace, words[1])


def _reader(raw: Any, findings: Findings) -> Callable[[Raw, Findings], Object | None] | None:
    if mapping(raw, ROOT, findings) is None:
        return None
    version, kind = raw.get("apiVersion"), raw.get("kind")
    for name, value in (("apiVersion", version), ("kind", kind)):
        if not isinstance(value, str) or not value:
            findings.add(ROOT / name, Reason.MISSING, "every object has apiVersion and kind")
            return None
    if (version, kind) in _READERS:
        return _READERS[version, kind]
    if (version, kind) in _KINDS_LATER:
        findings.add(ROOT / "kind", Reason.NOT_SUPPORTED_YET, f"objects of kind {kind} ({version}) are not enforced")
        return None
    versions = sorted(v for v, k in _READERS if k == kind)
    hint = f"use apiVersion {versions[0]}" if versions else f"{kind} ({version}) is not read here: keep it elsewhere"
    findings.add(ROOT / ("apiVersion" if versions else "kind"), Reason.UNKNOWN_KIND, hint)
    return None


def _read_namespace(raw: Raw, findings: Findings) -> Namespace:
    metadata = _metadata(raw, findings)
    return Namespace(findings.name, strings(submap(metadata, "labels", _META, findings), _META / "labels", findings))


def _read_pod(raw: Raw, findings: Findings) -> Pod:
    metadata = _metadata(raw, findings)
    spec = submap(raw, "spec", ROOT, findings)
    status = submap(raw, "status", ROOT, findings)
    labels = strings(submap(metadata, "labels", _META, findings), _META / "labels", findings)
    where = ROOT / "spec"
    account = text(spec, "serviceAccountName", where, findings) or text(spec, "serviceAccount", where, findings)
    return Pod(
        namespace=findings.namespace,
        name=findings.name,
        labels=labels,
        addresses=_pod_addresses(status, findings),
        host_network=bool(flag(spec, "hostNetwork", where, findings)),
        node_name=text(spec, "nodeName", where, findings),
        service_account=account or "default",
        workload=_workload(metadata, labels, findings),
        phase=text(status, "phase", ROOT / "status", findings),
    )


def _pod_addresses(status: Raw, findings: Findings) -> tuple[str, ...]:
    where = ROOT / "status"
    found: list[str] = []
    for i, item in enumerate(items(status, "podIPs", where, findings)):
        entry = mapping(item, (where / "podIPs")[i], findings)
        if entry is not None:
            found += _address(entry, "ip", (where / "podIPs")[i], findings)
    return tuple(dict.fromkeys([*_address(status, "podIP", where, findings), *found]))


def _address(raw: Raw, name: str, path: Path, findings: Findings) -> list[str]:
    """The address field of that name in canonical form, as a list of none or one."""
    written = text(raw, name, path, findings)
    return _canonical(written, path / name, findings) if written else []


def _canonical(written: str, path: Path, findings: Findings) -> list[str]:
    try:
        return [str(ipaddress.ip_address(written))]
    except ValueError:
        findings.add(path, Reason.INVALID, f'"{written}" is no IP address')
        return []


def _workload(metadata: Raw, labels: Mapping[str, str], findings: Findings) -> Workload | None:
    """What the controller of the pod belongs to in turn (facts: only pods with a generateName have a workload)."""
    generated = text(metadata, "generateName", _META, findings)
    for i, item in enumerate(items(metadata, "ownerReferences", _META, findings)):
        path = (_META / "ownerReferences")[i]
        owner = mapping(item, path, findings)
        if owner is None or not flag(owner, "controller", path, findings):
            continue
        kind, name = text(owner, "kind", path, findings), text(owner, "name", path, findings)
        return _owner_of(Workload(kind, name), labels.get(HASH_LABEL, "")) if generated else None
    return None


def _owner_of(owner: Workload, template_hash: str) -> Workload:
    if owner.kind == "ReplicaSet" and template_hash and owner.name.endswith(f"-{template_hash}"):
        return Workload("Deployment", owner.name.removesuffix(f"-{template_hash}"))
    run = _CRON_RUN.fullmatch(owner.name) if owner.kind == "Job" else None
    return Workload("CronJob", run[1]) if run else owner


def _read_service(raw: Raw, findings: Findings) -> Service:
    _metadata(raw, findings)
    spec = submap(raw, "spec", ROOT, findings)
    where = ROOT / "spec"
    written = [text(spec, "clusterIP", where, findings)]
    for i, item in enumerate(items(spec, "clusterIPs", where, findings)):
        written.append(item if isinstance(item, str) else text({"ip": item}, "ip", (where / "clusterIPs")[i], findings))
    real = dict.fromkeys(address for address in written if address not in ("", "None"))
    addresses = tuple(a for address in real for a in _canonical(address, where / "clusterIP", findings))
    ports = (
        _service_port(item, (where / "ports")[i], findings)
        for i, item in enumerate(items(spec, "ports", where, findings))
    )
    return Service(findings.namespace, findings.name, addresses, tuple(port for port in ports if port is not None))


def _service_port(item: Any, path: Path, findings: Findings) -> ServicePort | None:
    raw = mapping(item, path, findings)
    if raw is None:
        return None
    number = _port(raw, "port", path, findings)
    target = raw.get("targetPort")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | str)):
        findings.add(path / "targetPort", Reason.WRONG_TYPE, "must be a port number or name")
    protocol = _protocol(raw, path, findings)
    if number is None or protocol is None:
        return None
    name = text(raw, "name", path, findings)
    return ServicePort(name, protocol, number, target if isinstance(target, int | str) else "")


def _read_slice(raw: Raw, findings: Findings) -> EndpointSlice:
    metadata = _metadata(raw, findings)
    labels = strings(submap(metadata, "labels", _META, findings), _META / "labels", findings)
    if raw.get("addressType") == "FQDN":
        return EndpointSlice(findings.namespace, findings.name)
    backends = (
        _backend(item, (ROOT / "endpoints")[i], findings)
        for i, item in enumerate(items(raw, "endpoints", ROOT, findings))
    )
    ports: dict[tuple[str, Protocol], int] = {}
    for i, item in enumerate(items(raw, "ports", ROOT, findings)):
        path = (ROOT / "ports")[i]
        entry = mapping(item, path, findings)
        if entry is None or entry.get("port") is None:  # a slice port without number means "any": no ClusterIP has that
            continue
        number, protocol = _port(entry, "port", path, findings), _protocol(entry, path, findings)
        if number is not None and protocol is not None:
            ports[text(entry, "name", path, findings), protocol] = number
    known = tuple(backend for backend in backends if backend is not None)
    return EndpointSlice(findings.namespace, findings.name, labels.get(SERVICE_LABEL, ""), known, ports)


def _backend(item: Any, path: Path, findings: Findings) -> Backend | None:
    raw = mapping(item, path, findings)
    if raw is None:
        return None
    addresses: list[str] = []
    for i, address in enumerate(items(raw, "addresses", path, findings)):
        addresses += _address({"ip": address}, "ip", (path / "addresses")[i], findings)
    conditions = submap(raw, "conditions", path, findings)
    ready = flag(conditions, "ready", path / "conditions", findings)
    serving = flag(conditions, "serving", path / "conditions", findings)
    # Absent conditions mean "unknown", which consumers take for ready (discovery/v1 EndpointConditions).
    is_ready = ready is not False
    return Backend(tuple(addresses), is_ready, is_ready if serving is None else serving)


def _port(raw: Raw, name: str, path: Path, findings: Findings) -> int | None:
    number = integer(raw, name, path, findings)
    if number is not None and 1 <= number <= PORT_MAX:
        return number
    if number is not None or raw.get(name) is None:
        findings.add(path / name, Reason.BAD_PORT, f"must be within 1..{PORT_MAX}")
    return None


def _protocol(raw: Raw, path: Path, findings: Findings) -> Protocol | None:
    written = text(raw, "protocol", path, findings) or "TCP"
    if written not in _PROTOCOLS:
        findings.add(path / "protocol", Reason.INVALID, f'"{written}" is none of TCP, UDP, SCTP')
    return _PROTOCOLS.get(written)


_META: Final = ROOT / "metadata"


def _metadata(raw: Raw, findings: Findings) -> Raw:
    metadata = submap(raw, "metadata", ROOT, findings)
    name = text(metadata, "name", _META, findings)
    text(metadata, "namespace", _META, findings)
    if not name:
        findings.add(_META / "name", Reason.MISSING, "every object has a name")
    elif fault := object_name_fault(name):
        findings.add(_META / "name", Reason.INVALID, fault)
    return metadata


_READERS: Final[dict[tuple[Any, Any], Callable[[Raw, Findings], Object | None]]] = {
    ("v1", "Namespace"): _read_namespace,
    ("v1", "Pod"): _read_pod,
    ("v1", "Service"): _read_service,
    ("discovery.k8s.io/v1", "EndpointSlice"): _read_slice,
    ("cilium.io/v2", crd.KIND): crd.read_policy,
}
_KINDS_LATER: Final = frozenset(
    {
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
        ("cilium.io/v2", "CiliumCIDRGroup"),
        ("cilium.io/v2alpha1", "CiliumCIDRGroup"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
    }
)
