"""Guards stand where rules have patterns for paths and hosts, and nowhere else."""

from __future__ import annotations

import pytest
from envoy.config.rbac.v3.rbac_pb2 import RBAC

from policies.ir import HttpRule
from tests.xds.make import rule, rules
from tests.xds.matcher import Request, evaluate
from xds import denial
from xds.codec import NO_HOST
from xds.rbac_tree import compile_tree

PATTERN = rule("GET", "/public(/.*)?")
HIDDEN = "/public/..%20/admin"
ALLOWED = "allowed"


def verdict(request: Request, *http: HttpRule) -> str:
    """ALLOWED, or the name of what denies."""
    action = evaluate(compile_tree(rules(*http)).matcher, request)
    assert action is not None
    return ALLOWED if action.action == RBAC.ALLOW else str(action.name)


@pytest.mark.parametrize(
    ("http", "path", "expected"),
    [
        ((PATTERN,), HIDDEN, denial.AMBIGUOUS_PATH),
        ((PATTERN, rule("GET", host="h")), HIDDEN, denial.AMBIGUOUS_PATH),
        ((rule("GET", "/public|/other"),), HIDDEN, denial.DENY),
        ((PATTERN,), "/public/x?y=%zz", ALLOWED),
        ((rule("GET"),), HIDDEN, ALLOWED),
        ((rule("GET", ".*"),), HIDDEN, ALLOWED),
        ((rule(),), HIDDEN, ALLOWED),
    ],
    ids=str,
)
def test_an_ambiguous_path(http: tuple[HttpRule, ...], path: str, expected: str) -> None:
    assert verdict(Request(path=path), *http) == expected


@pytest.mark.parametrize(
    ("host", "asked", "expected"),
    [
        (".*", "a,b", denial.AMBIGUOUS_HOST),
        ("[a-z]+", "u@a", denial.AMBIGUOUS_HOST),
        ("[a-z]+", "a", ALLOWED),
        ("a|b", "a,b", denial.DENY),
        ("", "a,b", ALLOWED),
        (".*", NO_HOST, denial.DENY),
        (r"no-host\.invalid|b", NO_HOST, denial.DENY),
        ("", NO_HOST, ALLOWED),
    ],
)
def test_an_ambiguous_host_and_none(host: str, asked: str, expected: str) -> None:
    assert verdict(Request(host=asked), rule("GET", host=host)) == expected
