"""The strict parse of suites: plain YAML data to conformance.scenario values. Pure.

Whatever is not known is refused with its field path. Policies may stand in the suite, by name, or in the scenario that
alone has them (`policy:`). `defaults` are fields that every probe has if it does not say otherwise, `question` those of
every question, `errand` those of every errand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conformance.blueprint import Blueprint, Host
from conformance.errand import Ending, Errand
from conformance.errors import SuiteError
from conformance.fields import Fields
from conformance.objects import POLICY_VERSIONS, policy_object
from conformance.parse_errand import parse_errands
from conformance.parse_galaxy import parse_galaxy, parse_name
from conformance.parse_probe import parse_probes, parse_request, parse_target
from conformance.parse_question import parse_questions
from conformance.scenario import (
    FAMILIES,
    Apply,
    Ask,
    Close,
    Command,
    Level,
    Open,
    Order,
    Policy,
    Probe,
    Refuse,
    Remove,
    Rename,
    Resolve,
    Run,
    Scenario,
    Settle,
    Step,
    Stream,
    Suite,
    Traffic,
)
from conformance.target import Target


@dataclass(frozen=True, slots=True)
class _Makings:
    """What the scenarios of a suite share: policies so far, the node's flags, fields that every probe, every
    question and every errand has, hosts that names may stand for."""

    policies: dict[str, Policy]
    flags: tuple[str, ...]
    defaults: Mapping[str, Any]
    question: Mapping[str, Any]
    errand: Mapping[str, Any]
    hosts: tuple[Host, ...]


def parse_suite(value: Any) -> Suite:
    """Plain data to a Suite. Raises SuiteError with the field path."""
    top = Fields.of(value, "suite")
    name = top.take("suite", str)
    galaxy = parse_galaxy(top.take("galaxy", (str, dict)), name)
    versions = Fields.of(top.take("policies", dict, {}), "policies").value
    policies = {key: _policy(key, body, f"policies.{key}") for key, body in versions.items()}
    top.take("shared", dict, {})  # a home for anchors
    makings = _Makings(
        policies=policies,
        flags=top.names("flags", []),
        defaults=top.take("defaults", dict, {}),
        question=top.take("question", dict, {}),
        errand=top.take("errand", dict, {}),
        hosts=galaxy.hosts,
    )
    scenarios = tuple(
        _scenario(entry, f"scenarios[{n}]", makings) for n, entry in enumerate(top.take("scenarios", list))
    )
    top.done()
    names = [scenario.name for scenario in scenarios]
    for n, scenario_name in enumerate(names):
        if scenario_name in names[:n]:
            raise SuiteError(f"scenarios[{n}].name", f"{scenario_name!r} is there already")
        _check_places(scenarios[n], galaxy, f"scenarios[{n}]")
    return Suite(name, policies, scenarios, galaxy)


def _policy(name: str, value: Any, path: str) -> Policy:
    """`object`, `kind`, `namespace` and spec or specs; or `manifests`, whole objects of any kind."""
    fields = Fields.of(value, path)
    kubernetes_name = fields.take("object", str, name)
    if "manifests" in fields.value:
        entries = fields.take("manifests", list)
        objects = [Fields.of(entry, f"{path}.manifests[{n}]").value for n, entry in enumerate(entries)]
    else:
        kind = fields.choice("kind", tuple(POLICY_VERSIONS), "CiliumNetworkPolicy")
        namespace = fields.take("namespace", str, "default")
        body: dict[str, Any] = {key: fields.take(key, (dict, list)) for key in ("spec", "specs") if key in fields.value}
        if not body:
            raise SuiteError(path, "needs spec or specs")
        objects = [policy_object(kind, kubernetes_name, namespace, body)]
    fields.done()
    return Policy(name, kubernetes_name, tuple(objects))


def _scenario(value: Any, path: str, makings: _Makings) -> Scenario:
    """`policy` is one that nobody else needs: it is known by the scenario's name."""
    fields, policies = Fields.of(value, path), makings.policies
    name = fields.take("name", str)
    title = fields.take("title", str)
    level = Level(fields.choice("level", tuple(Level), Level.CORE.value))
    held = _known(fields.names("policies", []), policies, f"{path}.policies")
    if "policy" in fields.value:
        if name in policies:
            raise SuiteError(f"{path}.policy", f"there is a policy {name!r} already")
        policies[name] = _policy(name, fields.take("policy", dict), f"{path}.policy")
        held = (*held, name)
    flags = fields.names("flags", list(makings.flags))
    steps = tuple(_step(step, f"{path}.steps[{n}]", makings) for n, step in enumerate(fields.take("steps", list)))
    fields.done()
    _check_names(steps, path)
    return Scenario(name, title, level, held, steps, flags)


