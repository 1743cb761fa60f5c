"""What is decided: one test for each row of facts 3.1 to 3.6."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.compiling.compiler import CompilerOptions
from policies.compiling.enforcement import AllowLocalhost, Enforcement, mode_for
from policies.ir import HeaderAction, HttpRule, Mismatch, NodePolicy, PolicyLog, Verdict
from policies.rules import Clause, Policy
from policies.selectors import Selector
from policies.types import Direction, Origin, PortRange, Protocol
from tests.policies.language import (
    DEATHSTAR,
    GET,
    HOST,
    POST,
    SHIPS,
    TIE,
    XWING,
    Galaxy,
    answer_of,
    cidr,
    clause,
    entity,
    having,
    identity_of,
    may,
    policy,
    reserved,
    ship,
    to,
)

EMPIRE, ALLIANCE, TIES = having(org="empire"), having(org="alliance"), having(craft="tiefighter")
WORLD, ANY = "203.0.113.1", HttpRule()


def rule(*clauses: Clause, name: str = "p", enforces: tuple[Direction, ...] | None = None) -> Policy:
    """A policy of the death star's ingress."""
    return policy(name, having(craft="deathstar"), ingress=clauses, enforces=enforces)


def node(*policies: Policy, **options: object) -> NodePolicy:
    return Galaxy(options=CompilerOptions(**options)).node(*policies)  # type: ignore[arg-type]


def why(found: NodePolicy, ip: str, port: int = 80, direction: Direction = Direction.INGRESS) -> list[str]:
    """Who decided, in words."""
    group = next(e.group for e in found.endpoints if e.name == DEATHSTAR.name)
    answer = answer_of(found, group, direction, (identity_of(found, ip), Protocol.TCP, port))
    return sorted(map(str, answer.origins))


# 3.1: modes, and the node itself


def test_by_default_a_direction_is_enforced_once_a_rule_selects_the_endpoint() -> None:
    found = node(rule(clause([EMPIRE])))
    assert (may(found, TIE), may(found, XWING), may(found, XWING, direction="egress")) == ("allow", "deny", "allow")
    assert may(found, XWING, at=TIE) == "allow"


def test_a_deny_alone_turns_enforcement_on_as_well() -> None:
    found = node(rule(clause([ALLIANCE], deny=True)))
    assert (may(found, XWING), may(found, TIE)) == ("deny", "deny")


def test_always_enforces_both_directions_of_everybody() -> None:
    found = node(policy_enforcement=Enforcement.ALWAYS)
    assert {may(found, XWING, at=pod, direction=d) for pod in SHIPS for d in Direction} == {"deny"}
    assert may(found, HOST) == "allow"


def test_never_enforces_nothing_and_proxies_nothing() -> None:
    rules = rule(clause([EMPIRE], to(80, http=[GET])), clause(None, to(80), deny=True))
    found = node(rules, policy_enforcement=Enforcement.NEVER)
    assert (may(found, TIE), may(found, XWING)) == ("allow", "allow")
    assert not any(policy.ingress.enforced for policy in found.policies)


@pytest.mark.parametrize("mode", [Enforcement.DEFAULT, Enforcement.ALWAYS])
def test_endpoints_in_their_making_are_always_enforced_but_not_if_nobody_is(mode: Enforcement) -> None:
    assert mode_for(("reserved:init",), mode) is Enforcement.ALWAYS
    assert mode_for(("reserved:init",), Enforcement.NEVER) is Enforcement.NEVER
    assert mode_for(("k8s:app=a",), mode) is mode


@pytest.mark.parametrize("option", [AllowLocalhost.AUTO, AllowLocalhost.ALWAYS])
def test_the_node_is_let_in_and_not_judged(option: AllowLocalhost) -> None:
    found = node(rule(clause(None, to(80, http=[GET]))), allow_localhost=option)
    assert (may(found, HOST), may(found, HOST, 81), may(found, TIE)) == ("allow", "allow", "GET")
    assert why(found, HOST) == ["deflector allow-localhost"]


def test_the_node_needs_a_rule_like_anybody_else_if_policy_says_so() -> None:
    found = node(rule(clause([reserved("host")], to(80))), allow_localhost=AllowLocalhost.POLICY)
    assert (may(found, HOST), may(found, HOST, 81)) == ("allow", "deny")


def test_a_deny_keeps_the_node_out_too() -> None:
    found = node(rule(clause([entity("host")], to(80), deny=True), clause(None, to(22), deny=True)))
    assert [may(found, HOST, port) for port in (80, 22, 81)] == ["deny", "deny", "allow"]


# 3.2: enableDefaultDeny


