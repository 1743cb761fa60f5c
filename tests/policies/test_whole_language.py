"""The compiler against the language read aloud (tests/policies/reference.py), on random galaxies and random rules.

Every peer is looked up as the kernel does: address -> longest prefix -> identity -> entry.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.compiling.compiler import CompilerOptions
from policies.compiling.enforcement import AllowLocalhost, Enforcement
from policies.compiling.identity import IdentityAllocator
from policies.ir import NodePolicy
from policies.labels import identity_labels, parse_label
from policies.objects import CidrGroup, Namespace, Node, Pod, PodKey
from policies.rules import CidrGroupPeer, Clause, Entity, EntityPeer, Policy, PortSpec, ServicePeer, ToPorts
from policies.selectors import Operator, Requirement, Selector, exists
from policies.types import ALL_PORTS, Direction, PortRange, Protocol
from tests.policies.language import (
    ANNOUNCE,
    ANY_NAME,
    GET,
    GITHUB,
    HOST,
    NAMESPACE,
    PLANS,
    POST,
    SHIPS,
    Galaxy,
    answer_of,
    backends,
    cidr,
    clause,
    having,
    identity_of,
    in_namespace,
    policy,
    reserved,
    service,
    ship,
)
from tests.policies.reference import Reading, Who, outside

NAMESPACES = {"default": Namespace("default", {"side": "dark"}), "hoth": Namespace("hoth", {"side": "cold"})}
PODS = [*SHIPS, ship("probe", "10.0.1.2", "hoth", org="empire", craft="probe", ports={"http": 81, "admin": 80})]
GROUPS = [CidrGroup("rim", {"far": "yes"}, ("172.16.0.0/16", "fd00::/8")), CidrGroup("core", {}, ("203.0.113.0/24",))]
SERVICES = [
    service("fleet", selector={"org": "empire"}, kind="war"),
    service("bank", kind="trade"),
    service("nobody", kind="trade"),
]
SLICES = [backends("bank", "203.0.113.7"), backends("kubernetes", "198.51.100.6", "192.0.2.77")]
NODES = [Node("here", {}, (HOST,)), Node("there", {"zone": "a"}, ("192.0.2.7",)), Node("api", {}, ("192.0.2.77",))]
IPS = ("172.16.0.1", "172.16.1.1", "172.17.0.1", "203.0.113.7", "203.0.113.9", "198.51.100.6", "fd00::1", "2001:db8::9")
PREFIXES = ("172.16.0.0/12", "172.16.0.0/16", "172.16.1.0/24", "172.16.1.1/32", "10.0.0.0/8", "0.0.0.0/0", "::/0")
PACKETS = [
    *((Protocol.TCP, port) for port in (0, 79, 80, 81, 85, 90, 91, 8000, 8080, 65535)),
    *((Protocol.UDP, port) for port in (80, 85)),
    *((Protocol.SCTP, 80), (Protocol.ICMP, 0), (Protocol.ICMP, 8), (Protocol.ICMPV6, 8)),
]

_org = st.sampled_from(["empire", "alliance", "hutts"])
_craft = st.sampled_from(["deathstar", "tiefighter", "xwing", "walker"])
_selectors = st.one_of(
    st.just(Selector()),
    st.builds(lambda org: in_namespace("default", org=org), _org),
    st.builds(lambda craft: having(craft=craft), _craft),
    st.just(Selector.of([exists(NAMESPACE)])),
    st.just(having(**{"io.cilium.k8s.namespace.labels.side": "cold"})),
    st.builds(lambda org: Selector.of([Requirement("any:org", Operator.NOT_IN, (org,))]), _org),
    st.sampled_from(["host", "world", "remote-node", "kube-apiserver", "init"]).map(reserved),
    st.sampled_from(["host", "world"]).map(lambda name: reserved(name, Operator.DOES_NOT_EXIST)),
)
_cidrs = st.builds(
    lambda prefix, excepts: cidr(prefix, *(e for e in excepts if _is_inside(e, prefix))),
    st.sampled_from(PREFIXES),
    st.sets(st.sampled_from(PREFIXES[:4]), max_size=1),
)
_groups = st.builds(
    CidrGroupPeer,
    st.sampled_from(
        [Selector.of([exists("cidrgroup:io.cilium.policy.cidrgroupname/rim")]), having(far="yes"), Selector()]
    ),
    st.sampled_from([(), ("172.16.1.0/24",)]),
)
_services = st.sampled_from(
    [
        *(ServicePeer(namespace, name) for namespace in ("default", "") for name in ("fleet", "bank", "nobody")),
        ServicePeer("hoth", "fleet"),
        ServicePeer("", "", having(kind="trade")),
    ]
)
_peers = st.one_of(_selectors, _selectors, _cidrs, _groups, _services, st.sampled_from(Entity).map(EntityPeer))
_ranges = st.sampled_from([(80, 80), (80, 90), (85, 85), (85, 100), (8080, 8080), (0, 65535)])
_numbers = st.builds(
    lambda protocol, ports: PortSpec(protocol, PortRange(*ports)),
    st.sampled_from([Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.ANY, Protocol.SCTP]),
    _ranges,
)
_names = st.builds(
    PortSpec, st.sampled_from([Protocol.TCP, Protocol.ANY]), st.sampled_from(["http", "admin", "missing"])
)
_icmp = st.builds(
    lambda protocol, kind: PortSpec(protocol, PortRange(kind, kind)),
    st.sampled_from([Protocol.ICMP, Protocol.ICMPV6]),
    st.sampled_from([0, 8]),
)
_plain = st.builds(ToPorts, st.lists(st.one_of(_numbers, _names, _icmp), max_size=2).map(tuple))
_TCP = (PortSpec(Protocol.TCP, PortRange(80, 90)), PortSpec(Protocol.TCP, "http"))
_TCP_AND_UDP = (PortSpec(Protocol.UDP, PortRange(80, 80)), PortSpec(Protocol.ANY, PortRange(85, 85)), *_TCP[1:])
_judged = st.one_of(
    st.builds(
        lambda ports, rules: ToPorts(tuple(ports), tuple(sorted(rules, key=lambda rule: rule.match_key))),
        st.lists(st.sampled_from(ports), min_size=1),
        st.lists(st.sampled_from(rules), min_size=1, max_size=2, unique=True),
    )
    for ports, rules in ((_TCP, [GET, POST]), (_TCP_AND_UDP, [GITHUB, ANY_NAME]), (_TCP, [PLANS, ANNOUNCE]))
)
_allow = st.builds(
    lambda peers, ports: clause(peers, *ports),
    st.one_of(st.none(), st.lists(_peers, max_size=2)),
    st.lists(st.one_of(_plain, _judged), max_size=2),
)
_deny = st.builds(
    lambda peers, ports: clause(peers, *ports, deny=True),
    st.one_of(st.none(), st.lists(_peers, max_size=2)),
    st.lists(_plain, max_size=1),
)
_clauses = st.lists(st.one_of(_allow, _allow, _deny), max_size=2)


@st.composite
def policies(draw: st.DrawFn, most: int = 4) -> list[Policy]:
    """Some policies; now and then one that enforces nothing."""
    made = []
    for i in range(draw(st.integers(1, most))):
        subject = draw(st.sampled_from([Selector(), in_namespace("default"), having(org="empire")]))
        enforces = draw(st.sampled_from([None, None, (), (Direction.INGRESS,)]))
        made.append(policy(f"p{i}", subject, ingress=draw(_clauses), egress=draw(_clauses), enforces=enforces))
    return made


def _is_inside(one: str, other: str) -> bool:
    inner, outer = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def everybody() -> list[Who]:
    nodes = [
        Who(HOST, {"reserved:host": ""}),
        Who("192.0.2.7", {"reserved:remote-node": ""}),
        Who("192.0.2.77", {"reserved:remote-node": "", "reserved:kube-apiserver": ""}),
    ]
    return [*map(as_who, PODS), *nodes, *(outside(ip, is_api_server=ip == "198.51.100.6") for ip in IPS)]


def as_who(pod: Pod) -> Who:
    labels = map(
        parse_label,
        identity_labels(pod.labels, namespace=pod.namespace, namespace_labels=NAMESPACES[pod.namespace].labels),
    )
    ports = frozenset((name, protocol, number) for (name, protocol), number in pod.ports.items())
    return Who(pod.addresses[0], {f"{x.source}:{x.key}": x.value for x in labels}, ports=ports)


def galaxy(**options: Any) -> Galaxy:
    return Galaxy(PODS, tuple(NAMESPACES.values()), SERVICES, SLICES, GROUPS, NODES, CompilerOptions(**options))


def assert_says_what_is_written(node: NodePolicy, reading: Reading, subjects: Iterable[Pod]) -> None:
    groups = {(e.namespace, e.name): e.group for e in node.endpoints}
    for pod in subjects:
        subject, group = as_who(pod), groups[pod.namespace, pod.name]
        for who in everybody():
            identity = identity_of(node, who.ip)
            for direction in Direction:
                for protocol, port in PACKETS:
                    wanted = reading.answer(subject, direction, who, protocol, port)
                    found = answer_of(node, group, direction, (identity, protocol, port))
                    assert found == wanted, (pod.name, direction, who.ip, protocol.name, port)


_modes = st.sampled_from([Enforcement.DEFAULT, Enforcement.DEFAULT, Enforcement.ALWAYS, Enforcement.NEVER])
_localhost = st.sampled_from([AllowLocalhost.AUTO, AllowLocalhost.POLICY])
_SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@settings(_SLOW, max_examples=80)
@given(policies(), _modes, _localhost)
def test_the_compiled_policy_says_what_the_rules_say(
    made: list[Policy], mode: Enforcement, localhost: AllowLocalhost
) -> None:
    node = galaxy(node_name="here", policy_enforcement=mode, allow_localhost=localhost).compile(*made).node
    reading = Reading(made, GROUPS, SERVICES, SLICES, mode=mode, localhost=localhost)
    assert_says_what_is_written(node, reading, (PODS[0], PODS[3]))


_FEW = range(len(PODS))
_steps = st.tuples(
    st.one_of(st.none(), policies(most=3)),  # none: as they were
    st.sets(st.sampled_from(_FEW), min_size=2),  # pods that are there
    st.sets(st.sampled_from(range(len(GROUPS)))),
    st.sets(st.sampled_from(range(len(SERVICES)))),
    st.sets(st.sampled_from(range(len(SLICES)))),
    st.sampled_from([0, 2, 3]),  # nodes
    st.booleans(),  # whether a pod has another number for its port
)


@settings(_SLOW, max_examples=80)
@given(st.lists(_steps, min_size=2, max_size=4))
def test_history_leaves_no_trace(history: list[tuple[Any, ...]]) -> None:
    """After any edits of anything the compiler says what a new one says of the same galaxy, and changes no object that
    it need not."""
    there = galaxy(node_name="here")
    last: Mapping[int, Any] = {}
    made: list[Policy] = []
    for edited, pods, groups, services, slices, nodes, is_moved in history:
        made = made if edited is None else edited
        moved = ship("tiefighter", "10.0.0.2", org="empire", craft="tiefighter", ports={"http": 85})
        there.pods = [moved if is_moved and PODS[i].name == "tiefighter" else PODS[i] for i in sorted(pods)]
        there.groups = [GROUPS[i] for i in sorted(groups)]
        there.services, there.slices = [SERVICES[i] for i in services], [SLICES[i] for i in slices]
        there.nodes = NODES[:nodes]
        compiled = there.compile(*made)
        again = there.compile(*made)
        assert all(a is b for a, b in zip(again.node.policies, compiled.node.policies, strict=True))
        for found in compiled.node.policies:
            assert found is last.get(found.group) or found != last.get(found.group)
        last = {found.group: found for found in compiled.node.policies}
    fresh = galaxy(node_name="here")
    fresh.pods, fresh.groups, fresh.services = there.pods, there.groups, there.services
    fresh.slices, fresh.nodes = there.slices, there.nodes
    fresh.identities = IdentityAllocator.from_dict(there.identities.to_dict())
    fresh.__post_init__()
    assert fresh.compile(*made).node.to_dict() == compiled.node.to_dict()


def test_the_galaxy_has_somebody_of_every_kind() -> None:
    node = galaxy(node_name="here").node(policy("p", egress=[clause([cidr("172.16.0.0/12", "172.16.1.0/24")])]))
    assert [identity_of(node, who.ip) for who in everybody()[len(PODS) :]][:3] == [1, 6, 7]
    assert identity_of(node, "172.16.1.1") != identity_of(node, "172.16.0.1") != identity_of(node, "2001:db8::9")
    assert PortRange(0, 65535) == ALL_PORTS
    assert PodKey("default", "deathstar") in galaxy().world().pods
    assert isinstance(clause(None), Clause)
