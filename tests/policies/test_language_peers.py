"""Who is meant: one test for each row of facts 2.3 to 2.6."""

from __future__ import annotations

import pytest

from policies.compiling.compiler import CompilerOptions
from policies.ir import Address, HttpRule
from policies.objects import Backend, CidrGroup, EndpointSlice, Node
from policies.rules import CidrGroupPeer, Peer, ServicePeer, ToPorts
from policies.selectors import Operator, Requirement, Selector, exists
from tests.policies.language import (
    HOST,
    NAMESPACE,
    SHIPS,
    XWING,
    Galaxy,
    backends,
    cidr,
    clause,
    entity,
    having,
    identity_of,
    in_namespace,
    may,
    policy,
    reserved,
    service,
    to,
)

WORLD, WORLD6, REMOTE, API, API_NODE = "203.0.113.1", "2001:db8::1", "192.0.2.7", "198.51.100.6", "192.0.2.8"
NODES = [Node("here", {}, (HOST,)), Node("there", {"zone": "a"}, (REMOTE,)), Node("api", {}, (API_NODE,))]
SERVERS = [backends("kubernetes", API, API_NODE)]
EVERYBODY: dict[str, str] = {
    **{pod.name: pod.addresses[0] for pod in SHIPS},
    "host": HOST,
    "remote": REMOTE,
    "api": API,
    "api-node": API_NODE,
    "world": WORLD,
    "world6": WORLD6,
}
PODS = {"deathstar", "tiefighter", "xwing", "atat"}
OUTSIDE = {"api", "world", "world6"}


def reached(galaxy: Galaxy, *peers: Peer) -> set[str]:
    """Who may be reached by a death star under a policy of egress to these peers."""
    node = galaxy.node(policy("p", having(craft="deathstar"), egress=[clause(peers)]))
    return {name for name, ip in EVERYBODY.items() if may(node, ip, direction="egress") == "allow"}


def universe() -> Galaxy:
    return Galaxy(nodes=NODES, slices=SERVERS)


# 2.3: absent, empty, and everybody


def test_no_peers_with_ports_is_anybody_on_these_ports() -> None:
    node = universe().node(policy("p", ingress=[clause(None, to(80))]))
    assert {may(node, ip, 80) for ip in EVERYBODY.values()} == {"allow"}
    assert may(node, XWING, 81) == "deny"


def test_no_peers_and_no_ports_selects_nothing_and_turns_on_default_deny() -> None:
    node = universe().node(policy("p", ingress=[clause(None)]))
    assert {may(node, ip) for name, ip in EVERYBODY.items() if name != "host"} == {"deny"}
    assert may(node, XWING, direction="egress") == "allow"


@pytest.mark.parametrize("ports", [(), (to(80),)])
def test_an_empty_list_of_peers_is_nobody(ports: tuple[ToPorts, ...]) -> None:
    node = universe().node(policy("p", ingress=[clause([], *ports)]))
    assert may(node, XWING) == may(node, WORLD) == "deny"


def test_an_empty_selector_of_a_namespace_is_everyone_in_it() -> None:
    assert reached(universe(), in_namespace("default")) == PODS - {"atat"}


def test_an_empty_selector_for_the_cluster_is_every_pod() -> None:
    assert reached(universe(), Selector.of([exists(NAMESPACE)])) == PODS


def test_peers_without_ports_are_allowed_on_all() -> None:
    node = universe().node(policy("p", ingress=[clause([having(org="alliance")])]))
    assert {may(node, XWING, what) for what in (80, "UDP/53", "SCTP/9", "ICMP/8")} == {"allow"}


def test_an_entry_of_no_ports_allows_nothing() -> None:
    node = universe().node(policy("p", ingress=[clause([having(org="alliance")], ToPorts())]))
    assert may(node, XWING) == "deny"


def test_a_service_with_a_selector_is_its_pods() -> None:
    galaxy = universe()
    galaxy.services = [service("fleet", selector={"org": "empire"})]
    assert reached(galaxy, ServicePeer("default", "fleet")) == {"deathstar", "tiefighter"}


def test_a_service_without_selector_is_the_addresses_of_its_backends() -> None:
    galaxy = universe()
    galaxy.services = [service("bank")]
    galaxy.slices = [*SERVERS, backends("bank", WORLD, WORLD6)]
    assert reached(galaxy, ServicePeer("default", "bank")) == {"world", "world6"}


def test_backends_that_are_pods_or_nodes_are_not_meant_by_their_addresses() -> None:
    galaxy = universe()
    galaxy.services, galaxy.slices = [service("bank")], [backends("bank", XWING.addresses[0], REMOTE)]
    assert reached(galaxy, ServicePeer("default", "bank")) == set()


