"""Groups: one that cannot be compiled hurts only itself; what is shared, and what stays the same object."""

from __future__ import annotations

from policies.compiling.identity import IdentityAllocator, Scope
from policies.errors import Reason
from policies.ir import EndpointPolicy, NodePolicy, ServiceAddress
from policies.objects import Backend, EndpointSlice, Pod, Service, ServicePort
from policies.rules import Policy
from policies.selectors import Selector, exists
from policies.types import IDENTITY_FIRST_LOCAL, IDENTITY_LAST_LOCAL, Direction, Protocol
from tests.policies.language import (
    DEATHSTAR,
    NAMESPACE,
    SHIPS,
    TIE,
    XWING,
    Galaxy,
    backends,
    cidr,
    clause,
    having,
    identity_of,
    may,
    policy,
    ship,
    to,
)

CROWD = [ship(f"drone-{i}", f"10.8.{i // 250}.{i % 250 + 1}", craft="drone", serial=f"n{i}") for i in range(1001)]


def too_much() -> Policy:
    """A thousand ports, each for a thousand identities."""
    ports = [to(*range(2 * n, 2 * n + 80, 2)) for n in range(100, 1141, 40)]
    return policy("crowded", having(craft="deathstar"), ingress=[clause([having(craft="drone")], *ports)])


def of(node: NodePolicy, pod: Pod) -> EndpointPolicy:
    group = identity_of(node, pod.addresses[0])
    return next(policy for policy in node.policies if policy.group == group)


def test_a_group_that_cannot_be_merged_keeps_its_last_good_policy_and_no_other_notices() -> None:
    galaxy = Galaxy([*SHIPS, *CROWD])
    good = policy("good", ingress=[clause([having(org="empire")], to(80))])
    before = galaxy.node(good)
    compiled = galaxy.compile(good, too_much())
    (error,) = compiled.errors
    assert (error.kind, error.reason, error.path) == ("Group", Reason.TOO_MANY, Direction.INGRESS)
    assert "crowded" in error.message
    assert of(compiled.node, DEATHSTAR) is of(before, DEATHSTAR)
    assert (may(compiled.node, TIE), may(compiled.node, XWING)) == ("allow", "deny")
    assert may(compiled.node, TIE, at=XWING) == "allow"
    assert galaxy.compile(good, too_much()).errors == compiled.errors
    assert not galaxy.compile(good).errors


def test_a_group_that_never_had_a_good_policy_is_denied() -> None:
    galaxy = Galaxy([*SHIPS, *CROWD])
    compiled = galaxy.compile(too_much())
    assert compiled.errors
    assert may(compiled.node, CROWD[0], 200) == may(compiled.node, TIE) == "deny"
    assert may(compiled.node, TIE, at=XWING) == "allow"


def test_it_recovers_by_itself_when_there_are_fewer_peers() -> None:
    galaxy = Galaxy([*SHIPS, *CROWD])
    assert galaxy.compile(too_much()).errors
    galaxy.pods = [*SHIPS, *CROWD[:900]]
    node = galaxy.node(too_much())
    assert (may(node, CROWD[0], 200), may(node, TIE, 200)) == ("allow", "deny")


def test_groups_with_the_same_rules_share_what_is_merged() -> None:
    node = Galaxy().node(policy("p", ingress=[clause([having(org="empire")], to(80))]))
    assert len({id(policy.ingress) for policy in node.policies}) == 1


def test_only_groups_that_a_change_concerns_get_another_policy() -> None:
    galaxy = Galaxy()
    rules = [
        policy("empire", having(org="empire"), ingress=[clause([having(org="empire")], to(80))]),
        policy("alliance", having(org="alliance"), ingress=[clause([having(org="alliance")], to(80))]),
    ]
    before = galaxy.node(*rules)
    galaxy.pods = [*SHIPS, ship("awing", "10.0.0.9", org="alliance", craft="awing")]
    after = galaxy.node(*rules)
    assert of(after, DEATHSTAR) is of(before, DEATHSTAR)
    assert of(after, XWING) is not of(before, XWING)
    assert may(after, "10.0.0.9", at=XWING) == "allow"
    galaxy.pods = SHIPS
    assert of(galaxy.node(*rules), XWING) == of(before, XWING)