def _check_places(scenario: Scenario, galaxy: Blueprint, path: str) -> None:
    """Whoever asks or is asked is there."""
    sources = {"node", "world", *(pod.alias for pod in galaxy.pods), *(host.name for host in galaxy.hosts)}
    targets = {
        **{f"pod/{pod.alias}": pod for pod in galaxy.pods},
        **{f"host/{host.name}": host for host in galaxy.hosts},
        **{f"service/{service.name}": service for service in galaxy.services},
    }
    for n, step in enumerate(scenario.steps):
        for source, target in _asking(step):
            whom = f"{target.kind}/{target.name}"
            if source not in sources:
                raise SuiteError(f"{path}.steps[{n}]", f"there is no {source!r} in the galaxy")
            if target.name and whom not in targets:
                raise SuiteError(f"{path}.steps[{n}]", f"there is no {whom!r} in the galaxy")


def _asking(step: Step) -> list[tuple[str, Target]]:
    """Who asks whom in a step."""
    match step:
        case Ask():
            return [(probe.source, probe.target) for probe in step.probes]
        case Resolve():
            return [(question.source, question.server) for question in step.questions]
        case Run():
            return [(errand.source, errand.broker) for errand in step.errands]
        case Stream():
            return [(step.errand.source, step.errand.broker)]
        case Open() | Traffic():
            return [(step.source, step.target)]
        case _:
            return []


def _check_names(steps: tuple[Step, ...], path: str) -> None:
    """Connections and loops are opened before they are used."""
    open_names: set[str] = set()
    for n, step in enumerate(steps):
        used: set[str] = set()
        match step:
            case Open() | Traffic() | Stream():
                open_names.add(step.name)
            case Close() | Settle():
                used = {step.name}
            case Ask():
                used = {probe.over for probe in step.probes if probe.over}
        if used - open_names:
            raise SuiteError(f"{path}.steps[{n}]", f"nothing named {sorted(used - open_names)[0]!r} is open here")


def _known(names: tuple[str, ...], policies: Mapping[str, Policy], path: str) -> tuple[str, ...]:
    for name in names:
        if name not in policies:
            raise SuiteError(path, f"there is no policy {name!r}")
    return names


def _step(value: Any, path: str, makings: _Makings) -> Step:
    fields = Fields.of(value, path)
    kind = next((kind for kind in STEPS if kind in fields.value), None)
    if kind is None:
        raise SuiteError(path, f"must be one of {', '.join(STEPS)}")
    step = STEPS[kind](fields, makings)
    fields.done()
    return step


def _apply(fields: Fields, makings: _Makings) -> Step:
    return Apply(_known(fields.names("apply"), makings.policies, f"{fields.path}.apply"))


def _remove(fields: Fields, makings: _Makings) -> Step:
    return Remove(_known(fields.names("remove"), makings.policies, f"{fields.path}.remove"))


def _refuse(fields: Fields, makings: _Makings) -> Step:
    inner = Fields.of(fields.take("refuse", dict), f"{fields.path}.refuse")
    step = Refuse(inner.take("object", str), inner.take("text", str), inner.names("complaint"))
    inner.done()
    return step


