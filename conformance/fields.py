"""Mappings of plain YAML data that are read field by field, strictly: what nobody asked for is refused. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from conformance.errors import SuiteError


@dataclass(slots=True)
class Fields:
    """A mapping that is read field by field; `done` refuses whatever nobody asked for."""

    value: dict[str, Any]
    path: str
    seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, value: Any, path: str) -> Fields:
        if not isinstance(value, dict):
            raise SuiteError(path, f"must be a mapping, is {kind_of(value)}")
        for key in value:
            if not isinstance(key, str):
                raise SuiteError(path, f"has the key {key!r}, which is {kind_of(key)}: quote it")
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
            raise SuiteError(f"{self.path}.{name}", f"has the wrong type {kind_of(value)}")
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

    def inner(self, name: str) -> Fields:
        """A mapping inside, which must be there."""
        return Fields.of(self.take(name, dict), f"{self.path}.{name}")

    def strings(self, name: str) -> dict[str, str]:
        """A mapping of strings to scalars, as strings; empty if it is absent."""
        entries = Fields.of(self.take(name, dict, {}), f"{self.path}.{name}").value
        for key, value in entries.items():
            if isinstance(value, dict | list) or value is None:
                raise SuiteError(f"{self.path}.{name}.{key}", f"has the wrong type {kind_of(value)}")
        return {key: str(value) for key, value in entries.items()}

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers; empty if it is absent."""
        values = self.take(name, list, [])
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise SuiteError(f"{self.path}.{name}", "must be a list of numbers")
        return tuple(values)

    def entries(self, name: str) -> list[tuple[str, Fields]]:
        """A mapping of names to mappings, in its order; an entry without content is an empty one."""
        values = Fields.of(self.take(name, dict, {}), f"{self.path}.{name}").value
        return [(key, Fields.of(value or {}, f"{self.path}.{name}.{key}")) for key, value in values.items()]

    def done(self) -> None:
        unknown = sorted(set(self.value) - self.seen)
        if unknown:
            raise SuiteError(f"{self.path}.{unknown[0]}", "is not a known field")


def kind_of(value: Any) -> str:
    """What a value is, in the words of YAML."""
    return {dict: "a mapping", list: "a list", str: "a string", int: "a number", type(None): "nothing"}.get(
        type(value), type(value).__name__
    )
