"""May A talk to B? Who says so, where it is written, and what came nearest."""

from __future__ import annotations

from typing import Any

import pytest

from agent.offline import compile_offline
from policies.explaining.explain import Explanation, L7Verdict, Question, Reason, explain
from policies.explaining.explain_plain import to_dict
from policies.explaining.places import Places
from policies.explaining.scene import Scene, UnknownEnd
from policies.judging.requests import Request
from policies.repository import Repository
from policies.types import Origin, Protocol
from tests.policies.make import manifest, peers, pod, policy, to_ports

LAND = {"method": "POST", "path": "/v1/request-landing"}
CREW = (
    pod("deathstar", ["10.0.0.1", "fd00::1"], org="empire", **{"class": "deathstar"}),
    pod("tiefighter", "10.0.0.2", org="empire"),
    pod("xwing", "10.0.0.3", org="alliance"),
)
RULE1 = policy(
    "rule1",
    subject={"class": "deathstar"},
    ingress=[{"fromEndpoints": peers({"org": "empire"}), "toPorts": [to_ports("80", http=[LAND])]}],
)


def scene_of(*objects: dict[str, Any]) -> Scene:
    repository = Repository()
    assert repository.replace("all.yaml", manifest(*CREW, *objects)).errors == ()
    scene, errors = compile_offline(repository.world())
    assert errors == ()
    return scene


def ask(scene: Scene, source: str, target: str, port: int = 80, request: Request | None = None) -> Explanation:
    where = scene.target(target, Protocol.TCP, port)
    return explain(scene, Question(scene.end(source), where, Protocol.TCP, request))


def test_without_policy_all_is_open() -> None:
    answer = ask(scene_of(), "default/xwing", "default/deathstar")
    assert answer.allowed
    assert (answer.egress.reason, answer.ingress[0].reason) == (Reason.NOT_ENFORCED, Reason.NOT_ENFORCED)


def test_a_stranger_is_denied_by_default_and_told_which_label_he_misses() -> None:
    answer = ask(scene_of(RULE1), "default/xwing", "default/deathstar")
    (side,) = answer.ingress
    assert (answer.allowed, side.reason) == (False, Reason.DEFAULT_DENY)
    assert [str(origin) for origin in side.by] == ["CiliumNetworkPolicy default/rule1 spec"]
    assert str(side.nearest) == "CiliumNetworkPolicy default/rule1 spec.ingress[0]: label org is alliance, not empire"


def test_a_friend_at_the_wrong_port_is_told_the_right_one() -> None:
    (side,) = ask(scene_of(RULE1), "default/tiefighter", "default/deathstar", 8080).ingress
    assert str(side.nearest).endswith("spec.ingress[0]: port is 8080/TCP, not 80/TCP")


def test_the_world_misses_no_labels_but_is_somebody_else() -> None:
    (side,) = ask(scene_of(RULE1), "203.0.113.9", "default/deathstar").ingress
    assert side.nearest is not None
    assert [(d.field, d.got) for d in side.nearest.differs] == [("peer", "203.0.113.9")]


def test_the_rule_that_allows_a_request_is_named() -> None:
    answer = ask(scene_of(RULE1), "default/tiefighter", "default/deathstar", request=Request("POST", LAND["path"]))
    (side,) = answer.ingress
    assert answer.allowed
    assert side.l7 is not None
    assert side.l7.rule is not None
    assert [origin.path for origin in side.l7.rule.origins] == ["spec.ingress[0].toPorts[0].rules.http[0]"]


def test_a_denied_request_has_a_nearest_rule() -> None:
    answer = ask(scene_of(RULE1), "default/tiefighter", "default/deathstar", request=Request("PUT", LAND["path"]))
    (side,) = answer.ingress
    assert (answer.allowed, side.reason) == (False, Reason.HTTP)
    assert side.l7 is not None
    assert side.l7.nearest is not None
    assert [str(d) for d in side.l7.nearest.differs] == ["method is PUT, not POST"]


def test_without_a_request_the_connection_is_allowed_and_requests_are_to_be_judged() -> None:
    answer = ask(scene_of(RULE1), "default/tiefighter", "default/deathstar")
    (side,) = answer.ingress
    assert answer.allowed
    assert side.l7 is not None
    assert side.l7.verdict is L7Verdict.NOT_ASKED