def _open(fields: Fields, makings: _Makings) -> Step:
    inner = Fields.of(fields.take("open", dict), f"{fields.path}.open")
    step = Open(inner.take("name", str), inner.take("from", str), parse_target(inner), inner.choice("ip", FAMILIES, 4))
    inner.done()
    return step


def _close(fields: Fields, makings: _Makings) -> Step:
    return Close(fields.take("close", str))


def _traffic(fields: Fields, makings: _Makings) -> Step:
    inner = Fields.of(fields.take("traffic", dict), f"{fields.path}.traffic")
    step = Traffic(
        name=inner.take("name", str),
        source=inner.take("from", str),
        target=parse_target(inner),
        request=parse_request(inner.take("request", str), inner),
        connections=inner.take("connections", int, 2),
        family=inner.choice("ip", FAMILIES, 4),
    )
    inner.done()
    return step


def _settle(fields: Fields, makings: _Makings) -> Step:
    inner = Fields.of(fields.take("settle", dict), f"{fields.path}.settle")
    step = Settle(
        inner.take("name", str), inner.take("before", int), inner.take("after", int), inner.take("resets", bool, False)
    )
    inner.done()
    return step


def _command(fields: Fields, makings: _Makings) -> Step:
    return Command(Order(fields.choice("node", tuple(Order))))


def _ask(fields: Fields, makings: _Makings) -> Step:
    entries = fields.take("probe", list)
    probes = [
        probe
        for n, entry in enumerate(entries)
        for probe in _with_defaults(entry, makings, f"{fields.path}.probe[{n}]")
    ]
    return Ask(tuple(probes), fields.take("in_turn", bool, False))


def _resolve(fields: Fields, makings: _Makings) -> Step:
    entries = fields.take("resolve", list)
    paths = [f"{fields.path}.resolve[{n}]" for n in range(len(entries))]
    whole = [{**makings.question, **Fields.of(entry, path).value} for entry, path in zip(entries, paths, strict=True)]
    questions = [question for n, entry in enumerate(whole) for question in parse_questions(entry, paths[n])]
    return Resolve(tuple(questions), fields.take("in_turn", bool, False))


def _run(fields: Fields, makings: _Makings) -> Step:
    entries = fields.take("run", list)
    errands = [
        errand for n, entry in enumerate(entries) for errand in _errands(entry, makings, f"{fields.path}.run[{n}]")
    ]
    return Run(tuple(errands), fields.take("in_turn", bool, False))


def _errands(entry: Any, makings: _Makings, path: str) -> Iterator[Errand]:
    return parse_errands({**makings.errand, **Fields.of(entry, path).value}, path)


def _stream(fields: Fields, makings: _Makings) -> Step:
    path = f"{fields.path}.stream"
    inner = Fields.of(fields.take("stream", dict), path)
    name = inner.take("name", str)
    entry = {key: value for key, value in inner.value.items() if key != "name"}
    (errand,) = _errands({"expect": Ending.SERVED.value, **entry}, makings, path)
    return Stream(name, errand)


def _rename(fields: Fields, makings: _Makings) -> Step:
    return Rename(tuple(parse_name(name, entry, makings.hosts) for name, entry in fields.entries("rename")))


def _with_defaults(entry: Any, makings: _Makings, path: str) -> Iterator[Probe]:
    return parse_probes({**makings.defaults, **Fields.of(entry, path).value}, path)


STEPS: dict[str, Callable[[Fields, _Makings], Step]] = {
    "apply": _apply,
    "remove": _remove,
    "refuse": _refuse,
    "probe": _ask,
    "resolve": _resolve,
    "rename": _rename,
    "run": _run,
    "stream": _stream,
    "open": _open,
    "close": _close,
    "traffic": _traffic,
    "settle": _settle,
    "node": _command,
}
