"""CiliumIdentity, CiliumEndpoint and CiliumEndpointSlice: what nodes tell each other. Pure."""

from __future__ import annotations

from typing import Any, Final

from agent.crds.shapes import BOOLEAN, LABELS, NUMBER, TEXT, Column, Schema, Version, definition, known, several

_BIG: Final[Schema] = {"type": "integer", "format": "int64"}
_NETWORKING: Final = known(required=("addressing",), addressing=several(known(ipv4=TEXT, ipv6=TEXT)), node=TEXT)
_NAMED_PORTS: Final = several(known(name=TEXT, port=NUMBER, protocol=TEXT))
_DIRECTION: Final = known(required=("enforcing",), enforcing=BOOLEAN, state=TEXT)
_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")

IDENTITIES: Final[Any] = definition(
    "CiliumIdentity",
    "ciliumidentities",
    ("ciliumid",),
    "Cluster",
    (
        Version(
            "v2",
            known(
                "A number (the name) that all nodes give to pods with these labels.",
                required=("metadata", "security-labels"),
                security_labels=LABELS,
            ),
            (Column("Namespace", ".metadata.labels.io\\.kubernetes\\.pod\\.namespace"), _AGE),
            has_status=True,
        ),
    ),
)
ENDPOINTS: Final[Any] = definition(
    "CiliumEndpoint",
    "ciliumendpoints",
    ("cep", "ciliumep"),
    "Namespaced",
    (
        Version(
            "v2",
            known(
                "A pod as its node sees it: address, identity, and whether policy is enforced.",
                status=known(
                    id=_BIG,
                    state=TEXT,
                    identity=known(id=_BIG, labels=several(TEXT)),
                    networking=_NETWORKING,
                    named_ports=_NAMED_PORTS,
                    policy=known(ingress=_DIRECTION, egress=_DIRECTION),
                ),
            ),
            (
                Column("Security Identity", ".status.identity.id", "integer"),
                Column("Ingress Enforcement", ".status.policy.ingress.state", wide=True),
                Column("Egress Enforcement", ".status.policy.egress.state", wide=True),
                Column("Endpoint State", ".status.state"),
                Column("IPv4", ".status.networking.addressing[0].ipv4"),
                Column("IPv6", ".status.networking.addressing[0].ipv6"),
            ),
        ),
    ),
)
ENDPOINT_SLICES: Final[Any] = definition(
    "CiliumEndpointSlice",
    "ciliumendpointslices",
    ("ces",),
    "Cluster",
    (
        Version(
            "v2alpha1",
            known(
                "Endpoints of a namespace in one object.",
                required=("metadata", "endpoints"),
                namespace=TEXT,
                endpoints=several(known(name=TEXT, id=_BIG, networking=_NETWORKING, named_ports=_NAMED_PORTS)),
            ),
            (_AGE,),
        ),
    ),
)
