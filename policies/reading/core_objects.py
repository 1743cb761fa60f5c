"""Namespaces, pods, nodes and secrets: raw objects -> frozen values. Pure.

Core objects are read leniently in fields that are not used here (they have hundreds) and strictly in the types of those
that are.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from policies.errors import Reason
from policies.objects import Namespace, Node, Pod, Secret, Workload
from policies.reading.fields import ROOT, Findings, Path, Raw, flag, integer, items, mapping, strings, submap, text
from policies.reading.sanitize import object_name_fault
from policies.types import PORT_MAX, Protocol

HASH_LABEL: Final = "pod-template-hash"
_CRON_RUN: Final = re.compile(r"(.+)-\d{8,10}")
_PROTOCOLS: Final = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "SCTP": Protocol.SCTP}
_ADDRESS_TYPES: Final = frozenset({"InternalIP", "ExternalIP", "CiliumInternalIP"})  # others are names
META: Final = ROOT / "metadata"


def read_metadata(raw: Raw, findings: Findings) -> Raw:
    """The metadata, its name checked."""
    metadata = submap(raw, "metadata", ROOT, findings)
    name = text(metadata, "name", META, findings)
    text(metadata, "namespace", META, findings)
    if not name:
        findings.add(META / "name", Reason.MISSING, "every object has a name")
    elif fault := object_name_fault(name):
        findings.add(META / "name", Reason.INVALID, fault)
    return metadata


def read_namespace(raw: Raw, findings: Findings) -> Namespace:
    metadata = read_metadata(raw, findings)
    return Namespace(findings.name, strings(submap(metadata, "labels", META, findings), META / "labels", findings))


def read_pod(raw: Raw, findings: Findings) -> Pod:
    metadata = read_metadata(raw, findings)
    spec = submap(raw, "spec", ROOT, findings)
    status = submap(raw, "status", ROOT, findings)
    labels = strings(submap(metadata, "labels", META, findings), META / "labels", findings)
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
        ports=_named_ports(spec, findings),
    )


def pod_stand_in(raw: Raw, findings: Findings) -> Pod | None:
    """What is known of a refused pod, if that is who it is and where: without it, it would be no pod of this node, and
    open. None where its name or every address cannot be read; labels that cannot be read are not known."""
    pod = read_pod(raw, Findings(findings.kind, findings.namespace, findings.name))
    bad = {error.path.removeprefix(f"{META}.") for error in findings.errors if error.path.startswith(str(META))}
    if not pod.addresses or bad & {str(META), "name", "namespace"}:
        return None
    return replace(pod, labels={}, has_known_labels=False) if any(path.startswith("labels") for path in bad) else pod


def _named_ports(spec: Raw, findings: Findings) -> dict[tuple[str, Protocol], int]:
    """Names of container ports, in lower case; sidecars of initContainers too. The first container wins a name."""
    found: dict[tuple[str, Protocol], int] = {}
    for field in ("containers", "initContainers"):
        where = ROOT / "spec" / field
        for i, item in enumerate(items(spec, field, ROOT / "spec", findings)):
            container = mapping(item, where[i], findings)
            if container is None or (field == "initContainers" and container.get("restartPolicy") != "Always"):
                continue
            for j, port in enumerate(items(container, "ports", where[i], findings)):
                entry = mapping(port, (where[i] / "ports")[j], findings)
                if entry is not None and entry.get("name"):
                    _add_port(found, entry, (where[i] / "ports")[j], findings)
    return found


def _add_port(found: dict[tuple[str, Protocol], int], raw: Raw, path: Path, findings: Findings) -> None:
    name, number = text(raw, "name", path, findings).lower(), read_port(raw, "containerPort", path, findings)
    protocol = read_protocol(raw, path, findings)
    if name and number is not None and protocol is not None:
        found.setdefault((name, protocol), number)


def read_port(raw: Raw, name: str, path: Path, findings: Findings) -> int | None:
    """A port that must be there."""
    number = integer(raw, name, path, findings)
    if number is not None and 1 <= number <= PORT_MAX:
        return number
    if number is not None or raw.get(name) is None:
        findings.add(path / name, Reason.BAD_PORT, f"must be within 1..{PORT_MAX}")
    return None


def read_protocol(raw: Raw, path: Path, findings: Findings) -> Protocol | None:
    """The protocol of a port, TCP by default."""
    written = text(raw, "protocol", path, findings) or "TCP"
    if written not in _PROTOCOLS:
        findings.add(path / "protocol", Reason.INVALID, f'"{written}" is none of TCP, UDP, SCTP')
    return _PROTOCOLS.get(written)


def _pod_addresses(status: Raw, findings: Findings) -> tuple[str, ...]:
    where = ROOT / "status"
    found: list[str] = []
    for i, item in enumerate(items(status, "podIPs", where, findings)):
        entry = mapping(item, (where / "podIPs")[i], findings)
        if entry is not None:
            found += address_in(entry, "ip", (where / "podIPs")[i], findings)
    return tuple(dict.fromkeys([*address_in(status, "podIP", where, findings), *found]))


def address_in(raw: Raw, name: str, path: Path, findings: Findings) -> list[str]:
    """The address field of that name in canonical form, as a list of none or one."""
    written = text(raw, name, path, findings)
    return canonical_address(written, path / name, findings) if written else []


def canonical_address(written: str, path: Path, findings: Findings) -> list[str]:
    """The address in canonical form, as a list of none or one."""
    try:
        return [str(ipaddress.ip_address(written))]
    except ValueError:
        findings.add(path, Reason.INVALID, f'"{written}" is no IP address')
        return []


def _workload(metadata: Raw, labels: Mapping[str, str], findings: Findings) -> Workload | None:
    """What the controller of the pod belongs to in turn (facts: only pods with a generateName have a workload)."""
    generated = text(metadata, "generateName", META, findings)
    for i, item in enumerate(items(metadata, "ownerReferences", META, findings)):
        path = (META / "ownerReferences")[i]
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


def read_node(raw: Raw, findings: Findings) -> Node:
    """Its labels, and every address that is one."""
    metadata = read_metadata(raw, findings)
    labels = strings(submap(metadata, "labels", META, findings), META / "labels", findings)
    status = submap(raw, "status", ROOT, findings)
    where = ROOT / "status" / "addresses"
    found: list[str] = []
    for i, item in enumerate(items(status, "addresses", ROOT / "status", findings)):
        entry = mapping(item, where[i], findings)
        if entry is not None and text(entry, "type", where[i], findings) in _ADDRESS_TYPES:
            found += address_in(entry, "address", where[i], findings)
    return Node(findings.name, labels, tuple(dict.fromkeys(found)))


def read_secret(raw: Raw, findings: Findings) -> Secret:
    """Values that are text: `data` in base64, under `stringData`. No value is ever part of a message."""
    read_metadata(raw, findings)
    values: dict[str, str] = {}
    for key, written in strings(submap(raw, "data", ROOT, findings), ROOT / "data", findings).items():
        try:
            values[key] = binascii.a2b_base64("".join(written.split()), strict_mode=True).decode()
        except UnicodeDecodeError:
            continue  # a key or a certificate in binary: no header can have it
        except ValueError:
            findings.add((ROOT / "data")[key], Reason.INVALID, "is not base64: put plain text under stringData")
    values |= strings(submap(raw, "stringData", ROOT, findings), ROOT / "stringData", findings)
    return Secret(findings.namespace, findings.name, values)