def test_the_node_is_let_in_and_a_pod_reaches_itself() -> None:
    scene = scene_of(RULE1)
    assert ask(scene, "host", "default/deathstar").allowed
    assert ask(scene, "default/deathstar", "default/deathstar").ingress[0].reason is Reason.SELF


def test_a_second_proxy_judges_what_the_first_forwards() -> None:
    """Dots that the first unescapes are a dot segment to the second."""
    out = policy("out", subject={"org": "empire"}, egress=[{"toPorts": [to_ports("80", http=[{"method": "GET"}])]}])
    into = policy("in", subject={"class": "deathstar"}, ingress=[{"toPorts": [to_ports("80", http=[{"path": "/b"}])]}])
    scene = scene_of(out, into)
    answer = ask(scene, "default/tiefighter", "default/deathstar", request=Request("GET", "/a/%2e%2e;/b"))
    (side,) = answer.ingress
    assert side.l7 is not None
    assert side.l7.decision is not None
    assert side.l7.decision.arrival.request.path == "/b"
    assert answer.allowed


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "deathstar", "namespace": "default"},
    "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 8080, "targetPort": 80}]},
}


def slice_of(*addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s", "namespace": "default", "labels": {"kubernetes.io/service-name": "deathstar"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"port": 80, "protocol": "TCP"}],
    }


@pytest.mark.parametrize("name", ["10.96.0.1", "deathstar.default", "deathstar.default.svc.cluster.local"])
def test_a_service_is_its_backends(name: str) -> None:
    answer = ask(scene_of(RULE1, SERVICE, slice_of("10.0.0.1")), "default/xwing", name, 8080)
    assert (answer.allowed, answer.ingress[0].owner, answer.ingress[0].port) == (False, "default/deathstar", 80)


def test_backends_of_two_kinds_are_denied_where_egress_is_enforced() -> None:
    out = policy("out", subject={"org": "alliance"}, egress=[{"toEndpoints": peers({})}])
    scene = scene_of(out, SERVICE, slice_of("10.0.0.1", "10.0.0.2"))
    answer = ask(scene, "default/xwing", "10.96.0.1", 8080)
    assert (answer.egress.allowed, answer.egress.reason) == (False, Reason.NO_BACKEND)
    assert ask(scene, "default/tiefighter", "10.96.0.1", 8080).allowed


@pytest.mark.parametrize("name", ["default/ywing", "all", "ywing.default.svc", "nonsense"])
def test_nobody_of_that_name(name: str) -> None:
    with pytest.raises(UnknownEnd):
        ask(scene_of(), "default/xwing", name)


def test_a_service_says_which_ports_it_has() -> None:
    with pytest.raises(UnknownEnd, match="it has: 8080/TCP"):
        ask(scene_of(SERVICE), "default/xwing", "10.96.0.1", 80)


def test_the_plain_form_says_where_each_rule_is_written() -> None:
    text = manifest(*CREW, RULE1)
    answer = ask(scene_of(RULE1), "default/tiefighter", "default/deathstar", request=Request("PUT", LAND["path"]))
    plain = to_dict(answer, Places({"all.yaml": text}))
    assert (plain["verdict"], plain["egress"]["verdict"], plain["ingress"]["verdict"]) == (
        "DENIED",
        "ALLOWED",
        "DENIED",
    )
    l7 = plain["ingress"]["l7"]
    assert (l7["verdict"], l7["rule"]) == ("DENIED", None)
    assert l7["differs"] == [{"field": "method", "wanted": "POST", "got": "PUT"}]
    (by,) = l7["nearest"]["by"]
    assert (by["kind"], by["namespace"], by["name"], by["file"]) == (
        "CiliumNetworkPolicy",
        "default",
        "rule1",
        "all.yaml",
    )
    assert text.splitlines()[by["line"] - 1].strip() == "- method: POST"


def test_places_know_lists_and_later_documents() -> None:
    one, two = policy("one", ingress=[{}]), policy("two", ingress=[{"fromEndpoints": []}])
    listed = {"apiVersion": "v1", "kind": "List", "items": [one, two]}
    text = manifest(CREW[0], listed)
    place = Places({"empty.yaml": "", "list.yaml": text}).of(
        Origin("CiliumNetworkPolicy", "default", "two", "spec.ingress[0].fromEndpoints")
    )
    assert place is not None
    assert text.splitlines()[place.line - 1].strip() == "- fromEndpoints: []"
    assert Places({"list.yaml": text}).of(Origin("deflector", "", "allow-localhost", "")) is None
