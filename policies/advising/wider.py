"""Which rules of a list allow all that another one allows. Pure; "none" also means "cannot be told".

A list may have ten thousand rules: each is held against those that could cover it, never against all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

from policies.dns_patterns import Dialect, NameSet, covers
from policies.ir import DnsRule, HttpRule, KafkaRule, L7Rule
from policies.judging.pattern_index import PatternIndex

CANDIDATES_MAX: Final = 64  # rules that are looked at to find one that covers another
PAIRS_MAX: Final = 40_000  # patterns of one list that are held against each other (some 30 ms)

Wider = tuple[L7Rule, list[L7Rule]]


def with_wider(rules: Sequence[L7Rule]) -> Iterator[Wider]:
    """Each rule of a list of one parser, with those that allow all that it allows."""
    yield from _http([rule for rule in rules if isinstance(rule, HttpRule)])
    yield from _dns([rule for rule in rules if isinstance(rule, DnsRule)])
    yield from _kafka([rule for rule in rules if isinstance(rule, KafkaRule)])


def _http(rules: Sequence[HttpRule]) -> Iterator[Wider]:
    """Rules that act on headers, or wait for a secret, stand apart."""
    plain = [rule for rule in rules if not rule.header_actions and not rule.unavailable]
    indexes = {name: PatternIndex([getattr(rule, name) for rule in plain]) for name in ("method", "path", "host")}
    for i, rule in enumerate(plain):
        wider = indexes["method"].covering(rule.method)
        for name in ("path", "host"):
            wider &= indexes[name].covering(getattr(rule, name))
        wider.discard(i)
        near = [plain[j] for j in wider[:CANDIDATES_MAX]]
        yield rule, [other for other in near if set(other.headers) <= set(rule.headers)]
    for rule in rules:
        if rule.header_actions or rule.unavailable:
            yield rule, []


def _dns(rules: Sequence[DnsRule]) -> Iterator[Wider]:
    """A pattern without a star is a name. One rule that covers another is enough to say."""
    by_text: dict[str, list[DnsRule]] = {}
    for rule in rules:
        by_text.setdefault(_text(rule), []).append(rule)
    starred = [rule for rule in rules if "*" in rule.pattern]
    names = NameSet((), (rule.pattern for rule in starred), Dialect.DNS_RULE)
    broad = starred if len(starred) ** 2 <= PAIRS_MAX else [rule for rule in starred if rule.is_wildcard]
    for rule in rules:
        text = _text(rule)
        same = [other for other in by_text[text] if other is not rule]
        if "*" in text:
            found = next((other for other in broad if _text(other) != text and covers(other.pattern, text)), None)
        else:
            found = starred[at] if (at := names.which(text)) is not None else None
        yield rule, [*same, *([found] if found is not None else [])]


def _text(rule: DnsRule) -> str:
    return rule.pattern or rule.name


def _kafka(rules: Sequence[KafkaRule]) -> Iterator[Wider]:
    """Of rules with the same version, client and topic, or without them, those whose APIs are among others'."""
    by_rest: dict[tuple[int | None, str, str], list[KafkaRule]] = {}
    for rule in rules:
        by_rest.setdefault((rule.api_version, rule.client_id, rule.topic), []).append(rule)
    for rule in rules:
        rests = product({rule.api_version, None}, {rule.client_id, ""}, {rule.topic, ""})
        near = (other for rest in rests for other in by_rest.get(rest, ())[:CANDIDATES_MAX] if other is not rule)
        yield rule, [other for other in near if _has_apis(other, rule)]


def _has_apis(broad: KafkaRule, narrow: KafkaRule) -> bool:
    return not broad.api_keys or (bool(narrow.api_keys) and set(narrow.api_keys) <= set(broad.api_keys))
