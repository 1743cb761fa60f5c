"""Reading raw objects field by field: paths, findings, and typed access that reports instead of raising. Pure.

A `Path` costs one small object and is written out only when something is found there: objects have ten thousand rules.
An absent field and an explicit null are one and the same (Go's decoder sees no difference); an empty list is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from policies.errors import PolicyError, Reason, Severity

Raw = Mapping[str, Any]
MESSAGE_MAX: Final = 400  # characters

_KINDS: Final = {
    dict: "a mapping",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class Path:
    """Where a value stands inside its object: spec.ingress[0].fromEndpoints[1].matchLabels[app]."""

    __slots__ = ("_form", "_parent", "_step")

    def __init__(self, parent: Path | None = None, form: str = "", step: int | str = "") -> None:
        self._parent = parent
        self._form = form
        self._step = step

    def __truediv__(self, name: str) -> Path:
        """The field of that name."""
        return Path(self, ".%s", name)

    def __getitem__(self, key: int | str) -> Path:
        """The item of a list, or the entry of a map whose keys are the user's."""
        return Path(self, "[%s]", key)

    def __str__(self) -> str:
        steps = []
        here: Path = self
        while here._parent is not None:
            steps.append(here._form % here._step)
            here = here._parent
        return "".join(reversed(steps)).removeprefix(".")


ROOT: Final = Path()


def steps_of(path: str) -> list[str]:
    """The steps of a written path: names and, for list items and map entries, what stands in brackets."""
    steps: list[str] = []
    for i, part in enumerate(_outside_brackets(path)):
        inside = i % 2 == 1
        steps += [part] if inside else [name for name in part.split(".") if name]
    return steps


def _outside_brackets(path: str) -> list[str]:
    """Text outside and inside brackets, alternating, beginning outside."""
    parts, rest = [], path
    while rest:
        before, bracket, rest = rest.partition("[")
        inside, _, rest = rest.partition("]")
        parts += [before, inside] if bracket else [before]
    return parts


@dataclass(slots=True)
class Findings:
    """What is to be said of one object, as it is being read. `errors` refuse it, `warnings` do not.

    Four ways to add one, by who refuses the object for it: Cilium v1.19.4 and this project, either of them, or nobody.
    """

    kind: str = ""
    namespace: str = ""
    name: str = ""
    errors: list[PolicyError] = field(default_factory=list)
    warnings: list[PolicyError] = field(default_factory=list)

    def add(self, path: Path, reason: str, message: str) -> None:
        """Refused here and by Cilium (its schema, or its own check)."""
        self.errors.append(self._finding(path, reason, message, True))

    def ours(self, path: Path, reason: str, message: str) -> None:
        """Refused here only: it cannot mean what it says, is not enforced, or is beyond a limit of ours."""
        self.errors.append(self._finding(path, reason, message, False))

    def theirs(self, path: Path, reason: str, message: str) -> None:
        """Refused by Cilium only."""
        self.warnings.append(self._finding(path, reason, message, True, Severity.WARNING))

    def warn(self, path: Path, reason: str, message: str) -> None:
        """Accepted by both, but perhaps not what its author means."""
        self.warnings.append(self._finding(path, reason, message, False, Severity.WARNING))

    def _finding(
        self, path: Path, reason: str, message: str, by_cilium: bool, severity: Severity = Severity.ERROR
    ) -> PolicyError:
        about = (self.kind, self.namespace, self.name, str(path))
        if len(message) > MESSAGE_MAX:  # it may quote what somebody wrote
            message = f"{message[:MESSAGE_MAX]}..."
        return PolicyError(*about, reason, message, severity=severity, by_cilium=by_cilium)


def describe(value: object) -> str:
    """How an error message calls a value of this type."""
    return _KINDS.get(type(value), type(value).__name__)


def mapping(raw: Any, path: Path, findings: Findings) -> Raw | None:
    """The mapping, or None after a finding. Call it only where something is present."""
    if isinstance(raw, dict):
        return raw
    findings.add(path, Reason.WRONG_TYPE, f"must be a mapping, not {describe(raw)}")
    return None


def sequence(raw: Any, path: Path, findings: Findings) -> Sequence[Any] | None:
    """The list, or None after a finding."""
    if isinstance(raw, list):
        return raw
    findings.add(path, Reason.WRONG_TYPE, f"must be a list, not {describe(raw)}")
    return None


def text(raw: Raw, name: str, path: Path, findings: Findings) -> str:
    """The string field of that name; "" if absent, null or, after a finding, of another type."""
    value = raw.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        hint = f': write "{str(value).lower() if isinstance(value, bool) else value}"'
        tail = hint if isinstance(value, int | float) else ""
        findings.add(path / name, Reason.WRONG_TYPE, f"must be a string, not {describe(value)}{tail}")
        return ""
    return value


def integer(raw: Raw, name: str, path: Path, findings: Findings) -> int | None:
    """The integer field of that name; None if absent, null or, after a finding, of another type."""
    value = raw.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    findings.add(path / name, Reason.WRONG_TYPE, f"must be a whole number, not {describe(value)}")
    return None


def flag(raw: Raw, name: str, path: Path, findings: Findings) -> bool | None:
    """The boolean field of that name; None if absent, null or, after a finding, of another type."""
    value = raw.get(name)
    if value is None or isinstance(value, bool):
        return value
    findings.add(path / name, Reason.WRONG_TYPE, f"must be true or false, not {describe(value)}")
    return None


def submap(raw: Raw, name: str, path: Path, findings: Findings) -> Raw:
    """The mapping field of that name; {} if absent, null or, after a finding, of another type."""
    value = raw.get(name)
    return {} if value is None else mapping(value, path / name, findings) or {}


def items(raw: Raw, name: str, path: Path, findings: Findings) -> Sequence[Any]:
    """The list field of that name; [] if absent, null or, after a finding, of another type."""
    value = raw.get(name)
    return [] if value is None else sequence(value, path / name, findings) or []


def strings(raw: Raw, path: Path, findings: Findings) -> dict[str, str]:
    """Those entries of a map whose values are strings; a finding for each other one."""
    good: dict[str, str] = {}
    for key, value in raw.items():
        if isinstance(value, str):
            good[key] = value
        elif value is None:
            good[key] = ""  # Go decodes null into an empty string
        else:
            findings.add(path[key], Reason.WRONG_TYPE, f"must be a string, not {describe(value)}: quote it")
    return good


Refusal = tuple[str, str]  # reason, message
_UNKNOWN: Final = "no such field in the schema: check its name and place"


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields that a mapping may have: known ones, and those that get words of their own.

    What is not known is refused here; the API server drops it, so Cilium never sees it. `unsupported` is refused here,
    `refused` by Cilium too.
    """

    known: frozenset[str]
    unsupported: Mapping[str, Refusal] = field(default_factory=dict)
    refused: Mapping[str, Refusal] = field(default_factory=dict)

    @classmethod
    def of(cls, *known: str) -> Schema:
        return cls(frozenset(known))

    def check(self, raw: Raw, path: Path, findings: Findings) -> None:
        """Report every field of `raw` that is not known. Null counts as absent."""
        if raw.keys() <= self.known:
            return
        for name, value in raw.items():
            if name in self.known or value is None:
                continue
            if name in self.refused:
                findings.add(path / name, *self.refused[name])
            elif name in self.unsupported:
                findings.ours(path / name, *self.unsupported[name])
            else:
                findings.ours(path / name, Reason.UNKNOWN_FIELD, _UNKNOWN)
