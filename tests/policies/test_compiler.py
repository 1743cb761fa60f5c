"""The compiler: what is reused, what is denied when something is wrong, and that history leaves no trace."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.compiling.compiler import Compiler, CompilerOptions
from policies.compiling.identity import IdentityAllocator
from policies.errors import Reason
from policies.ir import Address, EndpointPolicy, PeerRule, Verdict
from policies.objects import PodKey
from policies.types import Protocol
from tests.policies.kernel import verdict
from tests.policies.make import HOST, Node, peers, pod, policy, to_ports
from tests.policies.worlds import PODS, policies

DEATHSTAR = pod("deathstar", "10.0.0.1", org="empire", craft="deathstar")
TIE = pod("tiefighter", "10.0.0.2", org="empire", craft="tiefighter")
XWING = pod("xwing", "10.0.0.3", org="alliance", craft="xwing")
SHIPS = (DEATHSTAR, TIE, XWING)


def rule(name: str, *who: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return policy(name, subject={"craft": "deathstar"}, ingress=[{"fromEndpoints": peers(*who), **fields}])


def deathstar(node: Node) -> EndpointPolicy:
    compiled = node.compile().node
    group = next(endpoint.group for endpoint in compiled.endpoints if endpoint.name == "deathstar")
    return next(policy for policy in compiled.policies if policy.group == group)


def who_gets_in(node: Node, port: int = 80) -> dict[str, Verdict]:
    compiled = node.compile().node
    groups = {endpoint.name: endpoint.group for endpoint in compiled.endpoints}
    ingress = deathstar(node).ingress
    return {name: verdict(ingress, group, Protocol.TCP, port)[0] for name, group in groups.items()}


OPEN, SHUT = Verdict.ALLOW, Verdict.DENY


def test_pods_with_equal_labels_share_a_policy_group() -> None:
    node = Node()
    node.apply(*SHIPS, pod("deathstar-2", "10.0.0.9", org="empire", craft="deathstar", pod_template_hash="1"))
    compiled = node.compile().node
    groups = [e.group for e in compiled.endpoints]
    assert len(groups) == 4
    assert len(set(groups)) == len(compiled.policies) == 3


def test_only_pods_of_this_node_get_a_policy_but_all_get_an_address() -> None:
    node = Node(local={PodKey("default", "xwing"): 7})
    node.apply(*SHIPS)
    compiled = node.compile().node
    assert [(e.id, e.name) for e in compiled.endpoints] == [(7, "xwing")]
    assert len(compiled.policies) == 1
    assert {a.prefix for a in compiled.addresses} >= {"10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "0.0.0.0/0", "::/0"}


def test_a_local_pod_that_nobody_knows_is_an_error() -> None:
    node = Node(local={PodKey("default", "ghost"): 7})
    node.apply(*SHIPS)
    (error,) = node.compile().errors
    assert (error.reason, error.name) == (Reason.UNKNOWN_POD, "ghost")


def test_a_policy_without_last_good_version_denies_whom_it_selects() -> None:
    node = Node()
    node.apply(*SHIPS, rule("bad", {"org": "empire"}, toPorts=[to_ports("80", http=[{"path": "["}])]))
    assert who_gets_in(node) == {"deathstar": SHUT, "tiefighter": SHUT, "xwing": SHUT}
    found, entry = verdict(deathstar(node).ingress, node.group("xwing"), Protocol.TCP, 80)
    assert entry is not None
    assert str(entry.origins[0]) == "deflector invalid-policy default/bad"
    assert found is SHUT
    assert verdict(deathstar(node).ingress, 1, Protocol.TCP, 80)[0] is OPEN  # the node itself
    assert not deathstar(node).egress.enforced


def test_a_bad_policy_takes_nothing_from_the_good_ones() -> None:
    node = Node()
    node.apply(*SHIPS, rule("good", {"org": "empire"}), rule("bad", {"org": "alliance"}, oops=[]))
    assert who_gets_in(node) == {"deathstar": OPEN, "tiefighter": OPEN, "xwing": SHUT}
    node.apply(*SHIPS, rule("good", {"org": "empire"}), rule("bad", {"org": "alliance"}))
    assert who_gets_in(node) == {"deathstar": OPEN, "tiefighter": OPEN, "xwing": OPEN}
    node.apply(*SHIPS, rule("good", {"org": "empire"}, oops=[]), rule("bad", {"org": "alliance"}))
    assert who_gets_in(node) == {"deathstar": OPEN, "tiefighter": OPEN, "xwing": OPEN}


def test_an_edit_leaves_other_groups_untouched() -> None:
    node = Node()
    other = policy("other", subject={"craft": "xwing"}, ingress=[{"fromEndpoints": peers({"org": "empire"})}])
    node.apply(*SHIPS, rule("r", {"org": "empire"}), other)
    before = {p.group: p for p in node.compile().node.policies}
    node.apply(*SHIPS, rule("r", {"org": "alliance"}), other)
    after = {p.group: p for p in node.compile().node.policies}
    changed = [group for group in after if after[group] is not before[group]]
    assert changed == [deathstar(node).group]


def test_a_new_peer_reaches_the_rules_that_select_it() -> None:
    node = Node()
    node.apply(*SHIPS, rule("r", {"org": "empire"}))
    node.compile()
    node.apply(*SHIPS, rule("r", {"org": "empire"}), pod("shuttle", "10.0.0.8", org="empire", craft="shuttle"))
    assert who_gets_in(node)["shuttle"] is OPEN
    node.apply(*SHIPS, rule("r", {"org": "empire"}), pod("shuttle", "10.0.0.8", org="stolen", craft="shuttle"))
    assert who_gets_in(node)["shuttle"] is SHUT


def test_namespace_labels_are_followed() -> None:
    def namespace(**labels: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": labels}}

    dark = {"io.cilium.k8s.namespace.labels.side": "dark"}
    node = Node()
    node.apply(*SHIPS, rule("r", dark), namespace(side="dark"))
    assert who_gets_in(node)["xwing"] is OPEN
    node.apply(*SHIPS, rule("r", dark), namespace(side="light"))
    assert who_gets_in(node)["xwing"] is SHUT


def test_two_pods_on_one_address_are_nobody() -> None:
    node = Node()
    node.apply(*SHIPS, pod("impostor", "10.0.0.2", org="alliance"))
    compiled = node.compile()
    assert [(e.reason, e.name) for e in compiled.errors] == [(Reason.ADDRESS_CONFLICT, "tiefighter")]
    assert Address("10.0.0.2/32", 3) in compiled.node.addresses


def test_a_pod_cannot_take_the_address_of_the_node() -> None:
    node = Node()
    node.apply(pod("impostor", HOST[0]))
    compiled = node.compile()
    assert [e.reason for e in compiled.errors] == [Reason.ADDRESS_CONFLICT]
    assert Address(f"{HOST[0]}/32", 1) in compiled.node.addresses


def test_host_network_pods_are_their_node() -> None:
    here, there = pod("here", "192.0.2.5"), pod("there", "192.0.2.6")
    here["spec"], there["spec"] = ({"hostNetwork": True, "nodeName": name} for name in ("me", "you"))
    node = Node()
    node.compiler = Compiler(node.identities, CompilerOptions(node_name="me"))
    node.apply(here, there)
    assert {Address("192.0.2.5/32", 1), Address("192.0.2.6/32", 6)} <= set(node.compile().node.addresses)


def test_without_a_number_left_a_pod_is_denied_and_its_address_is_nobodys() -> None:
    node = Node(identities=IdentityAllocator(256, 257))
    node.apply(*SHIPS)
    compiled = node.compile()
    assert [error.reason for error in compiled.errors] == [Reason.NO_IDENTITY]
    (unmanaged,) = (policy for policy in compiled.node.policies if policy.group == 3)
    assert unmanaged.ingress.enforced
    assert not unmanaged.ingress.ports
    node.apply(DEATHSTAR, XWING)
    assert not node.compile().errors


def test_a_pod_whose_labels_cannot_be_read_is_denied_until_they_can() -> None:
    node = Node()
    unreadable = pod("xwing", "10.0.0.3")
    unreadable["metadata"]["labels"] = ["org=alliance"]
    node.apply(DEATHSTAR, unreadable)
    compiled = node.compile().node
    assert [endpoint.group for endpoint in compiled.endpoints if endpoint.name == "xwing"] == [3]
    (unmanaged,) = (policy for policy in compiled.policies if policy.group == 3)
    assert unmanaged.ingress.enforced
    assert unmanaged.egress.enforced
    node.apply(DEATHSTAR, XWING)
    assert node.group("xwing") >= 256


def test_numbers_that_an_earlier_agent_gave_are_kept_or_released() -> None:
    first = Node()
    first.apply(*SHIPS)
    first.compile()
    again = Node(identities=IdentityAllocator.from_dict(json.loads(json.dumps(first.identities.to_dict()))))
    again.apply(XWING)
    assert again.compile().node.endpoints[0].group == first.group("xwing")
    assert len(again.identities.in_use()) == 1


def test_an_equal_rule_of_two_policies_is_one_rule_with_two_origins() -> None:
    node = Node()
    same = {"toPorts": [to_ports("80", http=[{"method": "GET"}, {"method": "GET"}])]}
    node.apply(*SHIPS, rule("a", {"org": "empire"}, **same), rule("b", {"org": "empire"}, **same))
    (peer,) = (peer for port in deathstar(node).ingress.ports for peer in port.peers if peer.rule_set)
    assert isinstance(peer, PeerRule)
    assert peer.rule_set is not None
    assert [[origin.name for origin in rule.origins] for rule in peer.rule_set.http] == [["a", "b"]]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.tuples(policies(most=3), st.sets(st.sampled_from(range(6)))), min_size=1, max_size=4))
def test_history_leaves_no_trace(history: list[tuple[list[dict[str, Any]], set[int]]]) -> None:
    """After any edits the compiler says, byte for byte, what a new one says of the same world."""
    node = Node()
    for world, present in history:
        node.apply(*(PODS[i] for i in sorted(present)), *world)
        compiled = node.compile()
    fresh = Node(identities=IdentityAllocator.from_dict(node.identities.to_dict()), revision=node.revision - 1)
    fresh.apply(*(PODS[i] for i in sorted(present)), *world)
    again = fresh.compile()
    assert again == compiled
    assert json.dumps(again.node.to_dict()) == json.dumps(compiled.node.to_dict())
