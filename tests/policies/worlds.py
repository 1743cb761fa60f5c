"""Random worlds for property tests: a few pods in two namespaces, and policies that overlap in every way."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.policies.make import pod, policy

NAMESPACES = ("default", "rebels")
APPS = ("a", "b", "c")
TIERS = ("x", "y")
PORTS = ("80", "85", "80-90", "85-100", "443")
HTTP = ({}, {"method": "GET"}, {"method": "POST", "path": "/v1/.*"}, {"path": "/a", "headers": ["X-Key: 1"]})

PODS = [
    pod(f"{namespace}-{app}-{tier}", f"10.{n}.{a}.{t + 1}", namespace, app=app, tier=tier)
    for n, namespace in enumerate(NAMESPACES)
    for a, app in enumerate(APPS)
    for t, tier in enumerate(TIERS)
]

_labels = st.dictionaries(st.sampled_from(["app", "k8s:tier"]), st.sampled_from([*APPS, *TIERS]), max_size=2)
_expressions = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "key": st.sampled_from(["app", "tier", "k8s:app", "other"]),
                "operator": st.sampled_from(["In", "NotIn"]),
                "values": st.lists(st.sampled_from([*APPS, *TIERS]), min_size=1, max_size=2),
            }
        ),
        st.fixed_dictionaries(
            {"key": st.sampled_from(["app", "tier", "other"]), "operator": st.sampled_from(["Exists", "DoesNotExist"])}
        ),
    ),
    max_size=1,
)
_plain = st.builds(lambda labels, more: {"matchLabels": labels, "matchExpressions": more}, _labels, _expressions)
_elsewhere = st.builds(
    lambda labels, namespace: {"matchLabels": {**labels, "k8s:io.kubernetes.pod.namespace": namespace}},
    _labels,
    st.sampled_from(NAMESPACES),
)
_reserved = st.sampled_from(
    [
        {"matchLabels": {"reserved:host": ""}},
        {"matchLabels": {"reserved:world": ""}},
        {"matchExpressions": [{"key": "reserved:host", "operator": "DoesNotExist"}]},
    ]
)
selectors = st.one_of(st.just({}), _plain, _plain, _elsewhere, _reserved)


@st.composite
def to_ports(draw: st.DrawFn) -> dict[str, Any]:
    """One entry of toPorts: with HTTP rules on TCP, or without on anything."""
    has_l7 = draw(st.booleans())
    ports = []
    for written in draw(st.lists(st.sampled_from(PORTS if has_l7 else (*PORTS, "0")), min_size=has_l7, max_size=2)):
        first, _, last = written.partition("-")
        protocol = "TCP" if has_l7 else draw(st.sampled_from(["TCP", "UDP", "ANY", None]))
        ports.append({"port": first} | ({"endPort": int(last)} if last else {}))
        ports[-1] |= {"protocol": protocol} if protocol else {}
    http = draw(st.lists(st.sampled_from(HTTP), min_size=1, max_size=2)) if has_l7 else None
    return {"ports": ports} | ({"rules": {"http": http}} if has_l7 else {})


@st.composite
def clauses(draw: st.DrawFn, field: str) -> dict[str, Any]:
    """One entry of ingress or egress: peers absent, empty or some; ports absent, empty or some."""
    clause: dict[str, Any] = {}
    if (peers := draw(st.one_of(st.none(), st.lists(selectors, max_size=2)))) is not None:
        clause[field] = peers
    if (ports := draw(st.one_of(st.none(), st.lists(to_ports(), max_size=2)))) is not None:
        clause["toPorts"] = ports
    return clause


@st.composite
def policies(draw: st.DrawFn, most: int = 4) -> list[dict[str, Any]]:
    """Some valid policies."""
    made = []
    for number in range(draw(st.integers(0, most))):
        spec = {
            "ingress": draw(st.lists(clauses("fromEndpoints"), max_size=2)),
            "egress": draw(st.lists(clauses("toEndpoints"), max_size=2)),
        }
        if any(spec.values()):
            subject = draw(st.one_of(st.just({}), _plain))
            made.append(policy(f"p{number}", namespace=draw(st.sampled_from(NAMESPACES)), subject=subject, **spec))
    return made
