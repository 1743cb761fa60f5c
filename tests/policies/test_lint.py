"""What a folder of policies says in vain."""

from __future__ import annotations

from typing import Any

from agent.offline import compile_offline
from policies.advising.lint import lint
from policies.repository import Repository
from tests.policies.make import manifest, peers, pod, policy, to_ports

PODS = (
    pod("server", "10.0.0.1", app="server"),
    pod("red", "10.0.0.2", colour="red", shade="dark"),
    pod("blue", "10.0.0.3", colour="blue", shade="dark"),
)


def findings(*policies: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Object, path and reason of each."""
    repository = Repository()
    assert not [e for e in repository.replace("all.yaml", manifest(*PODS, *policies)).errors if e.severity == "error"]
    scene, _ = compile_offline(repository.world())
    found = lint(scene, lambda world: compile_offline(world)[0])
    assert all(str(finding).isprintable() for finding in found)
    return [(finding.name, finding.path, str(finding.reason)) for finding in found]


def allow(name: str, *clauses: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return policy(name, subject={"app": "server"}, ingress=list(clauses), **spec)


def clause(colour: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"fromEndpoints": peers(colour), **more}


RED, BLUE, DARK = {"colour": "red"}, {"colour": "blue"}, {"shade": "dark"}
WEB = {"toPorts": [to_ports("80")]}
GET = {"toPorts": [to_ports("80", http=[{"method": "GET"}])]}


def test_what_says_something_everywhere_is_not_mentioned() -> None:
    assert findings(allow("a", clause(RED, **GET)), allow("b", clause(BLUE, **WEB))) == []


def test_a_broader_allow_of_another_object_voids_http_rules() -> None:
    assert findings(allow("a", clause(RED, **GET)), allow("b", clause(DARK))) == [("a", "spec.ingress[0]", "L7Voided")]


def test_a_clause_that_others_cover_is_shadowed_whatever_its_labels_are() -> None:
    """Only the folder shows that red and dark are the same pods here."""
    assert findings(allow("a", clause(RED, **WEB)), allow("b", clause(DARK, **WEB))) == [
        ("a", "spec.ingress[0]", "ShadowedRule")
    ]


def test_of_two_that_say_the_same_the_later_one_is_needless() -> None:
    found = findings(allow("a", clause(RED, **WEB)), allow("b", clause(RED, **WEB)))
    assert found == [("b", "spec.ingress[0]", "ShadowedRule")]


def test_an_allow_under_the_denials_of_others() -> None:
    deny = policy("b", subject={"app": "server"}, ingressDeny=[clause(DARK)])
    assert findings(allow("a", clause(RED, **WEB)), deny) == [("a", "spec.ingress[0]", "ShadowedRule")]


def test_nobody_is_selected_and_nobody_is_a_peer() -> None:
    gone = policy("gone", subject={"app": "gone"}, ingress=[clause(RED)])
    found = findings(gone, allow("a", clause({"colour": "green"}), clause(RED)))
    assert found == [("a", "spec.ingress[0]", "SelectsNothing"), ("gone", "spec", "SelectsNothing")]


def test_default_deny_alone_is_no_mistake() -> None:
    assert findings(allow("a", {}), allow("b", {"fromEndpoints": []})) == []


def test_a_port_name_that_nobody_has() -> None:
    found = findings(allow("a", clause(RED, toPorts=[{"ports": [{"port": "web", "protocol": "TCP"}]}])))
    assert found == [("a", "spec.ingress[0].toPorts[0]", "SelectsNothing")]


def test_everybody_and_the_world() -> None:
    assert findings(allow("a", {"fromEntities": ["all"], **WEB})) == [("a", "spec.ingress[0]", "SelectsEverything")]


def test_http_rules_of_two_objects_that_are_equal_or_implied() -> None:
    wide = {"toPorts": [to_ports("80", http=[{"path": "/v1/.*"}, {"method": "PUT"}])]}
    narrow = {"toPorts": [to_ports("80", http=[{"method": "GET", "path": "/v1/a"}, {"method": "PUT"}])]}
    assert findings(allow("a", clause(RED, **narrow)), allow("b", clause(RED, **wide))) == [
        ("a", "spec.ingress[0].toPorts[0].rules.http[0]", "ShadowedRule"),
        ("b", "spec.ingress[0].toPorts[0].rules.http[1]", "ShadowedRule"),
    ]


def test_a_rule_is_needed_where_its_peer_has_no_other() -> None:
    both = {"fromEndpoints": peers(RED, BLUE), **GET}
    assert findings(allow("a", both), allow("b", clause(RED, **GET))) == [
        ("b", "spec.ingress[0].toPorts[0].rules.http[0]", "ShadowedRule")
    ]


def l7(port: str, rules: dict[str, Any], protocol: str = "TCP") -> dict[str, Any]:
    return {"toPorts": [{"ports": [{"port": port, "protocol": protocol}], "rules": rules}]}


def ask(name: str, rules: list[dict[str, str]], *more: dict[str, Any]) -> dict[str, Any]:
    """The red pod may ask the blue one for names."""
    lookups = {"toEndpoints": peers(BLUE), **l7("53", {"dns": rules}, "ANY")}
    return policy(name, subject=RED, egress=[lookups, *more])


def test_names_and_topics_that_another_policy_allows_are_needless() -> None:
    wide, slim = ask("a", [{"matchPattern": "**.io"}]), ask("b", [{"matchName": "a.b.io"}, {"matchName": "a.org"}])
    assert findings(wide, slim) == [("b", "spec.egress[0].toPorts[0].rules.dns[0]", "ShadowedRule")]
    one = allow("a", clause(RED, **l7("9092", {"kafka": [{"role": "produce"}]})))
    other = allow("b", clause(RED, **l7("9092", {"kafka": [{"apiKey": "produce", "topic": "t"}, {"topic": "t"}]})))
    assert findings(one, other) == [("b", "spec.ingress[0].toPorts[0].rules.kafka[0]", "ShadowedRule")]


def test_two_parsers_for_the_same_pods_are_told_of_on_both_sides() -> None:
    one = allow("a", clause(RED, **l7("80", {"kafka": [{}]})))
    assert findings(one, allow("b", clause(DARK, **GET))) == [
        ("a", "spec.ingress[0]", "ConflictingFields"),
        ("b", "spec.ingress[0]", "ConflictingFields"),
    ]


def test_of_names_that_nobody_may_ask_for_no_address_is_learned() -> None:
    """Facts 6.3: toFQDNs opens no lookups."""
    go = {"toFQDNs": [{"matchName": "api.io"}, {"matchPattern": "*.cdn.io"}], **WEB}
    alone = policy("a", subject=RED, egress=[go])
    assert findings(alone) == [("a", "spec.egress[0].toFQDNs", "SelectsNothing")]
    assert findings(alone, ask("b", [{"matchName": "other.io"}])) == [("a", "spec.egress[0].toFQDNs", "SelectsNothing")]
    assert findings(alone, ask("b", [{"matchPattern": "*.io"}])) == []
    assert findings(ask("b", [{"matchPattern": "*"}], go)) == []
    blue = policy("c", subject=BLUE, egress=[{"toEndpoints": peers(RED), **l7("53", {"dns": [{"matchPattern": "*"}]})}])
    assert ("a", "spec.egress[0].toFQDNs", "SelectsNothing") in findings(alone, blue)  # others' lookups are others'