def test_many_identities_at_once_are_merged_as_one_by_one() -> None:
    rules = policy("p", ingress=[clause([Selector.of([exists(NAMESPACE)])], to(80)), clause([having(craft="drone")])])
    slow, fast = Galaxy(), Galaxy()
    slow.node(rules)
    for count in (200, 400, 700):  # fewer than are moved one by one, and more
        slow.pods = [*SHIPS, *CROWD[:count]]
        slow.node(rules)
    fast.pods = slow.pods
    fast.identities = IdentityAllocator.from_dict(slow.identities.to_dict())
    fast.__post_init__()
    assert fast.node(rules) == slow.node(rules)


def test_a_service_is_who_all_its_backends_are() -> None:
    galaxy = Galaxy()
    port = ServicePort("", Protocol.TCP, 80)
    galaxy.services = [Service("default", "bank", ("10.96.0.1",), (port,))]
    galaxy.slices = [
        EndpointSlice("default", "bank-1", "bank", (Backend(("203.0.113.7",)),), {("", Protocol.TCP): 8080})
    ]

    def behind(*policies: Policy) -> tuple[ServiceAddress, ...]:
        return galaxy.node(*policies).services

    assert behind() == (ServiceAddress("10.96.0.1", 80, Protocol.TCP, 9, 8080),)
    (found,) = behind(policy("p", egress=[clause([cidr("203.0.113.0/24")])]))
    assert found.identity == (1 << 24) + 1
    assert behind() == (ServiceAddress("10.96.0.1", 80, Protocol.TCP, 9, 8080),)
    galaxy.pods = [*SHIPS, ship("vault", "203.0.113.7", craft="vault")]
    (found,) = behind()
    assert found.identity == identity_of(galaxy.node(), "203.0.113.7")
    galaxy.slices = [*galaxy.slices, backends("other", "203.0.113.9")]
    assert galaxy.node().services == (found,)
    galaxy.slices = []
    assert behind() == (ServiceAddress("10.96.0.1", 80, Protocol.TCP, 0, 0),)
    galaxy.services = []
    assert behind() == ()


def test_when_all_numbers_of_prefixes_are_taken_a_prefix_is_nobody() -> None:
    room = IdentityAllocator(behind={Scope.LOCAL: IDENTITY_LAST_LOCAL - 2})
    galaxy = Galaxy(identities=room)
    few = policy("few", egress=[clause([cidr("172.16.0.0/12", "172.16.1.0/24")])])
    assert not galaxy.compile(few).errors
    many = policy("many", having(org="nobody"), egress=[clause([cidr("172.16.2.0/24")])])
    compiled = galaxy.compile(few, many)
    assert [(error.kind, error.name, error.reason) for error in compiled.errors] == [
        ("CIDR", "172.16.2.0/24", Reason.NO_IDENTITY)
    ]
    asked = ("172.16.3.1", "172.16.1.1", "172.16.2.1")
    assert [may(compiled.node, ip, direction="egress") for ip in asked] == ["allow", "deny", "deny"]
    assert [may(galaxy.node(few), ip, direction="egress") for ip in asked] == ["allow", "deny", "allow"]
    assert not galaxy.compile(many).errors


def test_of_many_prefixes_without_a_number_some_are_named_and_the_rest_counted() -> None:
    room = IdentityAllocator(behind={Scope.LOCAL: IDENTITY_LAST_LOCAL - 1})
    hostile = policy("hostile", egress=[clause([cidr(*(f"172.16.{i}.0/24" for i in range(200)))])])
    errors = Galaxy(identities=room).compile(hostile).errors
    assert len(errors) < 20
    assert any(error.name.endswith(" more") for error in errors)


def test_what_an_earlier_agent_had_and_nobody_speaks_of_is_given_back() -> None:
    taken = {str(number): [f"cidr:{number}"] for number in range(IDENTITY_FIRST_LOCAL, IDENTITY_LAST_LOCAL + 1)}
    galaxy = Galaxy(identities=IdentityAllocator.from_dict({"identities": taken}))
    assert not galaxy.compile(policy("p", egress=[clause([cidr("172.16.0.0/12")])])).errors
