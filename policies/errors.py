"""What is wrong with a user's object: which object, which field, which reason, in one line. Pure values.

Findings are collected, never raised one by one: whoever reads an object reports everything about it. A finding knows
two judges: `severity` is ours, `by_cilium` says whether Cilium v1.19.4 would refuse the object for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Reason(StrEnum):
    """Reason codes: stable words for status conditions, metrics and tests."""

    SYNTAX = "SyntaxError"
    UNREADABLE = "Unreadable"
    UNKNOWN_KIND = "UnknownKind"
    UNKNOWN_FIELD = "UnknownField"
    DROPPED_FIELD = "DroppedField"
    NOT_SUPPORTED = "NotSupported"
    NOT_ALLOWED = "NotAllowed"
    CONFLICT = "ConflictingFields"
    MISSING = "MissingField"
    WRONG_TYPE = "WrongType"
    INVALID = "InvalidValue"
    TOO_MANY = "TooMany"
    EMPTY = "EmptyPolicy"
    BAD_PORT = "InvalidPort"
    BAD_CIDR = "InvalidCIDR"
    BAD_ENTITY = "InvalidEntity"
    BAD_ICMP = "InvalidICMP"
    BAD_NAME = "InvalidDNSName"
    BAD_KAFKA = "InvalidKafka"
    BAD_REGEX = "BadRegex"
    BAD_HEADER = "BadHeader"
    BAD_SELECTOR = "InvalidSelector"
    L7_VOIDED = "L7Voided"
    SELECTS_NOTHING = "SelectsNothing"
    SELECTS_EVERYTHING = "SelectsEverything"
    SHADOWED = "ShadowedRule"
    REWRITTEN = "Rewritten"
    NOT_IN_SCHEMA = "NotInSchema"
    DUPLICATE = "DuplicateObject"
    ADDRESS_CONFLICT = "AddressConflict"
    NO_IDENTITY = "IdentitiesExhausted"
    UNKNOWN_POD = "UnknownPod"


PHRASES: dict[str, str] = {
    Reason.SYNTAX: "is not valid YAML",
    Reason.UNREADABLE: "cannot be read",
    Reason.UNKNOWN_KIND: "unknown kind",
    Reason.UNKNOWN_FIELD: "unknown field",
    Reason.DROPPED_FIELD: "would be dropped",
    Reason.NOT_SUPPORTED: "not supported",
    Reason.NOT_ALLOWED: "not allowed",
    Reason.CONFLICT: "conflicting fields",
    Reason.MISSING: "is missing",
    Reason.WRONG_TYPE: "has the wrong type",
    Reason.INVALID: "invalid value",
    Reason.TOO_MANY: "too many",
    Reason.EMPTY: "says nothing",
    Reason.BAD_PORT: "invalid port",
    Reason.BAD_CIDR: "invalid CIDR",
    Reason.BAD_ENTITY: "unknown entity",
    Reason.BAD_ICMP: "invalid ICMP type",
    Reason.BAD_NAME: "invalid DNS name",
    Reason.BAD_KAFKA: "invalid Kafka rule",
    Reason.BAD_REGEX: "bad regular expression",
    Reason.BAD_HEADER: "malformed header",
    Reason.BAD_SELECTOR: "invalid selector",
    Reason.L7_VOIDED: "restricts nothing",
    Reason.SELECTS_NOTHING: "selects nothing",
    Reason.SELECTS_EVERYTHING: "selects everything",
    Reason.SHADOWED: "has no effect",
    Reason.REWRITTEN: "is read as something else",
    Reason.NOT_IN_SCHEMA: "refused by Cilium",
    Reason.DUPLICATE: "defined twice",
    Reason.ADDRESS_CONFLICT: "address used twice",
    Reason.NO_IDENTITY: "no identity left",
    Reason.UNKNOWN_POD: "unknown pod",
}


class Severity(StrEnum):
    """An error refuses the object; a warning only says what its author may not have meant."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class PolicyError:
    """One finding about one object. `path` is the field ("" for the object as a whole); `line` counts from 1."""

    kind: str
    namespace: str
    name: str
    path: str
    reason: str
    message: str
    source: str = ""
    line: int = 0
    severity: Severity = Severity.ERROR
    by_cilium: bool = False

    def __str__(self) -> str:
        phrase = f"{PHRASES.get(self.reason, 'refused')} ({self.reason})"
        if self.severity is Severity.WARNING:
            phrase = f"warning: {phrase}"
        parts = (self.place, self.about, self.path, phrase, " ".join(self.message.split()))
        return one_line(": ".join(part for part in parts if part))

    @property
    def place(self) -> str:
        """FILE:LINE, as far as known."""
        return f"{self.source}:{self.line}" if self.source and self.line else self.source

    @property
    def about(self) -> str:
        """KIND NAMESPACE/NAME, as far as known."""
        name = f"{self.namespace}/{self.name}" if self.namespace and self.name else self.name
        return f"{self.kind} {name}".strip()

    @property
    def sort_key(self) -> tuple[str, int, str, str, str, str, str, str]:
        return (self.source, self.line, self.kind, self.namespace, self.name, self.path, self.reason, self.message)

    def at(self, source: str, line: int) -> PolicyError:
        """The same finding, said of this place."""
        return replace(self, source=source, line=line)


def one_line(text: str) -> str:
    """Keys and values are the user's, and may hold line breaks and terminal escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def in_order(errors: Iterable[PolicyError]) -> tuple[PolicyError, ...]:
    """Each finding once, by place, object and field."""
    return tuple(sorted(set(errors), key=lambda e: e.sort_key))


class PolicyErrors(Exception):
    """Everything that is wrong with one object or file.

    `fallback`, where there is one, is what must hold while the object has no good version (law "closed").
    """

    def __init__(self, errors: Iterable[PolicyError], fallback: object | None = None) -> None:
        self.errors = tuple(errors)
        self.fallback = fallback
        super().__init__("; ".join(str(e) for e in self.errors))
