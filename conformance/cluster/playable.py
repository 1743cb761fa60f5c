"""What of a suite can be played in a cluster that is somebody's, and why the rest cannot. Pure.

A cluster gives pods, services and policies of namespaces. It gives nobody outside that is ours, no other nodes that we
know, no node to be killed or started with other flags; and what holds for a whole cluster is not ours to change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from conformance.cluster.crew import crew, services
from conformance.report import Omitted
from conformance.scenario import (
    Apply,
    Ask,
    Close,
    Command,
    Open,
    Policy,
    Probe,
    Refuse,
    Remove,
    Scenario,
    Settle,
    Sneak,
    Step,
    Suite,
    Traffic,
)

PLAYED_KINDS = ("CiliumNetworkPolicy", "NetworkPolicy")
STEPS: Mapping[type, str] = {
    Command: "it kills, stops or starts the node",
    Refuse: "an API server takes no file that is no good",
    Sneak: "what arrives is recorded on this machine only",
}
FIELDS = {
    **dict.fromkeys(("fromCIDR", "toCIDR", "fromCIDRSet", "toCIDRSet", "ipBlock"), "its policies name addresses"),
    **dict.fromkeys(("fromNodes", "toNodes"), "its policies are about nodes"),
    **dict.fromkeys(("secret", "secrets"), "its policies name Secrets"),
}
NOTHING_LEFT = "nothing of it is left to ask"


@dataclass(frozen=True, slots=True)
class Programme:
    """What is played, and what is not; of what is played, `left_out` says what is left out, by scenario."""

    scenarios: tuple[Scenario, ...]
    omitted: tuple[Omitted, ...]
    left_out: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Hall:
    """Who there is, and by which families."""

    pods: frozenset[str]
    services: frozenset[str]
    families: tuple[int, ...]

    def why_not(self, one: Probe | Open | Traffic) -> str:
        """Why this cannot be asked; "" if it can."""
        known = {"pod": self.pods, "service": self.services}
        if one.source not in self.pods:
            return f"there is no {one.source} to ask from"
        if one.target.name not in known.get(one.target.kind, ()):
            return f"there is no {one.target.name or one.target.kind} to be asked"
        if one.family not in self.families:
            return f"the cluster gives no IPv{one.family} addresses"
        return ""


def programme(suite: Suite, scenarios: tuple[Scenario, ...], families: tuple[int, ...]) -> Programme:
    """What can be played of these scenarios, in their order."""
    pods, named = (
        frozenset(x) for x in ([p.alias for p in crew(suite.galaxy)], [s.name for s in services(suite.galaxy)])
    )
    hall = _Hall(pods, named, families)
    played: list[Scenario] = []
    omitted: list[Omitted] = []
    left_out: dict[str, tuple[str, ...]] = {}
    for scenario in scenarios:
        without, reasons = _without(scenario, hall)
        why = next(_obstacles(suite, scenario), "") or ("" if _asks(without) else next(iter(reasons), NOTHING_LEFT))
        if why:
            omitted.append(Omitted(scenario.name, scenario.title, why))
            continue
        played.append(without)
        left_out[scenario.name] = tuple(f"{count} left out: {why}" for why, count in sorted(reasons.items()))
    return Programme(tuple(played), tuple(omitted), left_out)


def _obstacles(suite: Suite, scenario: Scenario) -> Iterator[str]:
    """Why a scenario cannot be played at all."""
    if scenario.flags:
        yield f"it needs a node with {' '.join(scenario.flags)}"
    played = (Apply, Remove, Ask, Open, Close, Traffic, Settle)
    for step in scenario.steps:
        if not isinstance(step, played):
            yield STEPS.get(type(step), "its clients and servers are on this machine only")
    for name in sorted(_policies(scenario)):
        yield from _policy_obstacles(suite.policies[name])


def _policies(scenario: Scenario) -> set[str]:
    later = (name for step in scenario.steps if isinstance(step, Apply | Remove) for name in step.policies)
    return {*scenario.policies, *later}


def _policy_obstacles(policy: Policy) -> Iterator[str]:
    for manifest in policy.manifests:
        if manifest["kind"] not in PLAYED_KINDS:
            yield f"a {manifest['kind']} holds for more than what is ours"
        for field in sorted(set(_keys(manifest)) & set(FIELDS)):
            yield FIELDS[field]


def _keys(value: Any) -> Iterator[str]:
    """All keys of all mappings within."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _keys(inner)


def _without(scenario: Scenario, hall: _Hall) -> tuple[Scenario, Counter[str]]:
    """The scenario without what cannot be asked, and how often each reason was met."""
    reasons: Counter[str] = Counter()
    gone: set[str] = set()  # connections and loops that are not opened
    steps: list[Step] = []
    for step in scenario.steps:
        match step:
            case Open() | Traffic() if why := hall.why_not(step):
                reasons[why] += 1
                gone.add(step.name)
            case Settle() | Close() if step.name in gone:
                pass
            case Ask():
                kept = []
                for probe in step.probes:
                    if probe.over in gone:
                        continue
                    why = hall.why_not(probe)
                    reasons[why] += 1 if why else 0
                    kept += [] if why else [probe]
                steps += [replace(step, probes=tuple(kept))] if kept else []
            case _:
                steps.append(step)
    return replace(scenario, steps=tuple(steps)), +reasons


def _asks(scenario: Scenario) -> bool:
    return any(isinstance(step, Ask | Settle) for step in scenario.steps)
