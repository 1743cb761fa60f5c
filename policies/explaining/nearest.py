"""The HTTP rule that came nearest to allowing a denied request: the one that differs in the fewest fields. Pure.

A rule set may hold ten thousand rules, and denials come by the thousand: rules are indexed by the patterns of each
field, so that a request is held against each distinct pattern that could match, once, and never against single rules.
Among rules that differ in equally few fields, one with the right path goes before one with the right host, and that
before one with the right method; then the path that begins most alike; then the order of the rule set.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations
from typing import Final

from pyroaring import BitMap

from policies.explaining.differences import Difference, Nearest
from policies.ir import REDACTED, HeaderMatch, HttpRule, RuleSet, Secret
from policies.judging.evaluate import full_match
from policies.judging.pattern_index import PatternIndex
from policies.judging.requests import Request, arrive

FIELDS: Final = ("method", "host", "path")  # the earlier, the sooner it may be what differs
_NEVER: Final = HeaderMatch("")  # what a rule that cannot match for now misses: no header has this name
# Which fields differ, none to all; in the order of preference among sets of the same size.
_SETS: Final = tuple(chain.from_iterable(combinations(FIELDS, size) for size in range(len(FIELDS) + 1)))


def explain_denial(rules: RuleSet, request: Request) -> Nearest | None:
    """What `NearMisses(rules).nearest(request)` says, for one question."""
    return NearMisses(rules).nearest(request)


class NearMisses:
    """One rule set, ready to be asked what came nearest. Making it looks at each rule: keep it as long as the set."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = sorted(rules.http, key=lambda rule: (rule.path, rule.match_key))
        self._paths = [rule.path for rule in self._rules]
        self._fields = {name: PatternIndex([getattr(rule, name) for rule in self._rules]) for name in FIELDS}
        self._headers = _Headers([(*rule.headers, *([_NEVER] if rule.unavailable else ())) for rule in self._rules])

    def nearest(self, request: Request) -> Nearest | None:
        """The nearest rule to a request as the client writes it; None if some rule matches, or there are none, or Envoy
        answers the request by itself."""
        arrival = arrive(request)
        if arrival.status:
            return None
        judged = arrival.request
        fits = {name: self._fields[name].matching(getattr(judged, name)) for name in FIELDS}
        missing = self._headers.missing(judged)
        for count in range(len(FIELDS) + self._headers.most + 1):
            found = [(differing, rules) for differing, rules in self._differing_in(count, fits, missing) if rules]
            if found and count == 0:
                return None
            if found:
                rule = self._rules[self._most_alike(found[0][1], judged.path)]
                others = sum(len(rules) for _, rules in found) - 1
                differs = tuple(differences(rule, judged))
                return Nearest(rule.origins, differs, rule, others) if differs else None
        return None

    def matching(self, request: Request) -> tuple[HttpRule, ...]:
        """The rules that match a request; of one that is not whole those that are sure to, or else those that may."""
        judged = arrive(request).request
        fit = BitMap.intersection(*(self._fields[name].matching(getattr(judged, name)) for name in FIELDS))
        sure = fit & self._headers.missing(judged)[0]
        found = (self._rules[i] for i in (sure if sure or judged.is_whole else fit))
        return tuple(rule for rule in found if not rule.unavailable)

    def _differing_in(
        self, count: int, fits: dict[str, BitMap], missing: Sequence[BitMap]
    ) -> Iterator[tuple[tuple[str, ...], BitMap]]:
        """The rules that differ in exactly so many fields, by which of `FIELDS` differ."""
        for differing in _SETS:
            headers = count - len(differing)
            if not 0 <= headers < len(missing):
                continue
            rules = missing[headers].copy()
            for name in FIELDS:
                if name in differing:
                    rules -= fits[name]
                else:
                    rules &= fits[name]
            yield differing, rules

    def _most_alike(self, rules: BitMap, path: str) -> int:
        """Paths are sorted, so the one that begins most alike stands next to where this path would stand."""
        here = _count_below(rules, bisect_left(self._paths, path))
        beside = [rules[i] for i in (here - 1, here) if 0 <= i < len(rules)]
        best = min(beside, key=lambda i: (-_common(self._paths[i], path), i))
        return int(rules[_count_below(rules, bisect_left(self._paths, self._paths[best]))])


def differences(rule: HttpRule, judged: Request) -> Iterator[Difference]:
    """Each field in which the rule and a request, as it is judged, differ."""
    for name in ("method", "path", "host"):
        pattern, value = getattr(rule, name), getattr(judged, name)
        if pattern and not full_match(pattern, value):
            yield Difference(name, pattern, value or None)
    for header in dict.fromkeys(rule.headers):
        sent = judged.header(header.name)
        if sent is None or (header.value is not None and header.value != sent):
            is_secret = isinstance(header.value, Secret)
            wanted = str(header.value) if header.value is not None else None
            got = REDACTED if sent is not None and is_secret else sent
            seen = judged.is_whole or sent is not None or header.name.lower() == "host"
            yield Difference(f"header {header.name}", wanted, got, seen)
    if rule.unavailable:
        yield Difference("secret", rule.unavailable, None)


class _Headers:
    """The headers that rules ask for: how many of them a request misses, rule by rule, without a look at any rule."""

    def __init__(self, headers: Sequence[tuple[HeaderMatch, ...]]) -> None:
        by_header: dict[HeaderMatch, list[int]] = {}
        by_count: dict[int, list[int]] = {}
        for i, wanted in enumerate(map(dict.fromkeys, headers)):
            by_count.setdefault(len(wanted), []).append(i)
            for header in wanted:
                by_header.setdefault(header, []).append(i)
        self._by_header = {header: BitMap(rules) for header, rules in by_header.items()}
        self._by_count = {count: BitMap(rules) for count, rules in by_count.items()}
        self._all = BitMap(range(len(headers)))
        self.most = max(by_count, default=0)

    def missing(self, request: Request) -> list[BitMap]:
        """At n: the rules of which the request misses exactly n headers."""
        at_least = [self._all.copy()]  # at n: rules with n satisfied headers or more
        for satisfied in self._satisfied(request):
            at_least.append(BitMap())
            for n in range(len(at_least) - 1, 0, -1):
                at_least[n] |= at_least[n - 1] & satisfied
        at_least.append(BitMap())
        missing = [BitMap() for _ in range(self.most + 1)]
        for count, rules in self._by_count.items():
            for have in range(min(count, len(at_least) - 2) + 1):
                missing[count - have] |= rules & (at_least[have] - at_least[have + 1])
        return missing

    def _satisfied(self, request: Request) -> Iterator[BitMap]:
        if not self._by_header:
            return
        names = sorted({name.lower() for name, _ in request.headers} | {"host"})
        for name in names:
            value = request.header(name)
            wanted: Iterable[HeaderMatch] = (HeaderMatch(name), HeaderMatch(name, value)) if value is not None else ()
            yield from (self._by_header[header] for header in wanted if header in self._by_header)


def _count_below(rules: BitMap, position: int) -> int:
    return int(rules.rank(position - 1)) if position > 0 else 0


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