def test_a_backend_that_neither_is_ready_nor_serves_is_not_meant() -> None:
    galaxy = universe()
    galaxy.services = [service("bank")]
    slow = Backend((WORLD,), ready=False, serving=False)
    galaxy.slices = [EndpointSlice("default", "bank-1", "bank", (slow, Backend((WORLD6,), ready=False, serving=True)))]
    assert reached(galaxy, ServicePeer("default", "bank")) == {"world6"}


def test_services_are_chosen_by_their_labels_in_any_namespace() -> None:
    galaxy = universe()
    galaxy.services = [
        service("fleet", selector={"org": "empire"}, kind="war"),
        service("walkers", namespace="hoth", selector={"craft": "walker"}, kind="war"),
        service("bank", selector={"org": "alliance"}, kind="trade"),
    ]
    assert reached(galaxy, ServicePeer("", "", having(kind="war"))) == {"deathstar", "tiefighter", "atat"}
    assert reached(galaxy, ServicePeer("hoth", "", having(kind="war"))) == {"atat"}


@pytest.mark.parametrize("ports", [(), (to(80),)])
def test_a_service_that_resolves_to_nothing_is_nobody_never_everybody(ports: tuple[ToPorts, ...]) -> None:
    galaxy = universe()
    galaxy.services = [service("empty")]
    node = galaxy.node(policy("p", egress=[clause([ServicePeer("default", "empty")], *ports)]))
    assert {may(node, ip, direction="egress") for ip in EVERYBODY.values()} == {"deny"}


def test_a_service_is_followed() -> None:
    galaxy = universe()
    rule = policy("p", egress=[clause([ServicePeer("", "bank")])])
    assert may(galaxy.node(rule), WORLD, direction="egress") == "deny"
    galaxy.services, galaxy.slices = [service("bank")], [backends("bank", WORLD)]
    assert may(galaxy.node(rule), WORLD, direction="egress") == "allow"
    galaxy.slices = [backends("bank", WORLD6)]
    node = galaxy.node(rule)
    assert may(node, WORLD, direction="egress") == "deny"
    assert may(node, WORLD6, direction="egress") == "allow"


# 2.4: entities


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("all", set(EVERYBODY)),
        ("world", OUTSIDE),
        ("world-ipv4", OUTSIDE - {"world6"}),
        ("world-ipv6", {"world6"}),
        ("cluster", set(EVERYBODY) - {"world", "world6"}),
        ("host", {"host"}),
        ("remote-node", {"remote", "api-node"}),
        ("kube-apiserver", {"api", "api-node"}),
        ("init", set()),
        ("ingress", set()),
        ("health", set()),
        ("unmanaged", set()),
        ("none", set()),
    ],
)
def test_entities(name: str, who: set[str]) -> None:
    assert reached(universe(), entity(name)) == who


def test_the_cluster_is_the_pods_of_this_cluster_by_its_name() -> None:
    galaxy = universe()
    galaxy.options = CompilerOptions(cluster="endor", node_name="here")
    galaxy.__post_init__()
    assert reached(galaxy, entity("cluster")) >= PODS


def test_the_reserved_identities_are_of_the_cluster_but_for_the_world() -> None:
    node = universe().node(policy("p", ingress=[clause([entity("cluster")])]))
    (found,) = (p for p in node.policies if "k8s:craft=deathstar" in p.labels)
    named = {i for port in found.ingress.ports for peer in port.peers for i in peer.identities if i < 256}
    assert named == {1, 3, 4, 5, 6, 7, 8}


def test_this_node_is_the_api_server_too_if_that_runs_here() -> None:
    galaxy = universe()
    galaxy.slices = [backends("kubernetes", HOST)]
    assert reached(galaxy, entity("kube-apiserver")) == {"host"}
    galaxy.slices = SERVERS
    assert reached(galaxy, entity("kube-apiserver")) == {"api", "api-node"}


def test_the_host_stays_the_host_while_the_api_server_comes_and_goes() -> None:
    galaxy = universe()
    rules = policy("p", egress=[clause([entity("host")]), clause([entity("kube-apiserver")], to(6443))])
    for slices in (SERVERS, [backends("kubernetes", HOST)], SERVERS, [backends("kubernetes", HOST)]):
        galaxy.slices = slices
        node = galaxy.node(rules)
        assert [may(node, ip, 80, direction="egress") for ip in (HOST, API_NODE)] == ["allow", "deny"]
        assert may(node, API_NODE, 6443, direction="egress") == ("allow" if slices is SERVERS else "deny")


