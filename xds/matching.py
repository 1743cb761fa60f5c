"""The words that matcher trees are written in: inputs, tests of one header, actions, chains of stages. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from envoy.config.rbac.v3 import rbac_pb2
from envoy.type.matcher.v3 import http_inputs_pb2

from policies.ir import HeaderMatch
from policies.judging.patterns import matches
from xds.codec import FORWARDED_PROTO, KEPT_PROTO, NO_HOST
from xds.core.v3.extension_pb2 import TypedExtensionConfig
from xds.resources import pack
from xds.type.matcher.v3.matcher_pb2 import Matcher

OnMatch: TypeAlias = Matcher.OnMatch
Predicate: TypeAlias = Matcher.MatcherList.Predicate
Test: TypeAlias = Matcher.MatcherList.Predicate.SinglePredicate
Stage = Callable[[Matcher], None]
Ending = Callable[[OnMatch], None]

ANY_BYTES = r"\C*"  # `.*` would miss a newline, and in UTF-8 mode bytes that are not UTF-8


def header_input(header: str) -> TypedExtensionConfig:
    """`:path` by header input includes the query string, as Cilium's `path` does; `url_path` inputs would not."""
    config = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=header)
    return TypedExtensionConfig(name=header, typed_config=pack(config))


def regex(header: str, pattern: str) -> Test:
    """The whole value matches."""
    predicate = Test(input=header_input(header))
    predicate.value_match.safe_regex.google_re2.SetInParent()  # required: Envoy refuses a regex without an engine
    predicate.value_match.safe_regex.regex = pattern
    return predicate


def exact(header: str, value: str) -> Test:
    predicate = Test(input=header_input(header))
    predicate.value_match.exact = value
    return predicate


def seen_as(header: str) -> str:
    """The header that a rule about this one looks at: the client's own, where Envoy has changed it."""
    name = header.lower()
    return KEPT_PROTO if name == FORWARDED_PROTO else name


def expected(header: HeaderMatch) -> Test:
    """The header has its value, or is there at all."""
    name = seen_as(header.name)
    return regex(name, ANY_BYTES) if header.value is None else exact(name, header.value)


def holds(test: Test) -> Predicate:
    return Predicate(single_predicate=test)


def fails(test: Test) -> Predicate:
    return Predicate(not_matcher=holds(test))


def names_a_host() -> Predicate:
    """The client has said which host it means."""
    return fails(exact(":authority", NO_HOST))


def write_and(target: Predicate, tests: Sequence[Predicate]) -> None:
    if len(tests) == 1:  # and_matcher wants two at least
        target.CopyFrom(tests[0])
        return
    target.and_matcher.predicate.extend(tests)


def act(target: OnMatch, name: str, *, allow: bool) -> None:
    """The verdict of the RBAC filter, and what the log calls it."""
    action = rbac_pb2.Action(name=name, action=rbac_pb2.RBAC.ALLOW if allow else rbac_pb2.RBAC.DENY)
    target.action.name = "action"
    target.action.typed_config.CopyFrom(pack(action))


def chain(target: OnMatch, stages: Sequence[Stage], last: Ending) -> None:
    """Write the stages one behind the other, each on the on_no_match of the one before, and the ending after all."""
    for stage in stages:
        stage(target.matcher)
        target = target.matcher.on_no_match
    last(target)


def condition_tests(method: str, host: str, headers: Sequence[HeaderMatch]) -> Iterator[Predicate]:
    """Cheapest first: an AND stops at the first that fails. "" is any method, any host or none.

    A pattern that the name for a missing host matches (`.*`) would otherwise allow what names no host.
    """
    yield from (holds(expected(header)) for header in headers)
    if host:
        if matches(host, NO_HOST):
            yield names_a_host()
        yield holds(regex(":authority", host))
    if method:
        yield holds(regex(":method", method))
