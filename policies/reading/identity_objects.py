"""What nodes have published for each other: agreed identities and the endpoints that have them. Pure.

The fields are those of Cilium's CRDs (cilium.io/v2 CiliumIdentity and CiliumEndpoint); both are written by machines, so
what is odd here is an error of the whole object.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from policies.errors import Reason
from policies.labels import K8S, NAMESPACE_KEY
from policies.objects import Identity, Pod, Published
from policies.reading.core_objects import META, address_in, read_metadata, read_port, read_protocol
from policies.reading.fields import ROOT, Findings, Raw, integer, items, mapping, strings, submap, text
from policies.types import IDENTITY_FIRST_ALLOCATED, IDENTITY_LAST_ALLOCATED, Protocol

_NAMESPACE: Final = f"{K8S}:{NAMESPACE_KEY}"
_STATUS: Final = ROOT / "status"


def read_identity(raw: Raw, findings: Findings) -> Identity:
    """The number is the name; only numbers that are allocated can be agreed on."""
    metadata = read_metadata(raw, findings)
    name, number = findings.name, 0
    if name.isascii() and name.isdigit() and not name.startswith("0"):
        number = int(name)
    if not IDENTITY_FIRST_ALLOCATED <= number <= IDENTITY_LAST_ALLOCATED:
        span = f"{IDENTITY_FIRST_ALLOCATED}..{IDENTITY_LAST_ALLOCATED}"
        findings.ours(META / "name", Reason.INVALID, f"must be an identity within {span}")
    labels = strings(submap(raw, "security-labels", ROOT, findings), ROOT / "security-labels", findings)
    written = (f"{key}={value}" if value else key for key, value in labels.items())
    return Identity(number, tuple(sorted(written)), text(metadata, "creationTimestamp", META, findings))


def read_endpoint(raw: Raw, findings: Findings) -> Pod:
    """A pod as its node has published it."""
    read_metadata(raw, findings)
    status = submap(raw, "status", ROOT, findings)
    identity = submap(status, "identity", _STATUS, findings)
    networking = submap(status, "networking", _STATUS, findings)
    labels: list[str] = []
    for i, item in enumerate(items(identity, "labels", _STATUS / "identity", findings)):
        labels.append(text({"label": item}, "label", (_STATUS / "identity" / "labels")[i], findings))
    home = f"{_NAMESPACE}={findings.namespace}"
    if labels and home not in labels:  # whoever may write in one namespace cannot make its pods be another's
        findings.ours(_STATUS / "identity" / "labels", Reason.INVALID, f"must have {home}")
    number = integer(identity, "id", _STATUS / "identity", findings) or 0
    node = text(networking, "node", _STATUS / "networking", findings)
    return Pod(
        findings.namespace,
        findings.name,
        addresses=_addresses(networking, findings),
        ports=_named_ports(status, findings),
        published=Published(number, tuple(sorted(labels)), node),
    )


def endpoint_stand_in(raw: Raw, findings: Findings) -> Pod | None:
    """What is known of a refused endpoint: where it is. Nobody is known to be there, so nobody is let in; without it,
    its addresses would be the world's."""
    pod = read_endpoint(raw, Findings(findings.kind, findings.namespace, findings.name))
    return replace(pod, published=Published(0, (), "")) if pod.addresses else None


def _addresses(networking: Raw, findings: Findings) -> tuple[str, ...]:
    where = _STATUS / "networking" / "addressing"
    found: list[str] = []
    for i, item in enumerate(items(networking, "addressing", _STATUS / "networking", findings)):
        pair = mapping(item, where[i], findings)
        for family in ("ipv4", "ipv6"):
            found += address_in(pair, family, where[i], findings) if pair is not None else ()
    return tuple(dict.fromkeys(found))


def _named_ports(status: Raw, findings: Findings) -> dict[tuple[str, Protocol], int]:
    where = _STATUS / "named-ports"
    found: dict[tuple[str, Protocol], int] = {}
    for i, item in enumerate(items(status, "named-ports", _STATUS, findings)):
        port = mapping(item, where[i], findings)
        if port is None or not port.get("name"):
            continue
        name, number = text(port, "name", where[i], findings).lower(), read_port(port, "port", where[i], findings)
        protocol = read_protocol(port, where[i], findings)
        if number is not None and protocol is not None:
            found.setdefault((name, protocol), number)
    return found
