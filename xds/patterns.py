"""What a pattern provably is: `policies.judging.patterns`, under the name by which this package has always known it."""

from policies.judging.patterns import (
    MAX_DEPTH,
    MAX_LITERALS,
    MAX_PATTERN,
    OPTIONS,
    Compiled,
    Literal,
    PatternError,
    check,
    escape,
    is_anything,
    literals,
    matches,
    texts,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_LITERALS",
    "MAX_PATTERN",
    "OPTIONS",
    "Compiled",
    "Literal",
    "PatternError",
    "check",
    "escape",
    "is_anything",
    "literals",
    "matches",
    "texts",
]
