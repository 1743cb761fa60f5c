"""What is wrong with a user's object: which object, which field, which reason, in one line. Pure values.

Errors are collected, never raised one by one: whoever reads an object reports everything that is wrong with it.
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
    NOT_SUPPORTED_YET = "NotSupportedYet"
    NOT_ALLOWED = "NotAllowed"
    MISSING = "MissingField"
    WRONG_TYPE = "WrongType"
    INVALID = "InvalidValue"
    TOO_MANY = "TooMany"
    EMPTY = "EmptyPolicy"
    BAD_PORT = "InvalidPort"
    BAD_REGEX = "BadRegex"
    BAD_HEADER = "BadHeader"
    BAD_SELECTOR = "InvalidSelector"
    DUPLICATE = "DuplicateObject"
    ADDRESS_CONFLICT = "AddressConflict"
    NO_IDENTITY = "IdentitiesExhausted"
    UNKNOWN_POD = "UnknownPod"


PHRASES: dict[str, str] = {
    Reason.SYNTAX: "is not valid YAML",
    Reason.UNREADABLE: "cannot be read",
    Reason.UNKNOWN_KIND: "unknown kind",
    Reason.UNKNOWN_FIELD: "unknown field",
    Reason.NOT_SUPPORTED_YET: "not supported yet",
    Reason.NOT_ALLOWED: "not allowed",
    Reason.MISSING: "is missing",
    Reason.WRONG_TYPE: "has the wrong type",
    Reason.INVALID: "invalid value",
    Reason.TOO_MANY: "too many",
    Reason.EMPTY: "says nothing",
    Reason.BAD_PORT: "invalid port",
    Reason.BAD_REGEX: "bad regular expression",
    Reason.BAD_HEADER: "malformed header",
    Reason.BAD_SELECTOR: "invalid selector",
    Reason.DUPLICATE: "defined twice",
    Reason.ADDRESS_CONFLICT: "address used twice",
    Reason.NO_IDENTITY: "no identity left",
    Reason.UNKNOWN_POD: "unknown pod",
}


@dataclass(frozen=True, slots=True)
class PolicyError:
    """One thing wrong with one object. `path` is the field ("" for the object as a whole); `line` counts from 1."""

    kind: str
    namespace: str
    name: str
    path: str
    reason: str
    message: str
    source: str = ""
    line: int = 0

    def __str__(self) -> str:
        parts = [self._place, self._object, self.path]
        phrase = f"{PHRASES.get(self.reason, 'refused')} ({self.reason})"
        return _one_line(": ".join([*(p for p in parts if p), phrase, " ".join(self.message.split())]))

    @property
    def _place(self) -> str:
        return f"{self.source}:{self.line}" if self.source and self.line else self.source

    @property
    def _object(self) -> str:
        name = f"{self.namespace}/{self.name}" if self.namespace and self.name else self.name
        return f"{self.kind} {name}".strip()

    @property
    def sort_key(self) -> tuple[str, int, str, str, str, str, str, str]:
        return (self.source, self.line, self.kind, self.namespace, self.name, self.path, self.reason, self.message)

    def at(self, source: str, line: int) -> PolicyError:
        """The same error, said of this place."""
        return replace(self, source=source, line=line)


def _one_line(text: str) -> str:
    """Keys and values are the user's, and may hold line breaks and terminal escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def in_order(errors: Iterable[PolicyError]) -> tuple[PolicyError, ...]:
    """Each error once, by place, object and field."""
    return tuple(sorted(set(errors), key=lambda e: e.sort_key))


class PolicyErrors(Exception):
    """Everything that is wrong with one object or file.

    `fallback`, where there is one, is what must hold while the object has no good version (law "closed").
    """

    def __init__(self, errors: Iterable[PolicyError], fallback: object | None = None) -> None:
        self.errors = tuple(errors)
        self.fallback = fallback
        super().__init__("; ".join(str(e) for e in self.errors))
