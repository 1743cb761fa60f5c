"""What filters are made of: predicates over flows, joined, and the error of those that cannot be made. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from flow import flow_pb2

T = TypeVar("T")
Predicate = Callable[[flow_pb2.Flow], bool]


class FilterError(ValueError):
    """A filter that cannot be compiled; the text names the field."""


def all_of(parts: Sequence[Predicate]) -> Predicate:
    """Everything must match."""
    return parts[0] if len(parts) == 1 else lambda flow: all(predicate(flow) for predicate in parts)


def any_of(parts: Sequence[Predicate]) -> Predicate:
    """Something must match."""
    return parts[0] if len(parts) == 1 else lambda flow: any(predicate(flow) for predicate in parts)


def parsed(parse: Callable[[str], T], value: str) -> T:
    """What a parser makes of a value. Raises FilterError."""
    try:
        return parse(value)
    except ValueError as error:
        raise FilterError(str(error)) from None
