"""The Kafka rule that came nearest to allowing a denied request: the one that differs in the fewest fields. Pure.

A rule set may name ten thousand topics, for few clients and APIs: rules that differ in nothing but the topic stand
together, and a request is held against each such form once. Among rules that differ in equally few fields, one with the
right topic goes before one with the right client, then version, then API; then the topic that begins most alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from policies.explaining.differences import Difference, Nearest, apis_in_words
from policies.ir import KafkaRule, RuleSet
from policies.judging.kafka import KafkaDecision, KafkaRequest, decide_kafka
from policies.kafka_keys import last_version, name_of

ALL_TOPICS = "every topic"
_Form = tuple[tuple[int, ...], int | None, str]  # what rules ask for but the topic


class NearKafka:
    """The Kafka rules of one rule set, ready to be asked. Making it looks at each rule: keep it as long as the set."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._forms: dict[_Form, list[KafkaRule]] = {}
        for rule in sorted(rules.kafka, key=lambda rule: rule.topic):
            self._forms.setdefault((rule.api_keys, rule.api_version, rule.client_id), []).append(rule)

    def nearest(self, request: KafkaRequest) -> Nearest | None:
        """The nearest rule to a request, or to the first of its topics that is refused; None if nothing is refused, or
        there are no rules."""
        decision = decide_kafka(self._rules, request)
        if decision.allowed or not self._forms:
            return None
        topic = _told(request, decision)
        found = [_Candidate.of(rules, request, topic) for rules in self._forms.values()]
        best = min(found, key=lambda candidate: candidate.rank)
        others = sum(candidate.alike for candidate in found if candidate.rank[0] == best.rank[0]) - 1
        return Nearest(best.rule.origins, tuple(differences(best.rule, request, topic)), best.rule, others)


def differences(rule: KafkaRule, request: KafkaRequest, topic: str | None) -> Iterator[Difference]:
    """Each field in which the rule, and a request for this topic ("": for one that nobody can name; None: for none),
    differ."""
    if rule.api_keys and request.api_key not in rule.api_keys:
        yield Difference("API", apis_in_words(rule.api_keys), name_of(request.api_key))
    if rule.api_version not in (None, request.api_version):
        yield Difference("version", str(rule.api_version), str(request.api_version))
    if rule.client_id not in ("", request.client_id):
        yield Difference("client ID", rule.client_id, request.client_id or None)
    if _is_other(rule, request, topic):
        if request.is_known:
            yield Difference("topic", rule.topic, topic or "unknown")
        else:
            last = last_version(request.api_key)
            wanted = f"at most {last} to be read" if last >= 0 else "of an API that can be read"
            yield Difference("version", wanted, str(request.api_version))


def _told(request: KafkaRequest, decision: KafkaDecision) -> str | None:
    """What is refused: the first topic, if it is about topics."""
    if request.is_of_all and not request.is_listing:
        return ALL_TOPICS
    if decision.refused:
        return decision.refused[0] or ""
    return None if request.is_known else ""


class _Candidate(NamedTuple):
    """The nearest rule of one form. `rank`: the lower the nearer, the number of fields first. `alike`: how many rules
    of the form differ in as many."""

    rank: tuple[object, ...]
    rule: KafkaRule
    alike: int

    @classmethod
    def of(cls, rules: list[KafkaRule], request: KafkaRequest, topic: str | None) -> _Candidate:
        """`rules`: by topic."""
        here = bisect_left(rules, topic or "", key=lambda rule: rule.topic)
        beside = [rules[i] for i in {0, here - 1, here} if 0 <= i < len(rules)]  # the first may be of any topic
        rule = min(beside, key=lambda rule: (_is_other(rule, request, topic), -_common(rule, topic), rule.topic))
        wrong = _is_other(rule, request, topic)
        fields = [difference.field for difference in differences(rule, request, topic)]
        which = tuple(field in fields for field in ("topic", "client ID", "version", "API"))
        rank = (len(fields), *which, -_common(rule, topic), rule.match_key)
        all_alike = wrong or topic is None or not request.is_of_topics
        return cls(rank, rule, len(rules) if all_alike else sum(not _is_other(r, request, topic) for r in beside))


def _is_other(rule: KafkaRule, request: KafkaRequest, topic: str | None) -> bool:
    """Whether the rule is about another topic; that says nothing of requests that name none."""
    if topic is None:
        return False
    return bool(rule.topic) and request.is_of_topics and (rule.topic != topic or not request.is_known)


def _common(rule: KafkaRule, asked: str | None) -> int:
    """Length of the common beginning."""
    topic = asked or ""
    pairs = enumerate(zip(rule.topic, topic, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(rule.topic), len(topic)))