def test_the_host_is_let_in_past_all_rules_while_the_api_server_comes_and_goes() -> None:
    """Rules for the API server are not the host's, which is the API server for a while."""
    galaxy = universe()
    asks = to(80, http=[HttpRule("GET", "", "", (), ())])
    rules = policy("p", ingress=[clause([entity("kube-apiserver")], asks), clause([entity("init")], to(81))])
    for slices in (SERVERS, [backends("kubernetes", HOST)], SERVERS):
        galaxy.slices = slices
        node = galaxy.node(rules)
        assert [may(node, HOST, port) for port in (80, 81, 82)] == ["allow"] * 3
        assert may(node, API_NODE, 80) == ("GET" if slices is SERVERS else "deny")


def test_whatever_is_not_the_host_is_everybody_else_and_the_world() -> None:
    assert reached(universe(), reserved("host", Operator.DOES_NOT_EXIST)) == set(EVERYBODY) - {"host"}


def test_an_empty_selector_is_a_wildcard_for_who_is_unknown_too() -> None:
    node = universe().node(policy("p", egress=[clause([Selector()])]))
    (found,) = (p for p in node.policies if "k8s:craft=deathstar" in p.labels)
    assert [[peer.is_wildcard for peer in port.peers] for port in found.egress.ports] == [[True]]


def test_nodes_are_chosen_by_their_labels_if_they_may_be() -> None:
    galaxy = universe()
    zone = Selector.of([exists("reserved:remote-node"), Requirement("any:zone", Operator.IN, ("a",))])
    assert reached(galaxy, zone) == set()
    galaxy.options = CompilerOptions(node_name="here", node_labels=True)
    galaxy.__post_init__()
    assert reached(galaxy, zone) == {"remote"}
    assert reached(galaxy, entity("remote-node")) == {"remote", "api-node"}
    assert reached(galaxy, entity("kube-apiserver")) == {"api", "api-node"}


# 2.5: numbers


@pytest.mark.parametrize(
    ("who", "identity"),
    [("host", 1), ("remote", 6), ("api-node", 7), ("world", 9), ("world6", 10), ("api", (1 << 24) + 1)],
)
def test_reserved_numbers_and_scopes(who: str, identity: int) -> None:
    assert identity_of(universe().node(), EVERYBODY[who]) == identity


def test_pods_are_numbered_from_256_and_nodes_with_labels_in_a_scope_of_their_own() -> None:
    galaxy = universe()
    galaxy.options = CompilerOptions(node_name="here", node_labels=True)
    galaxy.__post_init__()
    node = galaxy.node()
    assert {identity_of(node, pod.addresses[0]) for pod in SHIPS} == {256, 257, 258, 259}
    assert identity_of(node, REMOTE) == (2 << 24) + 1
    assert galaxy.identities.labels((2 << 24) + 1) == ("node:zone=a", "reserved:remote-node")
    assert identity_of(node, API_NODE) == 7


def test_in_single_stack_the_world_is_one() -> None:
    galaxy = universe()
    galaxy.options = CompilerOptions(node_name="here", ipv6=False)
    galaxy.__post_init__()
    assert identity_of(galaxy.node(), WORLD) == identity_of(galaxy.node(), WORLD6) == 2
    assert reached(galaxy, cidr("0.0.0.0/0", "203.0.113.0/24")) >= {"api"}
    assert "world" not in reached(galaxy, cidr("0.0.0.0/0", "203.0.113.0/24"))
    node = galaxy.node(policy("p", egress=[clause([cidr("203.0.113.0/24")])]))
    assert galaxy.identities.labels(identity_of(node, WORLD)) == ("cidr:203.0.113.0/24", "reserved:world")


def test_in_dual_stack_the_label_of_the_world_is_both_families() -> None:
    assert reached(universe(), reserved("world")) == OUTSIDE


# 2.6: prefixes


def test_every_prefix_is_an_address_with_its_label_and_the_worlds() -> None:
    galaxy = Galaxy()
    node = galaxy.node(policy("p", egress=[clause([cidr("172.16.0.0/12", "172.16.1.0/24"), cidr("fd00::/8")])]))
    found = {a.prefix: galaxy.identities.labels(a.identity) for a in node.addresses if a.identity >= 1 << 24}
    assert found == {
        "172.16.0.0/12": ("cidr:172.16.0.0/12", "reserved:world-ipv4"),
        "172.16.1.0/24": ("cidr:172.16.1.0/24", "reserved:world-ipv4"),
        "fd00::/8": ("cidr:fd00--0/8", "reserved:world-ipv6"),
    }


def test_a_prefix_goes_with_the_last_policy_that_speaks_of_it() -> None:
    galaxy = Galaxy()
    one, other = (policy(name, egress=[clause([cidr("172.16.0.0/12")])]) for name in "pq")
    known = [{a.prefix for a in galaxy.node(*made).addresses} for made in ((one, other), (other,), ())]
    assert ["172.16.0.0/12" in prefixes for prefixes in known] == [True, True, False]