def test_policies_that_enforce_nothing_allow_what_they_do_not_speak_of() -> None:
    found = node(rule(clause([EMPIRE], to(80)), enforces=()))
    assert (may(found, TIE), may(found, XWING), may(found, XWING, 81)) == ("allow", "allow", "allow")
    assert why(found, XWING.addresses[0]) == ["deflector default-allow"]
    assert why(found, TIE.addresses[0]) == ["CiliumClusterwideNetworkPolicy p spec.ingress[0]"]


def test_their_denials_still_bite() -> None:
    found = node(rule(clause([ALLIANCE], to(80), deny=True), enforces=()))
    assert (may(found, XWING), may(found, XWING, 81), may(found, TIE)) == ("deny", "allow", "allow")


def test_another_policy_that_enforces_ends_that() -> None:
    found = node(rule(clause([EMPIRE], to(80)), enforces=()), rule(clause([ALLIANCE], to(81)), name="q"))
    assert [may(found, who, port) for who in (TIE, XWING) for port in (80, 81)] == ["allow", "deny", "deny", "allow"]


def test_their_requests_are_seen_and_none_is_refused() -> None:
    found = node(rule(clause([EMPIRE], to(80, http=[GET])), enforces=()))
    assert (may(found, TIE), may(found, XWING)) == ("GET *", "allow")
    both = node(rule(clause([EMPIRE], to(80, http=[GET])), enforces=()), rule(clause([ALLIANCE]), name="q"))
    assert (may(both, TIE), may(both, XWING), may(both, TIE, 81)) == ("GET *", "allow", "deny")


def test_one_direction_may_be_enforced_and_the_other_not() -> None:
    made = policy("p", ingress=[clause([EMPIRE])], egress=[clause([EMPIRE])], enforces=[Direction.EGRESS])
    found = node(made)
    assert (may(found, XWING), may(found, XWING, direction="egress")) == ("allow", "deny")


def test_a_policy_that_neither_enforces_nor_says_anything_changes_nothing() -> None:
    found = node(rule(clause([]), enforces=()))
    assert not any(policy.ingress.enforced for policy in found.policies)


# 3.3: deny


def test_a_denied_peer_is_denied_on_every_port_and_protocol() -> None:
    found = node(rule(clause([Selector()]), clause([ALLIANCE], deny=True)))
    assert {may(found, XWING, what) for what in (80, "UDP/53", "SCTP/1", "ICMP/8", "ICMPV6/128")} == {"deny"}
    assert may(found, TIE) == "allow"


def test_a_denied_port_is_denied_to_everybody() -> None:
    found = node(rule(clause([EMPIRE]), clause(None, to(80), deny=True)))
    assert {may(found, who) for who in (TIE, XWING, WORLD)} == {"deny"}
    assert may(found, TIE, 81) == "allow"


def test_deny_wins_however_specific_the_allow() -> None:
    found = node(rule(clause([TIES], to(80, http=[GET])), clause([EMPIRE], to("1-100"), deny=True)))
    assert (may(found, TIE), may(found, TIE, 101)) == ("deny", "deny")
    broad = node(rule(clause([TIES], to(80)), clause([entity("all")], deny=True)))
    assert may(broad, TIE) == "deny"


def test_denying_one_port_of_an_allowed_peer_blocks_only_that() -> None:
    found = node(rule(clause([EMPIRE]), clause([EMPIRE], to(80), deny=True)))
    assert (may(found, TIE, 80), may(found, TIE, 81)) == ("deny", "allow")


def test_denied_prefixes_within_allowed_ones() -> None:
    allow, deny = clause([cidr("172.16.0.0/12")]), clause([cidr("172.16.1.0/24")], deny=True)
    found = node(policy("p", egress=[allow, deny]))
    assert [may(found, ip, direction="egress") for ip in ("172.16.2.1", "172.16.1.1")] == ["allow", "deny"]
    world = node(policy("p", egress=[clause([entity("all")]), clause([cidr("172.16.0.0/12")], deny=True)]))
    assert [may(world, ip, direction="egress") for ip in ("172.16.1.1", WORLD)] == ["deny", "allow"]


def test_who_denied_is_known_and_who_would_have_allowed_is_not_blamed() -> None:
    found = node(
        rule(clause([EMPIRE], to(80)), clause([TIES], deny=True), clause(None, to(80), deny=True)),
        rule(clause([EMPIRE], to(80), deny=True), name="q"),
    )
    names = ["p spec.ingressDeny[1]", "p spec.ingressDeny[2]", "q spec.ingressDeny[0]"]
    assert why(found, TIE.addresses[0]) == [f"CiliumClusterwideNetworkPolicy {name}" for name in names]
    assert why(found, WORLD) == ["CiliumClusterwideNetworkPolicy p spec.ingressDeny[2]"]


# 3.4: ports


