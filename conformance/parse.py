"""The strict parse of suites: plain YAML data to conformance.scenario values. Pure.

A probe whose `from`, `to`, `ip`, `http` or `request` is a list stands for every combination. Whatever is not known is
refused with its field path.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from conformance.errors import SuiteError
from conformance.flow_view import FLOW_FIELDS
from conformance.scenario import (
    EGRESS,
    FAMILIES,
    HTTP_VERSIONS,
    INGRESS,
    PROTOCOLS,
    TARGET_KINDS,
    Apply,
    Ask,
    Close,
    Command,
    Level,
    Open,
    Order,
    Outcome,
    Policy,
    Probe,
    Refuse,
    Remove,
    Request,
    Scenario,
    Settle,
    Step,
    Suite,
    Target,
    Traffic,
)


@dataclass(slots=True)
class Fields:
    """A mapping that is read field by field; `done` refuses whatever nobody asked for."""

    value: dict[str, Any]
    path: str
    seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, value: Any, path: str) -> Fields:
        if not isinstance(value, dict):
            raise SuiteError(path, f"must be a mapping, is {_kind(value)}")
        for key in value:
            if not isinstance(key, str):
                raise SuiteError(path, f"has the key {key!r}, which is {_kind(key)}: quote it")
        return cls(value, path)

    def take(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The field, or the default if it is absent; without a default it must be there."""
        self.seen.add(name)
        if name not in self.value:
            if default is None:
                raise SuiteError(f"{self.path}.{name}", "is missing")
            return default
        value = self.value[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise SuiteError(f"{self.path}.{name}", f"has the wrong type {_kind(value)}")
        return value

    def choice(self, name: str, allowed: tuple[Any, ...], default: Any = None) -> Any:
        value = self.take(name, (str, int), default)
        if value not in allowed:
            raise SuiteError(f"{self.path}.{name}", f"{value!r} is none of {', '.join(map(str, allowed))}")
        return value

    def names(self, name: str, default: list[str] | None = None) -> tuple[str, ...]:
        """A string, or a list of strings."""
        value = self.take(name, (str, list), default)
        values = [value] if isinstance(value, str) else value
        if not all(isinstance(entry, str) for entry in values):
            raise SuiteError(f"{self.path}.{name}", "must be a list of strings")
        return tuple(values)

    def done(self) -> None:
        unknown = sorted(set(self.value) - self.seen)
        if unknown:
            raise SuiteError(f"{self.path}.{unknown[0]}", "is not a known field")


def parse_suite(value: Any) -> Suite:
    """Plain data to a Suite. Raises SuiteError with the field path."""
    top = Fields.of(value, "suite")
    name = top.take("suite", str)
    versions = Fields.of(top.take("policies", dict), "policies").value
    policies = {key: _policy(key, body, f"policies.{key}") for key, body in versions.items()}
    scenarios = tuple(
        _scenario(entry, f"scenarios[{n}]", policies) for n, entry in enumerate(top.take("scenarios", list))
    )
    top.done()
    names = [scenario.name for scenario in scenarios]
    for n, scenario_name in enumerate(names):
        if scenario_name in names[:n]:
            raise SuiteError(f"scenarios[{n}].name", f"{scenario_name!r} is there already")
    return Suite(name, policies, scenarios)


def _policy(name: str, value: Any, path: str) -> Policy:
    fields = Fields.of(value, path)
    kubernetes_name = fields.take("object", str, name)
    body: dict[str, Any] = {key: fields.take(key, (dict, list)) for key in ("spec", "specs") if key in fields.value}
    if not body:
        raise SuiteError(path, "needs spec or specs")
    fields.done()
    return Policy(name, kubernetes_name, body)


def _scenario(value: Any, path: str, policies: Mapping[str, Policy]) -> Scenario:
    fields = Fields.of(value, path)
    name = fields.take("name", str)
    title = fields.take("title", str)
    level = Level(fields.choice("level", tuple(Level), Level.CORE.value))
    held = _known(fields.names("policies", []), policies, f"{path}.policies")
    steps = tuple(_step(step, f"{path}.steps[{n}]", policies) for n, step in enumerate(fields.take("steps", list)))
    fields.done()
    _check_names(steps, path)
    return Scenario(name, title, level, held, steps)


def _check_names(steps: tuple[Step, ...], path: str) -> None:
    """Connections and loops are opened before they are used."""
    open_names: set[str] = set()
    for n, step in enumerate(steps):
        used: set[str] = set()
        match step:
            case Open() | Traffic():
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


def _step(value: Any, path: str, policies: Mapping[str, Policy]) -> Step:
    fields = Fields.of(value, path)
    kind = next((kind for kind in STEPS if kind in fields.value), None)
    if kind is None:
        raise SuiteError(path, f"must be one of {', '.join(STEPS)}")
    step = STEPS[kind](fields, policies)
    fields.done()
    return step


def _apply(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    return Apply(_known(fields.names("apply"), policies, f"{fields.path}.apply"))


def _remove(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    return Remove(_known(fields.names("remove"), policies, f"{fields.path}.remove"))


def _refuse(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    inner = Fields.of(fields.take("refuse", dict), f"{fields.path}.refuse")
    step = Refuse(inner.take("object", str), inner.take("text", str), inner.names("complaint"))
    inner.done()
    return step


def _open(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    inner = Fields.of(fields.take("open", dict), f"{fields.path}.open")
    step = Open(inner.take("name", str), inner.take("from", str), _target(inner), inner.choice("ip", FAMILIES, 4))
    inner.done()
    return step


def _close(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    return Close(fields.take("close", str))


def _traffic(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    inner = Fields.of(fields.take("traffic", dict), f"{fields.path}.traffic")
    step = Traffic(
        name=inner.take("name", str),
        source=inner.take("from", str),
        target=_target(inner),
        request=_request(inner.take("request", str), inner),
        connections=inner.take("connections", int, 2),
        family=inner.choice("ip", FAMILIES, 4),
    )
    inner.done()
    return step


def _settle(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    inner = Fields.of(fields.take("settle", dict), f"{fields.path}.settle")
    step = Settle(
        inner.take("name", str), inner.take("before", int), inner.take("after", int), inner.take("resets", bool, False)
    )
    inner.done()
    return step


def _command(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    return Command(Order(fields.choice("node", tuple(Order))))


def _ask(fields: Fields, policies: Mapping[str, Policy]) -> Step:
    entries = fields.take("probe", list)
    probes = [probe for n, entry in enumerate(entries) for probe in _probes(entry, f"{fields.path}.probe[{n}]")]
    return Ask(tuple(probes), fields.take("in_turn", bool, False))


STEPS: dict[str, Callable[[Fields, Mapping[str, Policy]], Step]] = {
    "apply": _apply,
    "remove": _remove,
    "refuse": _refuse,
    "probe": _ask,
    "open": _open,
    "close": _close,
    "traffic": _traffic,
    "settle": _settle,
    "node": _command,
}

VARIED = ("from", "to", "ip", "http", "request")  # a list here stands for one probe per entry


def _probes(value: Any, path: str) -> Iterator[Probe]:
    entry = Fields.of(value, path).value
    varied = [name for name in VARIED if isinstance(entry.get(name), list)]
    for choice in itertools.product(*(entry[name] for name in varied)):
        yield _probe(Fields({**entry, **dict(zip(varied, choice, strict=True))}, path))


def _probe(fields: Fields) -> Probe:
    protocol = fields.choice("protocol", PROTOCOLS, "tcp")
    request = _request(fields.take("request", str), fields) if protocol == "tcp" else None
    probe = Probe(
        source=fields.take("from", str),
        target=_target(fields),
        expect=Outcome(fields.choice("expect", tuple(Outcome))),
        request=request,
        protocol=protocol,
        family=fields.choice("ip", FAMILIES, 4),
        status=fields.take("status", int, 200),
        at=fields.names("at", [INGRESS]),
        judged=fields.take("judged", str, ""),
        drop_reason=fields.take("drop_reason", str, "POLICY_DENIED"),
        body_has=fields.take("body_has", str, ""),
        over=fields.take("over", str, ""),
        flows=tuple(_flow(flow, f"{fields.path}.flows[{n}]") for n, flow in enumerate(fields.take("flows", list, []))),
    )
    if not probe.at or any(direction not in (INGRESS, EGRESS) for direction in probe.at):
        raise SuiteError(f"{fields.path}.at", f"must name {INGRESS} or {EGRESS}")
    fields.done()
    return probe


def _request(line: str, fields: Fields) -> Request:
    method, space, path = line.partition(" ")
    if not space or not method or not path.startswith("/"):
        raise SuiteError(f"{fields.path}.request", f"{line!r} is not METHOD /path")
    headers = Fields.of(fields.take("headers", dict, {}), f"{fields.path}.headers").value
    return Request(
        method=method,
        path=path,
        http=fields.choice("http", HTTP_VERSIONS, "1.1"),
        host=fields.take("host", str, ""),
        headers=tuple((name, str(text)) for name, text in headers.items()),
        body=fields.take("body", str) if "body" in fields.value else None,
        chunked=fields.take("chunked", bool, False),
    )


def _target(fields: Fields) -> Target:
    text = fields.take("to", str)
    kind, _, name = text.partition("/")
    if kind not in TARGET_KINDS or (kind in ("pod", "service")) != bool(name):
        raise SuiteError(f"{fields.path}.to", f"{text!r} is none of pod/ALIAS, service/NAME, node, world, proxy")
    return Target(kind, name, fields.take("port", int, 80))


def _flow(value: Any, path: str) -> Mapping[str, str]:
    fields = Fields.of(value, path)
    for name in fields.value:
        if name not in FLOW_FIELDS:
            raise SuiteError(f"{path}.{name}", f"is none of {', '.join(sorted(FLOW_FIELDS))}")
    return {name: str(text) for name, text in fields.value.items()}


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "a string", int: "a number", type(None): "nothing"}.get(
        type(value), type(value).__name__
    )
