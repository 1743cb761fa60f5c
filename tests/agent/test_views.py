"""What flows ask of the node: who lives at an address, and which policies gave a verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.views.node_view import NodeView, labels_by_identity
from agent.views.packet_reasons import DENY_RULE, NO_RULE
from flows.record import PacketKind, PacketRecord, PacketVerdict
from policies.types import Direction, Protocol
from tests.policies.make import Node, peers, pod, policy, to_ports

DEATHSTAR, TIEFIGHTER, XWING, SERVICE = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.96.0.1"


def view(*more: dict[str, Any]) -> NodeView:
    crew = (
        pod("deathstar", DEATHSTAR, org="empire", **{"class": "deathstar"}),
        pod("tiefighter", TIEFIGHTER, org="empire"),
        pod("xwing", XWING, org="alliance"),
    )
    rules = [{"fromEndpoints": peers({"org": "empire"}), "toPorts": [to_ports("80", http=[{"path": "/land"}])]}]
    node = Node()
    assert node.apply(*crew, *more, policy("rule1", subject={"class": "deathstar"}, ingress=rules)) == ()
    compiled = node.compile().node
    labels = labels_by_identity(node.identities, compiled)
    return NodeView("here", node.repository.world(), compiled, labels)


def verdict(who: str, what: PacketVerdict, seen: NodeView) -> PacketRecord:
    return PacketRecord(
        PacketKind.POLICY_VERDICT,
        who,
        DEATHSTAR,
        destination_port=80,
        verdict=what,
        direction=Direction.INGRESS,
        source_identity=seen.identity_by_ip(who),
        destination_identity=seen.identity_by_ip(DEATHSTAR),
    )


def refused(who: str, reason: int, seen: NodeView) -> PacketRecord:
    return replace(verdict(who, PacketVerdict.DROPPED, seen), drop_reason=reason)


def test_a_pod_is_known_by_its_address() -> None:
    found = view().endpoint_by_ip(TIEFIGHTER)
    assert found is not None
    assert (found.namespace, found.pod_name) == ("default", "tiefighter")
    assert "k8s:org=empire" in found.labels
    assert found.id > 0


def test_an_address_that_is_no_pod_is_the_world_or_the_node() -> None:
    seen = view()
    assert seen.endpoint_by_ip("198.51.100.1") is None
    assert seen.identity_labels(seen.identity_by_ip("198.51.100.1")) == ("reserved:world-ipv4",)
    assert seen.identity_labels(seen.identity_by_ip("2001:db8::99")) == ("reserved:world-ipv6",)
    assert seen.identity_labels(seen.identity_by_ip("192.0.2.1")) == ("reserved:host",)


def test_a_service_address_is_whoever_is_behind_it() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "deathstar", "namespace": "default"},
        "spec": {"clusterIP": SERVICE, "clusterIPs": [SERVICE], "ports": [{"port": 80, "targetPort": 8080}]},
    }
    backends = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "deathstar-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "deathstar"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [DEATHSTAR], "conditions": {"ready": True}}],
        "ports": [{"port": 8080, "protocol": "TCP"}],
    }
    seen = view(service, backends)
    assert seen.identity_by_ip(SERVICE) == seen.identity_by_ip(DEATHSTAR)
    found = seen.service_by_address(SERVICE, 80)
    assert found is not None
    assert found.name == "deathstar"


def test_an_allowed_connection_names_the_policy_that_allows_it() -> None:
    seen = view()
    (ref,) = seen.why_packet(verdict(TIEFIGHTER, PacketVerdict.REDIRECTED, seen)).policies
    assert (ref.kind, ref.namespace, ref.name) == ("CiliumNetworkPolicy", "default", "rule1")
    assert "k8s:io.cilium.k8s.policy.name=rule1" in ref.labels


def test_the_world_has_no_number_in_events_and_yet_a_policy_that_allows_it() -> None:
    seen = view(policy("open-house", subject={"class": "deathstar"}, ingress=[{"toPorts": [to_ports("80")]}]))
    event = replace(verdict("198.51.100.1", PacketVerdict.FORWARDED, seen), source_identity=None)
    assert [ref.name for ref in seen.why_packet(event).policies] == ["open-house"]


def test_a_default_deny_names_none() -> None:
    seen = view()
    assert seen.why_packet(refused(XWING, NO_RULE, seen)).policies == ()


def test_a_deny_rule_is_named_and_what_its_author_wants_said() -> None:
    denying = policy("no-rebels", ingressDeny=[{"fromEndpoints": peers({"org": "alliance"})}])
    denying["spec"]["log"] = {"value": "rebels"}
    seen = view(denying)
    (ref,) = seen.why_packet(refused(XWING, DENY_RULE, seen)).policies
    assert (ref.name, ref.logs) == ("no-rebels", ("rebels",))
    assert seen.why_packet(verdict(TIEFIGHTER, PacketVerdict.REDIRECTED, seen)).policies[0].logs == ()


def test_the_policy_of_a_ping_is_found_by_its_type() -> None:
    icmps = [{"fields": [{"family": "IPv4", "type": 8}]}]
    seen = view(policy("ping", ingress=[{"fromEndpoints": peers({"org": "empire"}), "icmps": icmps}]))
    ping = replace(
        verdict(TIEFIGHTER, PacketVerdict.FORWARDED, seen), protocol=Protocol.ICMP, destination_port=0, icmp_type=8
    )
    assert [ref.name for ref in seen.why_packet(ping).policies] == ["ping"]
    assert seen.why_packet(replace(ping, icmp_type=13)).policies == ()
