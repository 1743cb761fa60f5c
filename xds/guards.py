"""What a slot refuses before its rules are asked: requests that servers may read differently (judging.ambiguity).

Pure. Only where rules are about it: a slot without rules about paths forwards any path, law 7.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.ir import HttpRule
from policies.judging.ambiguity import AMBIGUOUS, ONE_HOST
from xds import denial, patterns
from xds.matching import ANY_BYTES, Predicate, Stage, act, fails, holds, regex
from xds.type.matcher.v3.matcher_pb2 import Matcher

AMBIGUOUS_PATH = rf"[^?]*(?:{AMBIGUOUS}){ANY_BYTES}"


def guards(rules: Sequence[HttpRule]) -> list[Stage]:
    """The stages that deny what these rules cannot judge.

    Literal paths and hosts need no guard: what is ambiguous is equal to none of them.
    """
    stages: list[Stage] = []
    if any(_is_pattern(rule.path) and not patterns.is_anything(rule.path) for rule in rules):
        stages.append(_denial(denial.AMBIGUOUS_PATH, holds(regex(":path", AMBIGUOUS_PATH))))
    if any(_is_pattern(rule.host) for rule in rules):
        stages.append(_denial(denial.AMBIGUOUS_HOST, fails(regex(":authority", ONE_HOST))))
    return stages


def _is_pattern(pattern: str) -> bool:
    return bool(pattern) and patterns.texts(pattern) is None


def _denial(name: str, predicate: Predicate) -> Stage:
    def write(matcher: Matcher) -> None:
        entry = matcher.matcher_list.matchers.add()
        entry.predicate.CopyFrom(predicate)
        act(entry.on_match, name, allow=False)

    return write