def test_any_with_a_port_is_every_protocol_that_has_ports() -> None:
    found = node(rule(clause([EMPIRE], to(80, protocol=Protocol.ANY))))
    verdicts = [may(found, TIE, f"{name}/80") for name in ("TCP", "UDP", "SCTP", "ICMP")]
    assert verdicts == ["allow", "allow", "allow", "deny"]


def test_any_with_port_zero_is_everything() -> None:
    found = node(rule(clause([EMPIRE], to(0, protocol=Protocol.ANY))))
    assert {may(found, TIE, what) for what in (1, "UDP/1", "ICMP/8")} == {"allow"}


def test_tcp_with_port_zero_is_every_port_of_tcp() -> None:
    found = node(rule(clause([EMPIRE], to(0))))
    assert [may(found, TIE, what) for what in (0, 65535, "UDP/80")] == ["allow", "allow", "deny"]


def test_ranges_include_both_ends_and_overlap_as_they_like() -> None:
    found = node(rule(clause([EMPIRE], to("80-90")), clause([ALLIANCE], to("85-100"))))
    assert [may(found, TIE, port) for port in (79, 80, 90, 91)] == ["deny", "allow", "allow", "deny"]
    assert [may(found, XWING, port) for port in (84, 85, 100, 101)] == ["deny", "allow", "allow", "deny"]


def test_the_port_of_icmp_is_its_type() -> None:
    ping = to(8, protocol=Protocol.ICMP)
    found = node(rule(clause([EMPIRE], ping), clause([ALLIANCE], to(128, protocol=Protocol.ICMPV6))))
    assert [may(found, TIE, what) for what in ("ICMP/8", "ICMP/0", "ICMPV6/8", 8)] == ["allow", "deny", "deny", "deny"]
    assert may(found, XWING, "ICMPV6/128") == "allow"


def test_a_name_in_ingress_is_a_port_of_the_pod_itself() -> None:
    found = node(policy("p", ingress=[clause([EMPIRE, ALLIANCE], to("http"))]))
    assert [may(found, XWING, port) for port in (80, 8080)] == ["allow", "deny"]
    assert [may(found, XWING, port, at=TIE) for port in (80, 8080)] == ["deny", "allow"]


def test_a_name_in_egress_is_a_port_of_each_peer() -> None:
    found = node(policy("p", egress=[clause([Selector()], to("http"))]))
    assert [may(found, TIE, port, direction="egress") for port in (80, 8080)] == ["deny", "allow"]
    assert [may(found, XWING, port, direction="egress") for port in (80, 8080)] == ["allow", "deny"]
    assert may(found, WORLD, 80, direction="egress") == "deny"


def test_a_name_that_nobody_has_is_skipped() -> None:
    found = node(rule(clause(None, to("missing")), clause([EMPIRE], to("missing", 81))))
    assert (may(found, TIE, 80), may(found, TIE, 81), may(found, XWING, 81)) == ("deny", "allow", "deny")


def test_a_name_of_another_protocol_is_another_name() -> None:
    found = node(rule(clause(None, to("http", protocol=Protocol.UDP))))
    assert (may(found, TIE, 80), may(found, TIE, "UDP/80")) == ("deny", "deny")


def test_a_denied_name_and_requests_at_a_name() -> None:
    found = node(rule(clause(None, to("admin"), deny=True), clause([EMPIRE], to("http", http=[GET])), clause([TIES])))
    assert [may(found, TIE, port) for port in (80, 8000, 81)] == ["GET *", "deny", "allow"]


def test_names_are_followed_as_pods_come_and_change() -> None:
    galaxy = Galaxy()
    rules = policy("p", egress=[clause([EMPIRE, ALLIANCE], to("http"))])
    assert may(galaxy.node(rules), TIE, 8080, direction="egress") == "allow"
    moved = replace(TIE, ports={("http", Protocol.TCP): 9090})
    galaxy.pods = [moved if pod is TIE else pod for pod in SHIPS]
    found = galaxy.node(rules)
    assert [may(found, TIE, port, direction="egress") for port in (8080, 9090)] == ["deny", "allow"]
    galaxy.pods = [DEATHSTAR, moved]
    assert may(galaxy.node(rules), TIE, 80, direction="egress") == "deny"


def test_replicas_that_disagree_on_a_name_share_its_numbers() -> None:
    galaxy = Galaxy()
    other = ship("deathstar-2", "10.0.0.9", org="empire", craft="deathstar", ports={"http": 81})
    galaxy.pods = [*SHIPS, other]
    found = galaxy.node(rule(clause(None, to("http"))))
    assert [may(found, XWING, port) for port in (80, 81, 82)] == ["allow", "allow", "deny"]


