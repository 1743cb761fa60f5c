"""A second opinion: evaluates xds.type.matcher.v3.Matcher as its documentation says, and HTTP rules as Cilium's says.

Written from the proto comments, not from the compiler; shares no code with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import re2
from envoy.config.rbac.v3.rbac_pb2 import RBAC, Action
from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput

from policies.ir import HttpRule, RuleSet
from policies.judging.ambiguity import ambiguous_path

LATIN1 = re2.Options()
LATIN1.encoding = re2.Options.Encoding.LATIN1
LATIN1.log_errors = False


@dataclass(frozen=True)
class Request:
    method: str = "GET"
    path: str = "/"
    host: str = "h"
    headers: Mapping[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str | None:
        pseudo = {":method": self.method, ":path": self.path, ":authority": self.host}
        return pseudo.get(name, self.headers.get(name))


def full_match(pattern: str, text: str) -> bool:
    return re2.compile(pattern.encode(), LATIN1).fullmatch(text.encode()) is not None


def rules_allow(rule_set: RuleSet, request: Request) -> bool:
    """The meaning of a rule set, said as plainly as can be."""
    if rule_set.allows_all:
        return True
    if ambiguous_path(request.path) and any(_is_about_many_paths(rule) for rule in rule_set.http):
        return False
    return any(_rule_matches(rule, request) for rule in rule_set.http)


def _is_about_many_paths(rule: HttpRule) -> bool:
    return rule.path not in ("", ".*") and any(sign in rule.path for sign in ("*", "[", "a.b", "(?i)"))


def _rule_matches(rule: HttpRule, request: Request) -> bool:
    patterns = ((rule.method, request.method), (rule.path, request.path), (rule.host, request.host))
    if not all(not pattern or full_match(pattern, value) for pattern, value in patterns):
        return False
    for header in rule.headers:
        sent = request.header(header.name.lower())
        if sent is None or (header.value is not None and header.value != sent):
            return False
    return True


def evaluate(matcher: Any, request: Request) -> Action | None:
    """The action that the matcher takes; None for no match."""
    match matcher.WhichOneof("matcher_type"):
        case "matcher_list":
            for entry in matcher.matcher_list.matchers:
                if _holds(entry.predicate, request):
                    found = _follow(entry.on_match, request)
                    if found is not None:
                        return found
        case "matcher_tree":
            for on_match in _tree_hits(matcher.matcher_tree, request):
                found = _follow(on_match, request)
                if found is not None:
                    return found
    return _follow(matcher.on_no_match, request) if matcher.HasField("on_no_match") else None


def allows(matcher: Any, request: Request) -> bool:
    action = evaluate(matcher, request)
    assert action is not None, "a tree of ours always decides"
    return action.action == RBAC.ALLOW


def _follow(on_match: Any, request: Request) -> Action | None:
    if on_match.HasField("matcher"):
        return evaluate(on_match.matcher, request)
    return Action.FromString(on_match.action.typed_config.value)


def _value(typed_input: Any, request: Request) -> str | None:
    return request.header(HttpRequestHeaderMatchInput.FromString(typed_input.typed_config.value).header_name)


def _tree_hits(tree: Any, request: Request) -> list[Any]:
    value = _value(tree.input, request)
    if value is None:
        return []
    kind = tree.WhichOneof("tree_type")
    entries = getattr(tree, kind).map
    assert entries, "Envoy refuses an empty map"
    if kind == "exact_match_map":
        return [entries[value]] if value in entries else []
    prefixes = sorted((key for key in entries if value.startswith(key)), key=len, reverse=True)
    return [entries[key] for key in prefixes]


def _holds(predicate: Any, request: Request) -> bool:
    match predicate.WhichOneof("match_type"):
        case "and_matcher":
            assert len(predicate.and_matcher.predicate) >= 2, "Envoy refuses an AND of one"
            return all(_holds(one, request) for one in predicate.and_matcher.predicate)
        case "single_predicate":
            value = _value(predicate.single_predicate.input, request)
            return value is not None and _value_matches(predicate.single_predicate.value_match, value)
        case "not_matcher":
            return not _holds(predicate.not_matcher, request)
    raise AssertionError("no other predicate is ours")


def _value_matches(match: Any, value: str) -> bool:
    if match.WhichOneof("match_pattern") == "exact":
        return bool(match.exact == value)
    assert match.safe_regex.HasField("google_re2"), "Envoy refuses a regex without an engine"
    return full_match(match.safe_regex.regex, value)