def test_a_broad_prefix_means_the_narrower_ones_within_it() -> None:
    narrow = policy("narrow", having(org="nobody"), egress=[clause([cidr("172.16.1.0/24")])])
    node = Galaxy().node(policy("p", egress=[clause([cidr("172.16.0.0/12")])]), narrow)
    assert identity_of(node, "172.16.1.1") != identity_of(node, "172.16.2.1")
    assert may(node, "172.16.1.1", direction="egress") == may(node, "172.16.2.1", direction="egress") == "allow"
    assert may(node, "172.32.0.1", direction="egress") == "deny"


def test_excepts_are_left_out_and_what_another_rule_allows_of_them_is_not() -> None:
    node = Galaxy().node(
        policy("p", egress=[clause([cidr("172.16.0.0/12", "172.16.1.0/24")]), clause([cidr("172.16.1.9/32")])])
    )
    assert may(node, "172.16.2.1", direction="egress") == "allow"
    assert may(node, "172.16.1.1", direction="egress") == "deny"
    assert may(node, "172.16.1.9", direction="egress") == "allow"


@pytest.mark.parametrize(("prefix", "who"), [("0.0.0.0/0", {"world", "api"}), ("::/0", {"world6"})])
def test_zero_is_the_world_of_its_family(prefix: str, who: set[str]) -> None:
    galaxy = universe()
    assert reached(galaxy, cidr(prefix)) == who
    assert Address(prefix, 9 if prefix == "0.0.0.0/0" else 10) in galaxy.node().addresses


def test_the_world_means_every_prefix_too() -> None:
    node = Galaxy().node(
        policy("p", egress=[clause([entity("world")])]),
        policy("q", having(org="nobody"), egress=[clause([cidr("203.0.113.0/24")])]),
    )
    assert may(node, WORLD, direction="egress") == "allow"


@pytest.mark.parametrize("ip", [XWING.addresses[0], HOST, REMOTE, API_NODE])
def test_prefixes_never_mean_pods_or_nodes(ip: str) -> None:
    family = [cidr("0.0.0.0/0"), cidr(f"{ip}/32"), cidr("10.0.0.0/8"), cidr("192.0.0.0/8")]
    node = universe().node(policy("p", having(craft="deathstar"), egress=[clause(family)]))
    assert may(node, ip, direction="egress") == "deny"


def test_a_group_is_its_prefixes_and_they_inherit_its_labels() -> None:
    galaxy = universe()
    galaxy.groups = [CidrGroup("rim", {"far": "yes"}, ("172.16.0.0/12",)), CidrGroup("core", {}, ("203.0.113.0/24",))]
    by_name = Selector.of([exists("cidrgroup:io.cilium.policy.cidrgroupname/core")])
    assert reached(galaxy, CidrGroupPeer(by_name)) == {"world"}
    assert reached(galaxy, CidrGroupPeer(having(far="yes"))) == set()
    node = galaxy.node(policy("p", egress=[clause([cidr("172.16.1.0/24"), CidrGroupPeer(having(far="yes"))])]))
    assert galaxy.identities.labels(identity_of(node, "172.16.1.1")) == (
        "cidr:172.16.1.0/24",
        "cidrgroup:far=yes",
        "cidrgroup:io.cilium.policy.cidrgroupname/rim",
        "reserved:world-ipv4",
    )


def test_excepts_of_a_group_and_a_group_that_changes() -> None:
    galaxy = universe()
    rule = policy("p", egress=[clause([CidrGroupPeer(Selector(), ("203.0.113.0/28",))])])
    assert may(galaxy.node(rule), "203.0.113.99", direction="egress") == "deny"
    galaxy.groups = [CidrGroup("core", {}, ("203.0.113.0/24",))]
    node = galaxy.node(rule)
    assert may(node, "203.0.113.99", direction="egress") == "allow"
    assert may(node, WORLD, direction="egress") == "deny"


def test_an_api_server_outside_of_nodes_is_of_the_world_and_has_its_label() -> None:
    galaxy = universe()
    labels = galaxy.identities.labels(identity_of(galaxy.node(), API))
    assert labels == (f"cidr:{API}/32", "reserved:kube-apiserver", "reserved:world-ipv4")
    assert {"api"} <= reached(galaxy, entity("world"))


def test_numbers_of_prefixes_survive_a_restart() -> None:
    galaxy = Galaxy()
    rule = policy("p", egress=[clause([cidr("172.16.0.0/12"), cidr("172.17.0.0/16")])])
    before = galaxy.node(rule).addresses
    again = Galaxy(identities=type(galaxy.identities).from_dict(galaxy.identities.to_dict()))
    assert again.node(rule).addresses == before


def test_pods_of_a_namespace_are_chosen_by_the_labels_of_it() -> None:
    assert reached(universe(), having(**{"io.cilium.k8s.namespace.labels.side": "cold"})) == {"atat"}
