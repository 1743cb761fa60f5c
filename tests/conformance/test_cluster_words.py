"""Suites in the words of a cluster: what is left out and why, names and addresses, objects; nothing is contacted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest

from conformance import suites
from conformance.blueprint import Blueprint, star_wars
from conformance.cluster.claim import Claim
from conformance.cluster.crew import as_made, families, objects
from conformance.cluster.kubectl import in_one_line
from conformance.cluster.playable import Programme, programme
from conformance.cluster.translation import Dictionary, dictionary, translated, translated_scenario
from conformance.scenario import Ask, Open, Settle

CLAIM = Claim("run-1", {"default": "run-1", "empire": "run-1-empire"})
WORDS = Dictionary(CLAIM.spaces, {"10.244.0.1": "192.168.7.9", "fd00:10:244::d": "fd01::7"})


def played(name: str, both: tuple[int, ...] = (4, 6)) -> Programme:
    suite = suites.load(name)
    return programme(suite, suite.scenarios, both)


def test_each_scenario_of_each_suite_is_played_or_there_is_a_reason() -> None:
    for name in suites.names():
        told = played(name)
        names = [scenario.name for scenario in told.scenarios] + [one.name for one in told.omitted]
        assert sorted(names) == sorted(scenario.name for scenario in suites.load(name).scenarios)
        assert all(one.why for one in told.omitted)


@pytest.mark.parametrize(
    ("suite", "scenario", "why"),
    [
        ("starwars", "node-killed", "it kills, stops or starts the node"),
        ("starwars", "proxy-port", "there is no proxy to be asked"),
        ("starwars", "invalid-policy", "an API server takes no file that is no good"),
        ("bypass", "methods", "what arrives is recorded on this machine only"),
        ("dns", "match-name", "its clients and servers are on this machine only"),
    ],
)
def test_why_it_is_not_played(suite: str, scenario: str, why: str) -> None:
    (told,) = [one.why for one in played(suite).omitted if one.name == scenario]
    assert told == why


def test_nothing_is_played_that_could_touch_what_is_not_ours() -> None:
    for name in suites.names():
        suite = suites.load(name)
        for scenario in played(name).scenarios:
            kinds = {m["kind"] for policy in scenario.policies for m in suite.policies[policy].manifests}
            assert kinds <= {"CiliumNetworkPolicy", "NetworkPolicy"}
            assert scenario.flags == ()


def test_without_ipv6_what_needs_it_is_left_out_and_counted() -> None:
    told = played("starwars", (4,))
    (keep_alive,) = [scenario for scenario in told.scenarios if scenario.name == "keep-alive"]
    assert [step.name for step in keep_alive.steps if isinstance(step, Open)] == ["four"]
    assert all(probe.over == "four" for step in keep_alive.steps if isinstance(step, Ask) for probe in step.probes)
    assert told.left_out["keep-alive"] == ("1 left out: the cluster gives no IPv6 addresses",)
    (edited,) = [scenario for scenario in told.scenarios if scenario.name == "policy-added"]
    assert [step.name for step in edited.steps if isinstance(step, Settle)] == ["landings", "explosions"]


def test_addresses_and_namespaces_where_they_stand_whole() -> None:
    assert WORDS.text('"client": "10.244.0.1"') == '"client": "192.168.7.9"'
    assert WORDS.text("10.244.0.13 110.244.0.1") == "10.244.0.13 110.244.0.1"
    assert WORDS.text("[fd00:10:244::d]:80") == "[fd01::7]:80"
    assert WORDS.pattern("default/tiefighter") == "run-1/tiefighter"
    assert WORDS.pattern("~(default|empire)/x|my-default/y") == "~(default|empire)/x|my-default/y"


def test_policies_name_the_namespaces_of_the_run() -> None:
    peer: dict[str, Any] = {
        "matchLabels": {"k8s:io.kubernetes.pod.namespace": "empire", "org": "empire"},
        "matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["default", "hoth"]},
            {"key": "org", "operator": "In", "values": ["empire"]},
        ],
    }
    service = {"k8sService": {"serviceName": "deathstar", "namespace": "empire"}}
    policy = {"metadata": {"name": "a", "namespace": "empire"}, "spec": {"ingress": [{"from": [peer, service]}]}}
    made = WORDS.manifest(policy)
    assert made["metadata"]["namespace"] == "run-1-empire"
    got, there = made["spec"]["ingress"][0]["from"]
    assert got["matchLabels"] == {"k8s:io.kubernetes.pod.namespace": "run-1-empire", "org": "empire"}
    assert [one["values"] for one in got["matchExpressions"]] == [["run-1", "hoth"], ["empire"]]
    assert there["k8sService"]["namespace"] == "run-1-empire"


def _found(blueprint: Blueprint, *, dual: bool) -> list[dict[str, Any]]:
    """What a cluster makes of what it is given."""
    found = []
    for number, raw in enumerate(objects(blueprint, CLAIM, "image")):
        addresses = [f"192.168.0.{number + 1}", *([f"fd01::{number + 1}"] if dual else [])]
        if raw["kind"] == "Pod":
            raw = {**raw, "status": {"podIPs": [{"ip": address} for address in addresses]}}
        else:
            raw = {**raw, "spec": {**raw["spec"], "clusterIP": addresses[0], "clusterIPs": addresses}}
        found.append(raw)
    return found


@pytest.mark.parametrize("dual", [True, False])
def test_the_galaxy_as_the_cluster_made_it(dual: bool) -> None:
    before = star_wars()
    after = as_made(before, CLAIM, _found(before, dual=dual))
    assert families(after) == ((4, 6) if dual else (4,))
    assert str(after.pod("tiefighter")) == "run-1/tiefighter"
    assert after.service("deathstar").backends == (after.pod("deathstar-1"), after.pod("deathstar-2"))
    words = dictionary(before, after, CLAIM.spaces)
    suite = suites.load("starwars")
    (scenario,) = [one for one in suite.scenarios if one.name == "client-address"]
    (step,) = translated_scenario(scenario, words).steps
    assert isinstance(step, Ask)
    wanted = f'"client": "{after.pod("tiefighter").v4}"'
    assert {probe.body_has for probe in step.probes if probe.family == 4} == {(wanted,)}
    rule = translated(suite, words, after).policies["rule1-http"]
    assert rule.manifests[0]["metadata"] == {"name": "rule1", "namespace": "run-1"}


def test_pods_are_small_short_lived_and_on_one_node() -> None:
    pods = [raw for raw in objects(star_wars(), CLAIM, "registry.example/deflector:1") if raw["kind"] == "Pod"]
    for raw in pods:
        assert "ownerReferences" not in raw["metadata"]
        assert raw["spec"]["activeDeadlineSeconds"] > 0
        assert raw["spec"]["automountServiceAccountToken"] is False
        (container,) = raw["spec"]["containers"]
        assert container["image"] == "registry.example/deflector:1"
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        (term,) = raw["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["labelSelector"] == {"matchLabels": {"deflector.io/conformance-run": "run-1"}}
    assert {raw["metadata"]["namespace"] for raw in pods} == {"run-1"}


@pytest.mark.parametrize("name", ["starwars", "l3", "l4", "http"])
def test_kubernetes_own_schemas_know_every_field(name: str) -> None:
    galaxy = suites.load(name).galaxy
    claim = Claim("run-1", {space: f"run-1-{space}" for space in ("default", *galaxy.namespaces)})
    for raw in objects(galaxy, claim, "image"):
        kubernetes_validate.validate(raw, "1.30", strict=True)


def test_a_pod_of_another_namespace_has_it() -> None:
    galaxy = star_wars()
    moved = replace(galaxy, pods=tuple(replace(pod, namespace="empire") for pod in galaxy.pods))
    assert {raw["metadata"]["namespace"] for raw in objects(moved, CLAIM, "i")} == {"run-1", "run-1-empire"}


def test_what_kubectl_complains_of_is_one_line() -> None:
    said = b"E1121 02:40:07.1 7 memcache.go:265] connection refused\nThe connection to the server x was refused\n"
    assert in_one_line(said) == "The connection to the server x was refused"
    assert in_one_line(b"error: a\nerror: b\n") == "a / b"
    assert len(in_one_line(b"x" * 5000)) == 300
