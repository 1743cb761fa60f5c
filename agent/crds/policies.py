"""CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup. Pure.

Types only: what a field must say is judged by the reader (policies.reading), whose words end up in the condition Valid.
"""

from __future__ import annotations

from typing import Any, Final

from agent.crds.shapes import (
    BOOLEAN,
    CONDITIONS,
    LABELS,
    NUMBER,
    TEXT,
    Column,
    Schema,
    Version,
    definition,
    known,
    several,
)

_SELECTOR: Final = known(
    matchLabels=LABELS,
    matchExpressions=several(
        known(
            required=("key", "operator"),
            key=TEXT,
            operator={"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            values=several(TEXT),
        )
    ),
)
_PORTS: Final = several(
    known(
        ports=several(known(port=TEXT, endPort=NUMBER, protocol=TEXT)),
        rules=known(
            http=several(known(method=TEXT, path=TEXT, host=TEXT, headers=several(TEXT))),
            dns=several(known(matchName=TEXT, matchPattern=TEXT)),
            kafka=several(known(role=TEXT, apiKey=TEXT, apiVersion=TEXT, clientID=TEXT, topic=TEXT)),
        ),
    )
)
_RANGES: Final = known(cidr=TEXT, except_=several(TEXT), cidrGroupRef=TEXT, cidrGroupSelector=_SELECTOR)


def _peers(way: str) -> dict[str, Schema]:
    """Fields of a rule that are there in both directions; `way` is `from` or `to`."""
    return {
        f"{way}Endpoints": several(_SELECTOR),
        f"{way}Requires": several(_SELECTOR),
        f"{way}Nodes": several(_SELECTOR),
        f"{way}CIDR": several(TEXT),
        f"{way}CIDRSet": several(_RANGES),
        f"{way}Entities": several(TEXT),
        f"{way}Groups": several(known()),
        "toPorts": _PORTS,
        "icmps": several(known(fields=several(known()))),
        "authentication": known(mode=TEXT),
    }


def _rule(fields: dict[str, Schema]) -> Schema:
    return {**known(), "properties": fields}


_TO_NAMES: Final = {"toServices": several(known()), "toFQDNs": several(known(matchName=TEXT, matchPattern=TEXT))}
_INGRESS: Final = _rule(_peers("from"))
_EGRESS: Final = _rule({**_peers("to"), **_TO_NAMES})
_SPEC: Final = known(
    "Rules for the endpoints (or nodes) that the selector chooses.",
    description=TEXT,
    endpointSelector=_SELECTOR,
    nodeSelector=_SELECTOR,
    enableDefaultDeny=known(ingress=BOOLEAN, egress=BOOLEAN),
    ingress=several(_INGRESS),
    ingressDeny=several(_INGRESS),
    egress=several(_EGRESS),
    egressDeny=several(_EGRESS),
    labels=several(known(key=TEXT, value=TEXT, source=TEXT)),
    log=known(value=TEXT),
)


def _policy(about: str) -> Version:
    root = known(about, spec=_SPEC, specs=several(_SPEC), status=known(conditions=CONDITIONS))
    columns = (
        Column("Age", ".metadata.creationTimestamp", "date"),
        Column("Valid", ".status.conditions[?(@.type=='Valid')].status"),
        Column("Enforced", ".status.conditions[?(@.type=='Enforced')].status"),
        Column("Nodes", ".status.conditions[?(@.type=='Enforced')].message", wide=True),
    )
    return Version("v2", root, columns, has_status=True)


POLICIES: Final[Any] = definition(
    "CiliumNetworkPolicy",
    "ciliumnetworkpolicies",
    ("cnp", "ciliumnp"),
    "Namespaced",
    (_policy("Who may speak with the pods of a namespace, and what they may ask."),),
    also=("ciliumpolicy",),
)
CLUSTERWIDE_POLICIES: Final[Any] = definition(
    "CiliumClusterwideNetworkPolicy",
    "ciliumclusterwidenetworkpolicies",
    ("ccnp",),
    "Cluster",
    (_policy("The same of pods wherever they are."),),
    also=("ciliumpolicy",),
)

_GROUP: Final = known(
    "Address ranges outside the cluster that policies may name.",
    required=("spec",),
    spec=known(required=("externalCIDRs",), externalCIDRs=several(TEXT)),
)
CIDR_GROUPS: Final[Any] = definition(
    "CiliumCIDRGroup",
    "ciliumcidrgroups",
    ("ccg",),
    "Cluster",
    (Version("v2", _GROUP), Version("v2alpha1", _GROUP, deprecated=True)),
)
