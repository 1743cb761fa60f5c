"""Services and endpoint slices: raw objects -> frozen values. Pure."""

from __future__ import annotations

from typing import Any, Final

from policies.errors import Reason
from policies.objects import Backend, EndpointSlice, Service, ServicePort
from policies.reading.core_objects import META, address_in, canonical_address, read_metadata, read_port, read_protocol
from policies.reading.fields import ROOT, Findings, Path, Raw, flag, items, mapping, strings, submap, text
from policies.types import Protocol

SERVICE_LABEL: Final = "kubernetes.io/service-name"


def read_service(raw: Raw, findings: Findings) -> Service:
    metadata = read_metadata(raw, findings)
    spec = submap(raw, "spec", ROOT, findings)
    where = ROOT / "spec"
    written = [text(spec, "clusterIP", where, findings)]
    for i, item in enumerate(items(spec, "clusterIPs", where, findings)):
        written.append(item if isinstance(item, str) else text({"ip": item}, "ip", (where / "clusterIPs")[i], findings))
    real = dict.fromkeys(address for address in written if address not in ("", "None"))
    addresses = tuple(a for address in real for a in canonical_address(address, where / "clusterIP", findings))
    ports = (
        _service_port(item, (where / "ports")[i], findings)
        for i, item in enumerate(items(spec, "ports", where, findings))
    )
    labels = strings(submap(metadata, "labels", META, findings), META / "labels", findings)
    selector = strings(submap(spec, "selector", where, findings), where / "selector", findings)
    known = tuple(port for port in ports if port is not None)
    return Service(findings.namespace, findings.name, addresses, known, labels, selector)


def _service_port(item: Any, path: Path, findings: Findings) -> ServicePort | None:
    raw = mapping(item, path, findings)
    if raw is None:
        return None
    number = read_port(raw, "port", path, findings)
    target = raw.get("targetPort")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | str)):
        findings.add(path / "targetPort", Reason.WRONG_TYPE, "must be a port number or name")
    protocol = read_protocol(raw, path, findings)
    if number is None or protocol is None:
        return None
    name = text(raw, "name", path, findings)
    return ServicePort(name, protocol, number, target if isinstance(target, int | str) else "")


def read_slice(raw: Raw, findings: Findings) -> EndpointSlice:
    metadata = read_metadata(raw, findings)
    labels = strings(submap(metadata, "labels", META, findings), META / "labels", findings)
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
        number, protocol = read_port(entry, "port", path, findings), read_protocol(entry, path, findings)
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
        addresses += address_in({"ip": address}, "ip", (path / "addresses")[i], findings)
    conditions = submap(raw, "conditions", path, findings)
    ready = flag(conditions, "ready", path / "conditions", findings)
    serving = flag(conditions, "serving", path / "conditions", findings)
    # Absent conditions mean "unknown", which consumers take for ready (discovery/v1 EndpointConditions).
    is_ready = ready is not False
    return Backend(tuple(addresses), is_ready, is_ready if serving is None else serving)
