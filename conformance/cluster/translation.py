"""A suite in the words of a cluster: its namespaces have other names there, and its pods other addresses. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from conformance.blueprint import Blueprint
from conformance.cluster.claim import DEFAULT
from conformance.scenario import Ask, Policy, Probe, Scenario, Step, Suite

NAMESPACE_LABELS = ("io.kubernetes.pod.namespace", "kubernetes.io/metadata.name")
NAMESPACE_FIELDS = ("namespace",)  # of metadata, and of services in policies
UNTOUCHED = ("url", "summary")  # of flows: what clients said


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Of each namespace and of each address of a suite, what it is in the cluster."""

    spaces: Mapping[str, str]
    addresses: Mapping[str, str]

    def text(self, text: str) -> str:
        """Addresses, wherever they stand."""
        for before, after in self.addresses.items():
            text = re.sub(rf"(?<![0-9a-fA-F:.]){re.escape(before)}(?![0-9a-fA-F:.])", after, text)
        return text

    def pattern(self, text: str) -> str:
        """Of a flow's field: NAMESPACE/NAME, and addresses."""
        for before, after in self.spaces.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(before)}/", f"{after}/", text)
        return self.text(text)

    def manifest(self, value: Any) -> Any:
        """An object: namespaces where it names them."""
        if isinstance(value, list | tuple):
            return [self.manifest(inner) for inner in value]
        if not isinstance(value, Mapping):
            return value
        made = {key: self._field(str(key), inner) for key, inner in value.items()}
        if _is_about_namespaces(str(value.get("key", ""))) and "values" in made:
            made["values"] = [self.spaces.get(one, one) for one in made["values"]]
        return made

    def _field(self, key: str, value: Any) -> Any:
        if isinstance(value, str) and (key in NAMESPACE_FIELDS or _is_about_namespaces(key)):
            return self.spaces.get(value, value)
        return self.manifest(value)


def _is_about_namespaces(label: str) -> bool:
    return label.endswith(NAMESPACE_LABELS)  # whatever the source: k8s:, any:, none


def dictionary(before: Blueprint, after: Blueprint, spaces: Mapping[str, str]) -> Dictionary:
    """What has changed from the galaxy of a suite to that of the cluster."""
    changed = {(a.address(f), b.address(f)) for a, b in zip(before.pods, after.pods, strict=True) for f in (4, 6)}
    services = zip(before.services, after.services, strict=True)
    changed |= {(old.address(family), new.address(family)) for old, new in services for family in (4, 6)}
    return Dictionary(spaces, {old: new for old, new in sorted(changed) if new and old != new})


def translated(suite: Suite, words: Dictionary, galaxy: Blueprint) -> Suite:
    """The suite as it is played on this galaxy."""
    policies = {name: _policy(policy, words) for name, policy in suite.policies.items()}
    return replace(suite, policies=policies, galaxy=galaxy)


def translated_scenario(scenario: Scenario, words: Dictionary) -> Scenario:
    """The scenario as it is played with these words."""
    return replace(scenario, steps=tuple(_step(step, words) for step in scenario.steps))


def _policy(policy: Policy, words: Dictionary) -> Policy:
    manifests = []
    for manifest in policy.manifests:
        made = words.manifest(manifest)
        made["metadata"].setdefault("namespace", words.spaces[DEFAULT])
        manifests.append(made)
    return replace(policy, manifests=tuple(manifests))


def _step(step: Step, words: Dictionary) -> Step:
    return replace(step, probes=tuple(_probe(probe, words) for probe in step.probes)) if isinstance(step, Ask) else step


def _probe(probe: Probe, words: Dictionary) -> Probe:
    return replace(
        probe,
        body_has=tuple(map(words.text, probe.body_has)),
        body_lacks=tuple(map(words.text, probe.body_lacks)),
        flows=tuple({name: _reader(name, words)(text) for name, text in flow.items()} for flow in probe.flows),
    )


def _reader(field: str, words: Dictionary) -> Callable[[str], str]:
    return words.text if field in UNTOUCHED else words.pattern
