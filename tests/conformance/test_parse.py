"""Suites as data: what the parse makes of good ones, and how it refuses bad ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import suites
from conformance.blueprint import NamedPort, Pod
from conformance.errors import EnvironmentFailure, SuiteError
from conformance.parse import parse_suite
from conformance.scenario import (
    Apply,
    Ask,
    Close,
    Level,
    Outcome,
    Refuse,
    Remove,
    Request,
    Settle,
    Suite,
    Traffic,
)
from conformance.target import Target

GOOD: dict[str, Any] = {
    "suite": "hoth",
    "galaxy": {
        "namespaces": {"rebels": {"side": "light"}},
        "pods": {
            "walker": {"labels": {"legs": 4}},
            "speeder": {"namespace": "rebels", "named": {"guns": 80, "radio": "53/UDP"}},
            "base": {"labels": {"app": "base"}, "serves": [80]},
            "fleet": {"remote": True},
        },
        "hosts": {"moon": {"v4": "203.0.113.7", "v6": "2001:db8::7", "node": {"zone": "far"}}},
        "services": {"base": {"selector": {"app": "base"}}, "lunar": {"hosts": ["moon"], "labels": {"far": "yes"}}},
        "objects": [{"kind": "CiliumCIDRGroup"}],
    },
    "flags": ["--policy-enforcement", "always"],
    "shared": {"anything": ["goes"]},
    "defaults": {"status": 204},
    "policies": {"shield": {"object": "rule1", "spec": {"endpointSelector": {}}}, "gate": {"specs": [{}]}},
    "scenarios": [
        {
            "name": "siege",
            "title": "walkers come",
            "level": "extended",
            "policies": ["shield"],
            "policy": {"kind": "CiliumClusterwideNetworkPolicy", "spec": {"nodeSelector": {}}},
            "steps": [
                {"open": {"name": "line", "from": "walker", "to": "pod/base"}},
                {"traffic": {"name": "guns", "from": "walker", "to": "service/base", "request": "GET /"}},
                {"apply": ["gate"]},
                {"settle": {"name": "guns", "before": 200, "after": 403, "resets": True}},
                {"refuse": {"object": "rule1", "text": "[", "complaint": "rule1"}},
                {
                    "in_turn": True,
                    "probe": [
                        {
                            "from": ["walker", "speeder"],
                            "to": ["pod/base", "service/base"],
                            "ip": [4, 6],
                            "request": "POST /gate?open=1",
                            "headers": {"X-Rank": "general"},
                            "expect": "denied",
                            "at": ["egress", "ingress"],
                            "flows": [{"event": "drop", "source_port": 7}],
                        },
                        {"from": "walker", "to": "node", "protocol": "icmp", "expect": "dropped"},
                    ],
                },
                {"remove": "gate"},
                {"close": "line"},
            ],
        }
    ],
}


def suite_with(change: Any) -> Any:
    value = copy.deepcopy(GOOD)
    change(value)
    return value


def test_every_word_of_a_suite_arrives() -> None:
    suite = parse_suite(GOOD)
    (siege,) = suite.scenarios
    assert (siege.level, siege.policies, siege.flags) == (
        Level.EXTENDED,
        ("shield", "siege"),
        ("--policy-enforcement", "always"),
    )
    assert suite.policies["shield"].object == "rule1"
    (own,) = suite.policies["siege"].manifests
    assert (own["apiVersion"], own["kind"], own["metadata"]) == (
        "cilium.io/v2",
        "CiliumClusterwideNetworkPolicy",
        {"name": "siege"},
    )
    _open, traffic, apply, settle, refuse, ask, remove, close = siege.steps
    assert (remove, close) == (Remove(("gate",)), Close("line"))
    assert traffic == Traffic("guns", "walker", Target("service", "base"), Request("GET", "/"))
    assert (apply, settle) == (Apply(("gate",)), Settle("guns", 200, 403, resets=True))
    assert isinstance(refuse, Refuse)
    assert refuse.complaint == ("rule1",)
    assert isinstance(ask, Ask)
    assert ask.in_turn
    assert ask.probes[0].request == Request("POST", "/gate?open=1", headers=(("X-Rank", "general"),))
    assert ask.probes[0].flows == ({"event": "drop", "source_port": "7"},)
    assert (ask.probes[-1].expect, ask.probes[-1].status) == (Outcome.DROPPED, 204)


def test_lists_in_a_probe_stand_for_every_combination() -> None:
    ask = parse_suite(GOOD).scenarios[0].steps[5]
    assert isinstance(ask, Ask)
    drawn = {(p.source, str(p.target), p.family) for p in ask.probes[:-1]}
    assert drawn == {(s, t, f) for s in ("walker", "speeder") for t in ("pod/base", "service/base") for f in (4, 6)}


def test_a_galaxy_has_its_places() -> None:
    made = parse_suite(GOOD).galaxy
    assert [pod.alias for pod in made.local_pods] == ["walker", "speeder", "base"]
    assert made.pod("walker").labels == (("legs", "4"),)
    assert made.pod("speeder").named == (NamedPort("guns", 80), NamedPort("radio", 53, "UDP"))
    assert [str(one) if isinstance(one, Pod) else one.name for one in made.outsiders] == ["moon", "default/fleet"]
    assert made.pod("fleet").v4.startswith("10.244.1.")
    assert made.service("base").backends == (made.pod("base"),)
    assert made.service("lunar").backends == (made.host("moon"),)
    assert (made.namespaces["rebels"], made.host("moon").node_labels) == ({"side": "light"}, {"zone": "far"})


def steps(value: Any) -> Any:
    return value["scenarios"][0]["steps"]


def galaxy(value: Any, part: str) -> Any:
    return value["galaxy"][part]


REFUSALS = [
    (lambda v: v.pop("suite"), "suite.suite: is missing"),
    (lambda v: v.update(extra=1), "suite.extra: is not a known field"),
    (lambda v: v["policies"].update(gate={}), "policies.gate: needs spec or specs"),
    (lambda v: v.pop("galaxy"), "suite.galaxy: is missing"),
    (lambda v: v.update(galaxy="startrek"), "galaxy: 'startrek' is none of starwars"),
    (lambda v: galaxy(v, "pods").update({"x" * 12: {}}), "galaxy.pods.xxxxxxxxxxxx: a pod's name has at most 11"),
    (lambda v: galaxy(v, "pods").update(moon={}), "galaxy.hosts.moon: there is a pod of that name"),
    (lambda v: galaxy(v, "pods")["walker"].update(namespace="x"), "galaxy.namespaces: there is no namespace 'x'"),
    (lambda v: galaxy(v, "pods")["walker"].update(named={"a": "b"}), "named.a: 'b' is not NUMBER or NUMBER/PROTOCOL"),
    (lambda v: galaxy(v, "hosts")["moon"].update(v4="::1"), "galaxy.hosts.moon.v4: '::1' is no such address"),
    (lambda v: galaxy(v, "services").update(x={}), "galaxy.services.x: needs a selector, or hosts of the galaxy"),
    (lambda v: steps(v)[0]["open"].update({"from": "yoda"}), "steps[0]: there is no 'yoda' in the galaxy"),
    (lambda v: steps(v)[0]["open"].update(to="pod/yoda"), "steps[0]: there is no 'pod/yoda' in the galaxy"),
    (lambda v: v["scenarios"][0].update(name="gate"), "scenarios[0].policy: there is a policy 'gate' already"),
    (
        lambda v: v["scenarios"].append({"name": "siege", "title": "again", "steps": []}),
        "scenarios[1].name: 'siege' is there already",
    ),
    (lambda v: v["scenarios"][0].update(level="high"), "scenarios[0].level: 'high' is none of core, extended"),
    (lambda v: v["scenarios"][0].update(policies=["none"]), "scenarios[0].policies: there is no policy 'none'"),
    (lambda v: steps(v).append({"wait": 3}), "scenarios[0].steps[8]: must be one of apply, remove"),
    (lambda v: steps(v).append({"close": "line", "x": 1}), "scenarios[0].steps[8].x: is not a known field"),
    (lambda v: steps(v).append({"close": "other"}), "scenarios[0].steps[8]: nothing named 'other' is open here"),
    (lambda v: steps(v)[5]["probe"][1].update(expect="maybe"), "steps[5].probe[1].expect: 'maybe' is none of"),
    (lambda v: steps(v)[5]["probe"][1].update(to="moon"), "steps[5].probe[1].to: 'moon' is none of pod/NAME"),
    (lambda v: steps(v)[5]["probe"][1].update(request="GET /"), "steps[5].probe[1].request: is not a known field"),
    (lambda v: steps(v)[5]["probe"][0].update(request="GET"), "steps[5].probe[0].request: 'GET' is not METHOD /path"),
    (lambda v: steps(v)[5]["probe"][0].update(at="above"), "steps[5].probe[0].at: must name ingress or egress"),
    (lambda v: steps(v)[5]["probe"][0].update(ip=True), "steps[5].probe[0].ip: has the wrong type bool"),
    (lambda v: steps(v)[5]["probe"][0].update(flows=[{"colour": "red"}]), "probe[0].flows[0].colour: is none of"),
    (lambda v: steps(v)[5]["probe"][1].update({True: 1}), "probe[1]: has the key True, which is bool: quote it"),
]


@pytest.mark.parametrize(("change", "complaint"), REFUSALS, ids=[complaint for _, complaint in REFUSALS])
def test_a_bad_suite_is_refused_with_its_field_path(change: Any, complaint: str) -> None:
    with pytest.raises(SuiteError) as refused:
        parse_suite(suite_with(change))
    assert complaint in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    lambda v, x: v.update(scenarios=x),
    lambda v, x: v.update(policies=x),
    lambda v, x: steps(v).insert(0, x),
    *(lambda v, x, n=n: steps(v)[n].update({next(iter(steps(GOOD)[n])): x}) for n in range(8)),
    *(lambda v, x, k=k: v["galaxy"].update({k: x}) for k in ("namespaces", "pods", "hosts", "services", "objects")),
    *(lambda v, x, k=k: galaxy(v, "pods")["base"].update({k: x}) for k in ("labels", "serves", "named", "remote")),
    *(lambda v, x, k=k: steps(v)[5]["probe"][0].update({k: x}) for k in ("from", "to", "ip", "request", "at", "flows")),
]


@given(place=st.sampled_from(PLACES), junk=JSON)
def test_junk_anywhere_gives_a_suite_or_the_suite_error(place: Any, junk: Any) -> None:
    value = copy.deepcopy(GOOD)
    place(value, junk)
    try:
        suite = parse_suite(value)
    except SuiteError:
        return
    assert isinstance(suite, Suite)


def test_the_suites_that_come_along_can_be_read() -> None:
    assert "starwars" in suites.names()
    for name in suites.names():
        assert suites.load(name).name == name


def test_an_unknown_suite_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(EnvironmentFailure, match=r"no suite 'startrek': choose from .*starwars"):
        suites.load("startrek")
