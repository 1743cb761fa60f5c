"""Header actions (headerMatches with LOG, ADD, DELETE, REPLACE): filters behind the verdict, in the same ECDS resource.

Pure. The resource is then a chain, made of Envoy's composite filter:

    verdict (RBAC)                                            refuses, or lets what follows happen
    per rule with actions: if all that it matches is so
        per action: if the header is not as expected
            tell the log (set_metadata, header_to_metadata), change the header (header_mutation)

As in Cilium the actions of every rule that matches are taken, also of rules that another had already made superfluous,
and each sees what those before it have done. Unlike there, nothing is done to a request that is denied, and the verdict
is about the headers as the client sent them. docs/xds.md lists the differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.extensions.common.matching.v3.extension_matcher_pb2 import ExtensionWithMatcher
from envoy.extensions.filters.http.composite.v3.composite_pb2 import Composite, ExecuteFilterAction
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.header_to_metadata.v3.header_to_metadata_pb2 import Config as HeaderToMetadata
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC
from envoy.extensions.filters.http.set_metadata.v3.set_metadata_pb2 import Config as SetMetadata
from google.protobuf.message import Message

from policies.ir import FRAMING_HEADERS, REDACTED, HeaderAction, HeaderMatch, HttpRule, Mismatch, Secret
from xds import denial
from xds.matching import OnMatch, Predicate, condition_tests, expected, fails, holds, regex, seen_as, write_and
from xds.resources import TYPE_PREFIX, pack
from xds.type.matcher.v3.matcher_pb2 import Matcher

CHAIN_TYPE = TYPE_PREFIX + ExtensionWithMatcher.DESCRIPTOR.full_name

# Each costs a request a few thousand instructions, matched or not: they stand in a row, as order is theirs to keep.
MAX_RULES = 256

_Append = HeaderValueOption.HeaderAppendAction


def followed_by_actions(verdict: RBAC, rules: Iterable[HttpRule]) -> ExtensionWithMatcher | None:
    """The verdict's filter and behind it the actions of the rules, in the order of the rules; None where none has any.

    Raises ValueError for what cannot be done.
    """
    acting = [rule for rule in rules if not rule.unavailable and not all(map(_is_idle, rule.header_actions))]
    if not acting:
        return None
    if len(acting) > MAX_RULES:
        raise ValueError(
            f"headerMatches: {len(acting)} rules with actions for one port and peer, {MAX_RULES} are possible"
        )
    chain = Matcher()
    _execute(chain.on_no_match, [verdict, *(_of_rule(rule) for rule in acting)])
    return _composite(chain)


def _of_rule(rule: HttpRule) -> ExtensionWithMatcher:
    steps = [_of_action(action) for action in rule.header_actions if not _is_idle(action)]
    conditions = list(condition_tests(rule.method, rule.host, rule.headers))
    if rule.path:
        conditions.append(holds(regex(":path", rule.path)))
    return _when(conditions, steps)


def _is_idle(action: HeaderAction) -> bool:
    """To delete what is not there."""
    return action.mismatch is Mismatch.DELETE and action.value is None


def _of_action(action: HeaderAction) -> ExtensionWithMatcher:
    name = seen_as(action.name)
    if action.mismatch is not Mismatch.LOG and name in FRAMING_HEADERS:
        raise ValueError(f"headerMatches: {action.name} cannot be changed, only LOG is possible")
    wanted = HeaderMatch(action.name, action.value)
    unmet = [fails(expected(wanted))]
    if action.mismatch is Mismatch.DELETE:
        unmet.insert(0, holds(expected(HeaderMatch(action.name))))
    return _when(unmet, list(_steps(action, name)))


def _steps(action: HeaderAction, name: str) -> Iterator[Message]:
    """What is told and changed, in this order: what was there is read before it goes."""
    if action.mismatch in (Mismatch.DELETE, Mismatch.REPLACE) and action.value is not None:
        yield _tell_rejected(action, name)
    if action.mismatch is not Mismatch.DELETE:
        shown = REDACTED if isinstance(action.value, Secret) else action.value or ""
        yield _tell(denial.MISSING_HEADERS, action.name, shown)
    match action.mismatch:
        case Mismatch.ADD:
            yield _set(name, action.value, _Append.APPEND_IF_EXISTS_OR_ADD)
        case Mismatch.REPLACE:
            yield _set(name, action.value, _Append.OVERWRITE_IF_EXISTS_OR_ADD)
        case Mismatch.DELETE:
            mutation = HeaderMutation()
            mutation.mutations.request_mutations.add(remove=name)
            yield mutation
        case Mismatch.LOG:
            pass


def _set(name: str, value: str | None, how: int) -> HeaderMutation:
    mutation = HeaderMutation()
    option = mutation.mutations.request_mutations.add().append
    option.header.key = name
    option.header.value = (value or "").replace("%", "%%")  # a single % begins a command
    option.append_action = how
    option.keep_empty_value = True
    return mutation


def _tell(namespace: str, name: str, value: str) -> SetMetadata:
    config = SetMetadata()
    entry = config.metadata.add(metadata_namespace=namespace, allow_overwrite=True)
    entry.value.update({name: value})
    return config


def _tell_rejected(action: HeaderAction, name: str) -> ExtensionWithMatcher | HeaderToMetadata:
    if isinstance(action.value, Secret):  # what came may be the secret of yesterday
        there = [holds(expected(HeaderMatch(action.name)))]
        return _when(there, [_tell(denial.REJECTED_HEADERS, action.name, REDACTED)])
    config = HeaderToMetadata()
    rule = config.request_rules.add(header=name)
    rule.on_header_present.metadata_namespace = denial.REJECTED_HEADERS
    rule.on_header_present.key = action.name
    return config


def _when(conditions: Sequence[Predicate], steps: Sequence[Message]) -> ExtensionWithMatcher:
    """The steps if all conditions hold (none: always)."""
    matcher = Matcher()
    if conditions:
        entry = matcher.matcher_list.matchers.add()
        write_and(entry.predicate, conditions)
        _execute(entry.on_match, steps)
    else:
        _execute(matcher.on_no_match, steps)
    return _composite(matcher)


def _execute(target: OnMatch, steps: Sequence[Message]) -> None:
    action = ExecuteFilterAction()
    for place, step in enumerate(steps):
        action.filter_chain.typed_config.add(name=f"{place}", typed_config=pack(step))
    target.action.name = "filters"
    target.action.typed_config.CopyFrom(pack(action))


def _composite(matcher: Matcher) -> ExtensionWithMatcher:
    wrapped = ExtensionWithMatcher(xds_matcher=matcher)
    wrapped.extension_config.name = "composite"
    wrapped.extension_config.typed_config.CopyFrom(pack(Composite()))
    return wrapped
