"""Kubernetes label selectors over the labels of a flow: `k8s:app=x`, `class in (a,b)`, `!org`, `reserved:world`. Pure.

A key may name its source (`k8s:app`); without one it matches the key of any source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

KEY_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
KEY_PREFIX = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?\Z")
SOURCE = re.compile(r"[A-Za-z0-9_-]+\Z")

# key, then nothing, or an operator and its operand
TERM = re.compile(
    r"""\s*(?P<absent>!)?\s*(?P<key>[^\s=!,()<>]+)\s*
        (?:(?P<compare>==|=|!=|<|>)\s*(?P<value>[^\s=!,()<>]*)
          |(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?\s*\Z""",
    re.VERBOSE,
)


class SelectorError(ValueError):
    """A selector that cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a selector. `source` is "" for any; `holds` gets the value, or None where the key is absent."""

    source: str
    key: str
    holds: Callable[[str | None], bool]

    def matches(self, labels: Iterable[str]) -> bool:
        """Judge labels written `source:key=value`; of several with this key the first counts."""
        return self.holds(next((value for label in labels if (value := self._value_in(label)) is not None), None))

    def _value_in(self, label: str) -> str | None:
        name, _, value = label.partition("=")
        source, colon, key = name.partition(":")
        if not colon:
            source, key = "", name
        return value if key == self.key and self.source in ("", source) else None


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """The requirements of a selector, all of which must hold; an empty selector has none. Raises SelectorError."""
    terms = _split(text)
    if len(terms) == 1 and not terms[0].strip():
        return ()
    return tuple(_requirement(term, text) for term in terms)


def selects(requirements: Sequence[Requirement], labels: Sequence[str]) -> bool:
    """Whether all requirements hold for these labels."""
    return all(requirement.matches(labels) for requirement in requirements)


def _split(text: str) -> list[str]:
    """Split at commas that are not in parentheses."""
    terms, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            terms.append(text[start:at])
            start = at + 1
    return [*terms, text[start:]]


def _requirement(term: str, text: str) -> Requirement:
    match = TERM.match(term)
    if match is None or (match["absent"] and (match["compare"] or match["set"])):
        raise SelectorError(f"{term.strip()!r} in selector {text!r} is not key, !key, key=value or key in (a,b)")
    source, key = _key(match["key"], text)
    if match["absent"]:
        return Requirement(source, key, lambda value: value is None)
    if match["set"]:
        values = frozenset(_value(value.strip(), text) for value in match["values"].split(","))
        if match["set"] == "in":
            return Requirement(source, key, lambda value: value in values)
        return Requirement(source, key, lambda value: value not in values)
    if match["compare"]:
        return Requirement(source, key, _comparison(match["compare"], match["value"], text))
    return Requirement(source, key, lambda value: value is not None)


def _comparison(operator: str, operand: str, text: str) -> Callable[[str | None], bool]:
    if operator in ("<", ">"):
        if not re.fullmatch(r"[+-]?[0-9]+", operand):
            raise SelectorError(f"{operand!r} in selector {text!r} is not an integer")
        bound = int(operand)
        below = operator == "<"
        return lambda value: (
            value is not None
            and re.fullmatch(r"[+-]?[0-9]+", value) is not None
            and (int(value) < bound if below else int(value) > bound)
        )
    wanted = _value(operand, text)
    if operator == "!=":
        return lambda value: value != wanted
    return lambda value: value == wanted


def _key(text: str, selector: str) -> tuple[str, str]:
    source, colon, key = text.partition(":")
    if not colon:
        source, key = "", text
    prefix, slash, name = key.rpartition("/")
    well_formed = (
        KEY_NAME.match(name) and (not slash or KEY_PREFIX.match(prefix)) and (not colon or SOURCE.match(source))
    )
    if not well_formed:
        raise SelectorError(f"{text!r} in selector {selector!r} is not a label key")
    return ("" if source == "any" else source), key


def _value(text: str, selector: str) -> str:
    if not VALUE.match(text):
        raise SelectorError(f"{text!r} in selector {selector!r} is not a label value")
    return text