def test_a_peer_is_named_once_where_all_protocols_say_the_same() -> None:
    found = node(rule(clause([EMPIRE]), clause([ALLIANCE], to(80))))
    (merged,) = (p for p in found.policies if "k8s:craft=deathstar" in p.labels)
    everywhere, http = merged.ingress.ports
    assert (http.protocol, http.ports) == (Protocol.TCP, PortRange(80, 80))
    assert [set(peer.identities) for peer in http.peers] == [{identity_of(found, XWING.addresses[0])}]
    assert len(everywhere.peers) == 2  # the node, and the empire


# 3.5 and 3.6: several rules for one port and peer


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param(clause([TIES], to(80), deny=True), clause([TIES], to(80, http=[GET])), "deny", id="deny + L7"),
        pytest.param(clause([TIES], to(80, http=[GET])), clause([TIES], to(80)), "GET *", id="L7 + the same without"),
        pytest.param(clause([TIES], to(80, http=[GET])), clause(None, to(80)), "GET *", id="L7 + any peer"),
        pytest.param(clause(None, to(80, http=[GET])), clause([TIES]), "GET *", id="any peer L7 + the peer, no ports"),
        pytest.param(clause([TIES], to(80, http=[GET])), clause([EMPIRE], to(80)), "GET *", id="another label, no L7"),
        pytest.param(clause([TIES], to(80, http=[GET])), clause([EMPIRE], to(80, http=[POST])), "GET POST", id="union"),
        pytest.param(clause([TIES], to(80, http=[GET])), clause([TIES], to(8080)), "GET", id="another port"),
        pytest.param(clause([TIES], to("80-90", http=[GET])), clause([TIES], to(85)), "GET", id="a port in a range"),
        pytest.param(clause([TIES], to(80, http=[GET])), clause([TIES], deny=True), "deny", id="L7 + denied peer"),
        pytest.param(clause([TIES], to(80, http=[GET])), clause([entity("cluster")]), "GET *", id="L7 + entity"),
        pytest.param(clause([TIES], to(80, http=[GET])), clause([TIES], to(80, http=[GET])), "GET", id="twice"),
        pytest.param(clause([TIES], to(80, http=[ANY])), clause([TIES], to(80, http=[GET])), "GET any", id="{}"),
    ],
)
def test_two_rules_for_one_peer(one: Clause, other: Clause, expected: str) -> None:
    for made in (rule(one, other), rule(other, one)):
        assert may(node(made), TIE) == expected
    assert may(node(rule(one), rule(other, name="q")), TIE) == expected


def test_an_exact_port_within_a_judged_range_is_open() -> None:
    found = node(rule(clause([TIES], to("80-90", http=[GET])), clause([TIES], to(85))))
    assert [may(found, TIE, port) for port in (84, 85, 86)] == ["GET", "GET *", "GET"]


def test_who_voids_a_rule_is_known() -> None:
    found = node(rule(clause([TIES], to(80, http=[GET])), clause([EMPIRE])))
    group = next(e.group for e in found.endpoints if e.name == DEATHSTAR.name)
    answer = answer_of(found, group, Direction.INGRESS, (identity_of(found, "10.0.0.2"), Protocol.TCP, 80))
    assert answer.verdict is Verdict.REDIRECT
    assert [origin.path for origin in answer.wildcard] == ["spec.ingress[1]"]


def test_rules_that_do_something_with_headers_stay_under_a_wildcard() -> None:
    marked = HttpRule(header_actions=(HeaderAction("x-empire", Mismatch.ADD, "1"),))
    found = node(rule(clause([TIES], to(80, http=[marked])), clause(None, to(80))))
    (merged,) = (p for p in found.policies if "k8s:craft=deathstar" in p.labels)
    kept = [
        rule for port in merged.ingress.ports for peer in port.peers if peer.rule_set for rule in peer.rule_set.http
    ]
    assert [rule.header_actions for rule in kept] == [marked.header_actions]


def test_rules_with_and_without_header_actions_are_two_rules() -> None:
    marked = HttpRule(method="GET", header_actions=(HeaderAction("x-empire", Mismatch.LOG),))
    assert may(node(rule(clause([TIES], to(80, http=[marked])), clause([TIES], to(80, http=[GET])))), TIE) == "GET GET"


def test_what_an_author_wants_to_read_in_flows_comes_with_the_clause() -> None:
    made = policy("p", ingress=[clause([EMPIRE])], egress=[clause([EMPIRE], deny=True)], log="rebels?")
    kind = "CiliumClusterwideNetworkPolicy"
    assert Galaxy().node(made).logs == (
        PolicyLog(Origin(kind, "", "p", "spec.egressDeny[0]"), "rebels?"),
        PolicyLog(Origin(kind, "", "p", "spec.ingress[0]"), "rebels?"),
    )
    assert Galaxy().node().logs == ()
