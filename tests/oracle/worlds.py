"""Random folders of manifests and requests for the differential tests: small, and overlapping in every way.

A few pods in two namespaces; policies of all kinds that choose among few labels, ports and paths, so that rules meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from policies.judging.requests import Request
from tests.policies.make import peers, pod, policy

SERVER, SERVER_IP = "server", "10.0.0.2"
CLIENTS = {"red": "10.0.0.3", "blue": "10.0.0.4", "green": "10.0.0.5"}

# --- HTTP ----------------------------------------------------------------------------------------------------------

METHODS = ("GET", "POST", "PUT")  # Envoy's HTTP/1 codec refuses methods that it does not know
HOSTS = ("a.example", "b.example", "A.example", "a.example:80")
SENT_HEADERS = (
    *(("x-a", value) for value in ("1", "2", "", "a, b")),
    *(("X-B", value) for value in ("2", " 2 ", "3")),
    *(("x-forwarded-proto", value) for value in ("http", "https")),
)
_PIECES = (
    r"/ / / a b . .. %2e %2E ; x=1 %2f %5C \ %41 % %c3 | ^ ~ ? = %00 # %3b ..; .; %zz [ ' // { %7e %2 %20 + & %25 ?a=1"
)
PIECES = tuple(_PIECES.split())
PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/b", "/a?x=1", "/a.b", "/A", "/a/../b", "//a", "/a/12", "/b%20a", "/a%7Cb")

_method_patterns = st.sampled_from(["", "", "GET", "POST", "GET|POST", "(GET|PUT)", "G.*", "[A-Z]+", "get"])
_PATH_PATTERNS = r"/ /a /a/.* /a.* /a\.b /a.b /a|/b /a(/.*)? /.* .* /[ab]/[0-9]+ (?i)/A /a(\?.*)? ^/a$ /a/? /a%7Cb /a/b"
_path_patterns = st.sampled_from(["", *_PATH_PATTERNS.split()])
_host_patterns = st.sampled_from(["", "", "", r"a\.example", r"a\.example|b\.example", r".*\.example", r"[aA].*(:80)?"])
_wanted_headers = st.sampled_from(["x-a", "X-A 1", "X-B: 2", "x-b", "x-a a, b", "X-Forwarded-Proto: https", "x-a 1,2"])


@st.composite
def http_rules(draw: st.DrawFn) -> dict[str, Any]:
    """One entry of rules.http."""
    fields = {"method": draw(_method_patterns), "path": draw(_path_patterns), "host": draw(_host_patterns)}
    headers = draw(st.lists(_wanted_headers, max_size=2)) if draw(st.integers(0, 3)) == 0 else []
    return {name: value for name, value in fields.items() if value} | ({"headers": headers} if headers else {})


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request near those rules, or one that means to get around them."""
    if draw(st.booleans()):
        path = draw(st.sampled_from(PATHS))
    else:
        path = "/" + "".join(draw(st.lists(st.sampled_from(PIECES), max_size=8)))
    headers = draw(st.lists(st.sampled_from(SENT_HEADERS), max_size=3))
    return Request(draw(st.sampled_from(METHODS)), path, draw(st.sampled_from(HOSTS)), tuple(headers))


def _peers_of(draw: st.DrawFn) -> list[dict[str, Any]]:
    chosen = st.sampled_from([{"colour": "red"}, {"colour": "blue"}, {"shade": "dark"}, {}])
    return peers(*draw(st.lists(chosen, min_size=1, max_size=2)))


