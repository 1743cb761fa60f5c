"""Whatever is written, an object is read or refused: within named limits, in bounded time, and with words."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.advising.advice import advise
from policies.advising.validation import Judge, Validator
from policies.errors import Reason
from policies.reading.crd_http import HEADERS_MAX
from policies.reading.crd_peers import EXCEPTS_MAX
from policies.reading.crd_scope import LIMITS
from policies.reading.crd_selectors import REQUIREMENTS_MAX, VALUES_MAX
from policies.reading.fields import MESSAGE_MAX
from policies.reading.readers import FINDINGS_MAX, identify, read_object
from policies.reading.sanitize import REGEX_DEPTH_MAX, REGEX_MAX, REGEX_PROGRAM_MAX, regex_fault
from policies.rules import Policy
from tests.policies.judge import clause, cnp, judge, ports

TOO_MANY_EXCEPTS = EXCEPTS_MAX + 1
ENTRIES_MAX = LIMITS["entries of ingress and egress"]
EVERYTHING = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: all, namespace: d, labels: {a: b}, annotations: {c: d}}
spec:
  endpointSelector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: In, values: [d]}]}
  description: everything
  labels: ["k8s:a=b", {key: a, value: b, source: k8s}]
  log: {value: hello}
  enableDefaultDeny: {ingress: true, egress: false}
  ingress:
  - fromEndpoints: [{matchLabels: {"k8s:a": b}}]
    authentication: {mode: disabled}
    toPorts:
    - ports: [{port: "80", endPort: 90, protocol: TCP}, {port: http, protocol: TCP}]
      rules:
        http:
        - {method: GET, path: "/a.*", host: b, headers: ["X-A b", X-B]}
        - {headerMatches: [{name: a, value: b, mismatch: ADD, secret: {namespace: d, name: s}}]}
  - {fromEntities: [host, world], icmps: [{fields: [{family: IPv6, type: EchoRequest}, {type: 8}]}]}
  - {fromCIDR: [10.0.0.0/8, "fd00::1"]}
  - fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidrGroupRef: g}, {cidrGroupSelector: {}}]
  - {fromNodes: [{matchLabels: {a: b}}]}
  - {fromGroups: [{aws: {region: eu, labels: {a: b}, securityGroupsIds: [s]}}]}
  ingressDeny: [{fromEntities: [all], toPorts: [{ports: [{port: "1"}]}]}]
  egress:
  - toServices: [{k8sService: {serviceName: s, namespace: n}}, {k8sServiceSelector: {selector: {}, namespace: n}}]
  - toFQDNs: [{matchName: a.io}, {matchPattern: "*.b.io"}]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchPattern: "*"}]}
  - toPorts:
    - ports: [{port: "9092", protocol: TCP}]
      rules: {kafka: [{role: produce, topic: t, apiVersion: "1"}]}
      terminatingTLS: {secret: {name: s}, trustedCA: ca}
      serverNames: ["*.a.io"]
    - ports: [{port: "2", protocol: TCP}]
      listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: c}, name: l, priority: 1}
    - ports: [{port: "1", protocol: TCP}]
      rules: {l7proto: p, l7: [{k: v}]}
  egressDeny: [{toRequires: []}]
"""
NETPOL = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np}
spec:
  podSelector: {matchLabels: {a: b}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {}, namespaceSelector: {matchLabels: {a: b}}}], ports: [{port: 80, endPort: 90}]}]
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: web, protocol: UDP}]}]
"""
OTHERS = """
{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: g}, spec: {externalCIDRs: [10.0.0.0/8]}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: Yg==}, stringData: {c: d}}
---
apiVersion: v1
kind: Node
metadata: {name: n, labels: {a: b}}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {a: b}, ownerReferences: [{kind: Job, name: j, controller: true}]}
spec: {containers: [{ports: [{name: web, containerPort: 80, protocol: TCP}]}], hostNetwork: false, nodeName: n}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {clusterIP: 10.0.0.1, selector: {a: b}, ports: [{port: 80}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: e, labels: {kubernetes.io/service-name: s}}
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
ports: [{name: a, port: 80, protocol: TCP}]
"""
SEEDS: list[dict[str, Any]] = [
    yaml.safe_load(EVERYTHING),
    yaml.safe_load(EVERYTHING.replace("NetworkPolicy", "ClusterwideNetworkPolicy").replace(", namespace: d,", ",", 1)),
    yaml.safe_load(NETPOL),
    *yaml.safe_load_all(OTHERS),
]
words = st.sampled_from(
    ["", "a", "\x00", "\ud800", "*", "0", "-1", "65536", "10.0.0.0/8", "::/0", "[", "reserved:init", "é"]
)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | words | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(words | st.text(max_size=5), v, max_size=3),
    max_leaves=8,
)


def containers(raw: Any) -> list[Any]:
    """Every mapping and list of a tree, itself first."""
    found = [raw] if isinstance(raw, dict | list) else []
    for value in raw.values() if isinstance(raw, dict) else raw if isinstance(raw, list) else []:
        found += containers(value)
    return found


def mutate(raw: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """Change, take away or add something, anywhere."""
    raw = copy.deepcopy(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        places = containers(raw)
        here = places[data.draw(st.integers(0, len(places) - 1))]
        if not here:
            continue
        key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        change = data.draw(st.sampled_from(["replace", "delete", "repeat", "rename"]))
        if change == "replace":
            here[key] = data.draw(values)
        elif change == "repeat" and isinstance(here, list):
            here += [copy.deepcopy(here[key])] * 3
        elif change == "rename" and isinstance(here, dict):
            here[data.draw(words)] = here.pop(key)
        else:
            del here[key]
    return raw


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(SEEDS), st.data())
def test_a_mutated_object_is_read_or_refused_with_words(seed: dict[str, Any], data: st.DataObject) -> None:
    raw = mutate(seed, data)
    before = copy.deepcopy(raw)
    found = read_object(raw)
    identify(raw)
    assert (found.good is None) == bool(found.errors)
    assert repr(raw) == repr(before)
    advice = advise(found.good) if isinstance(found.good, Policy) else ()
    for finding in (*found.errors, *found.warnings, *advice):
        assert str(finding).isprintable()
        assert finding.reason in set(Reason)


@settings(deadline=None, max_examples=100)
@given(values)
def test_anything_at_all_is_read_or_refused(raw: Any) -> None:
    found = read_object(raw)
    assert found.errors
    assert identify(raw) is None


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=60) | st.text("ab:-[]{}&*!|>'\"\n #%?,0~", max_size=60), st.sampled_from(Judge))
def test_any_text_has_a_verdict(text: str, who: Judge) -> None:
    for verdict in Validator(who).judge(text, "x.yaml"):
        assert verdict.valid == (not verdict.errors)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed["kind"])
def test_no_seed_is_refused_for_what_it_should_show(seed: dict[str, Any]) -> None:
    """Seeds are good but for what is not enforced: a fuzzer that only meets refusals would find nothing."""
    found = {error.reason for error in read_object(seed).errors}
    assert found <= {Reason.NOT_SUPPORTED}


def http(rules: list[Any]) -> dict[str, Any]:
    raw = ports("ports: [{port: '80', protocol: TCP}]")
    raw["spec"]["ingress"][0]["toPorts"][0]["rules"] = {"http": rules}
    return raw


def selector(labels: dict[str, str], values: list[str]) -> dict[str, Any]:
    raw = clause("fromEndpoints: [{}]")
    raw["spec"]["ingress"][0]["fromEndpoints"][0] = {
        "matchLabels": labels,
        "matchExpressions": [{"key": "x", "operator": "In", "values": values}],
    }
    return raw


def filled(name: str, count: int, item: Any) -> dict[str, Any]:
    raw = clause("")
    raw["spec"]["ingress"][0][name] = [item] * count
    return raw


BEYOND: dict[str, Callable[[], dict[str, Any]]] = {
    "HTTP rules": lambda: http([{}] * (LIMITS["HTTP rules"] + 1)),
    "headers of a rule": lambda: http([{"headers": ["a"] * (HEADERS_MAX + 1)}]),
    "header matches of a rule": lambda: http([{"headerMatches": [{"name": "a"}] * (HEADERS_MAX + 1)}]),
    "entries": lambda: cnp(
        f"endpointSelector: {{}}, ingress: [{'{}, ' * (LIMITS['entries of ingress and egress'] + 1)}]"
    ),
    "peers": lambda: filled("fromEntities", LIMITS["peers"] + 1, "host"),
    "ports": lambda: filled("toPorts", LIMITS["ports"] // 40 + 1, {"ports": [{"port": "1"}] * 40}),
    "labels of a selector": lambda: selector({f"l{i}": "v" for i in range(REQUIREMENTS_MAX)}, ["a"]),
    "values of an expression": lambda: selector({}, [f"v{i}" for i in range(VALUES_MAX + 1)]),
    "exceptions": lambda: clause(
        f"fromCIDRSet: [{{cidr: 10.0.0.0/8, except: [{'10.1.0.0/16, ' * TOO_MANY_EXCEPTS}]}}]"
    ),
    "exceptions of all peers": lambda: filled(
        "fromCIDRSet", 3, {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] * (LIMITS["exceptions"] // 3 + 1)}
    ),
    "specs": lambda: cnp("") | {"spec": None, "specs": [{"endpointSelector": {}, "ingress": [{}]}] * 1001},
}


@pytest.mark.parametrize("what", BEYOND)
def test_beyond_a_limit_an_object_is_refused_here_only(what: str) -> None:
    started = time.process_time()
    judged = judge(BEYOND[what]())
    assert Reason.TOO_MANY in {reason for _, reason in judged.errors}
    assert judged.valid_in_cilium
    assert time.process_time() - started < 20


def test_ten_thousand_rules_are_within_every_limit() -> None:
    judged = judge(http([{"method": "GET", "path": f"/item/{i}/.*"} for i in range(10_000)]))
    assert judged.valid


def test_a_policy_of_many_peers_and_ports_is_advised_in_bounded_time() -> None:
    entry = {"fromEndpoints": [{"matchLabels": {"a": str(i)}} for i in range(100)]}
    raw = clause("")
    raw["spec"]["ingress"] = [entry] * 100
    started = time.process_time()
    assert judge(raw).valid
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("a" * (REGEX_MAX + 1), f"longer than {REGEX_MAX} characters"),
        ("(" * 200 + ")" * 200, f"nested deeper than {REGEX_DEPTH_MAX}"),
        (r"(\pL{100}){5}", "too large"),
        (r"\pL{30}", f"the most is {REGEX_PROGRAM_MAX}"),
        ("(((a{100}){100}){100})", "repetition"),
        ("a\x00b", "no request can have"),
        ("\ud800", "no request can have"),
        (r"(?P<é>a)", "Cilium's validator refuses it"),
        (r"\p{Garay}", "Cilium's validator refuses it"),
    ],
)
def test_a_hostile_regex_is_refused_at_once(pattern: str, words: str) -> None:
    fault = regex_fault(pattern)
    assert fault is not None
    assert words in fault.message


def test_who_refuses_a_regex_is_known() -> None:
    """Limits are ours; syntax is Go's too."""
    assert {p: f.by_cilium for p in ("a" * 5000, r"\pL{30}", r"\C", "[", "(" * 1001) if (f := regex_fault(p))} == {
        "a" * 5000: False,
        r"\pL{30}": False,
        r"\C": True,
        "[": True,
        "(" * 1001: True,
    }


def test_what_is_quoted_is_cut() -> None:
    found = read_object(ports(f"ports: [{{port: {'_' * 10_000}}}]"))
    assert all(len(error.message) <= MESSAGE_MAX + 3 for error in found.errors)


def test_an_object_that_is_wrong_everywhere_says_a_hundred_things() -> None:
    found = read_object(http([{"path": "["}] * 5000))
    assert len(found.errors) == FINDINGS_MAX + 1
    assert str(found.errors[-1]).endswith("4900 more are not listed")


@pytest.mark.parametrize("value", ["a\x00", "a\nb", "\x1b[31m"])
def test_control_characters_are_no_name_label_or_header(value: str) -> None:
    named = cnp("endpointSelector: {}, ingress: [{}]")
    named["metadata"]["name"] = value
    for raw in (named, selector({"a": value}, []), selector({value: "a"}, ["b"]), http([{"headers": [f"x {value}"]}])):
        found = read_object(raw)
        assert found.errors
        assert all(str(error).isprintable() for error in found.errors)