@st.composite
def http_policies(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Policies about the server: rules for one port or several, allows without L7 that may void them."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        clauses = []
        for _ in range(draw(st.integers(1, 2))):
            clause: dict[str, Any] = {}
            if draw(st.integers(0, 4)):
                clause["fromEndpoints"] = _peers_of(draw)
            rules = draw(st.lists(http_rules(), min_size=1, max_size=5)) if draw(st.integers(0, 5)) else []
            port = draw(st.sampled_from([{"port": "80"}, {"port": "80", "endPort": 81}, {"port": "81"}]))
            entry: dict[str, Any] = {"ports": [port | {"protocol": "TCP"}]}
            clause["toPorts"] = [entry | ({"rules": {"http": rules}} if rules else {})]
            clauses.append(clause)
        made.append(policy(f"p{number}", subject={"app": "server"}, ingress=clauses))
    return made


def http_pods() -> list[dict[str, Any]]:
    """The server and its clients."""
    shades = {"red": "dark", "blue": "dark", "green": "light"}
    clients = [pod(name, ip, colour=name, shade=shades[name]) for name, ip in CLIENTS.items()]
    return [pod(SERVER, SERVER_IP, app="server"), *clients]


# --- layers 3 and 4 --------------------------------------------------------------------------------------------------

PORTS = (79, 80, 81, 85, 90, 443)
NAMESPACES = ("default", "rebels")
WORLD = "203.0.113.2"
_selectors = st.sampled_from(
    [
        {},
        {"matchLabels": {"app": "a"}},
        {"matchLabels": {"app": "b"}},
        {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "rebels"}},
        {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]},
        {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "reserved:host", "operator": "DoesNotExist"}]},
        {"matchLabels": {"reserved:world": ""}},
    ]
)
_PEERS: Mapping[str, st.SearchStrategy[Any]] = {
    "Endpoints": st.lists(_selectors, max_size=2),
    "Entities": st.lists(st.sampled_from(["all", "world", "cluster", "host", "remote-node"]), min_size=1, max_size=2),
    "CIDR": st.lists(st.sampled_from(["203.0.113.0/24", "203.0.113.2", "0.0.0.0/0", "10.0.0.0/8"]), max_size=2),
    "CIDRSet": st.lists(
        st.sampled_from(
            [
                {"cidr": "203.0.113.0/24", "except": ["203.0.113.2/32"]},
                {"cidr": "203.0.112.0/20", "except": ["203.0.113.128/25"]},
                {"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]},
                {"cidrGroupRef": "partners"},
                {"cidrGroupSelector": {"matchLabels": {"trust": "low"}}, "except": ["203.0.113.2/32"]},
            ]
        ),
        max_size=2,
    ),
}
_SERVICES = st.sampled_from([[{"k8sService": {"serviceName": "shop", "namespace": "default"}}]])
CIDR_GROUPS = [
    {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": name, "labels": {"trust": trust}},
        "spec": {"externalCIDRs": [prefix]},
    }
    for name, trust, prefix in (("partners", "high", "203.0.113.0/25"), ("others", "low", "203.0.112.0/20"))
]
_ports = st.sampled_from(
    [
        {"port": "80"},
        {"port": "80", "endPort": 85},
        {"port": "81", "endPort": 90},
        {"port": "443"},
        {"port": "0"},
        {"port": "web"},
    ]
)
_icmps = st.sampled_from([[{"fields": [{"type": 8}]}], [{"fields": [{"type": "EchoRequest"}, {"type": 42}]}]])


@st.composite
def _l4_clauses(draw: st.DrawFn, direction: str, is_deny: bool) -> dict[str, Any]:
    clause: dict[str, Any] = {}
    kind = draw(st.sampled_from([None, "Endpoints", "Endpoints", *_PEERS]))
    if direction == "egress" and draw(st.integers(0, 9)) == 0:
        clause["toServices"] = draw(_SERVICES)
    elif kind is not None:
        clause[f"{'from' if direction == 'ingress' else 'to'}{kind}"] = draw(_PEERS[kind])
    match draw(st.integers(0, 5)):
        case 0:
            pass
        case 1:
            clause["icmps"] = draw(_icmps)
        case _:
            clause["toPorts"] = [draw(_l4_ports(direction, is_deny)) for _ in range(draw(st.integers(1, 2)))]
    return clause


@st.composite
def _l4_ports(draw: st.DrawFn, direction: str, is_deny: bool) -> dict[str, Any]:
    ports = draw(st.lists(_ports, min_size=1, max_size=2))
    protocol, rules = draw(st.sampled_from(["TCP", "UDP", "ANY", "TCP"])), {}
    if not is_deny and draw(st.integers(0, 3)) == 0 and all(port["port"] != "0" for port in ports):
        protocol, rules = draw(_l7(direction, has_range=any("endPort" in port for port in ports)))
    entry: dict[str, Any] = {"ports": [port | {"protocol": protocol} for port in ports]}
    return entry | ({"rules": rules} if rules else {})


@st.composite
def _l7(draw: st.DrawFn, direction: str, *, has_range: bool) -> tuple[str, dict[str, Any]]:
    """Rules of one parser, and a protocol that it is spoken over. DNS is for egress, and for single ports."""
    rules = {"http": [{"method": "GET"}], "kafka": [{"topic": "t"}], "dns": [{"matchPattern": "*.io"}]}
    able = ["http", "http", "kafka"] if direction == "ingress" or has_range else ["http", "kafka", "dns", "dns"]
    kind = draw(st.sampled_from(able))
    return draw(st.sampled_from(["TCP", "UDP", "ANY"])) if kind == "dns" else "TCP", {kind: rules[kind]}


@st.composite
def l4_policies(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Policies of every kind of peer and port, with denials and default deny turned off now and then."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        spec: dict[str, Any] = {}
        for direction in ("ingress", "egress"):
            for field, is_deny in ((direction, False), (f"{direction}Deny", True)):
                if draw(st.integers(0, 4 if is_deny else 1)) == 0:
                    spec[field] = draw(st.lists(_l4_clauses(direction, is_deny), min_size=1, max_size=2))
        if not spec:
            continue
        if draw(st.integers(0, 5)) == 0:
            spec["enableDefaultDeny"] = {direction: draw(st.booleans()) for direction in ("ingress", "egress")}
        subject = draw(st.sampled_from([{}, {"app": "a"}, {"app": "b"}, {"tier": "front"}]))
        one = policy(f"p{number}", namespace=draw(st.sampled_from(NAMESPACES)), subject=subject, **spec)
        made.append(clusterwide(one) if draw(st.integers(0, 4)) == 0 else one)
    return [*CIDR_GROUPS, *made, *draw(st.lists(network_policies(), max_size=1))]


def clusterwide(one: dict[str, Any]) -> dict[str, Any]:
    """The same policy for every namespace."""
    return one | {"kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": one["metadata"]["name"]}}


@st.composite
def network_policies(draw: st.DrawFn) -> dict[str, Any]:
    """A Kubernetes NetworkPolicy."""
    peer = st.sampled_from(
        [
            {"podSelector": {"matchLabels": {"app": "a"}}},
            {"namespaceSelector": {}},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "rebels"}}},
            {"podSelector": {}, "namespaceSelector": {"matchExpressions": [{"key": "side", "operator": "Exists"}]}},
            {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.2/32"]}},
            {"ipBlock": {"cidr": "0.0.0.0/0"}},
        ]
    )
    port = st.sampled_from(
        [
            {"port": 80},
            {"port": 80, "endPort": 90},
            {"port": "web"},
            {"protocol": "UDP", "port": 85},
            {"protocol": "UDP"},
        ]
    )
    spec: dict[str, Any] = {"podSelector": draw(st.sampled_from([{}, {"matchLabels": {"app": "b"}}]))}
    for direction, side in (("ingress", "from"), ("egress", "to")):
        if draw(st.booleans()):
            spec[direction] = [
                {side: draw(st.lists(peer, max_size=2)), "ports": draw(st.lists(port, max_size=2))}
                for _ in range(draw(st.integers(0, 2)))
            ]
    if draw(st.booleans()):
        more = draw(st.sampled_from([[], ["ingress"], ["egress"]]))
        spec["policyTypes"] = sorted({name.title() for name in (*more, *(spec.keys() & {"ingress", "egress"}))})
    about = {"name": "np", "namespace": draw(st.sampled_from(NAMESPACES))}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": about, "spec": spec}


def namespaces() -> list[dict[str, Any]]:
    """The two, with labels."""
    labels = {"default": {}, "rebels": {"side": "light"}}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels[name]}},
        }
        for name in NAMESPACES
    ]


def with_ports(made: dict[str, Any], ports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pod with named container ports."""
    return made | {"spec": {"containers": [{"name": "main", "ports": [dict(port) for port in ports]}]}}
