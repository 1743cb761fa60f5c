"""What becomes of a Kafka request: which rules fit it, and which of its topics they allow (facts 5). Pure.

The oracle of Kafka rules, as policies.judging.evaluate is of the others; the proxy's judge must say the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from policies.ir import KafkaRule, RuleSet
from policies.kafka_keys import LISTING_KEYS, TOPIC_KEYS, last_version
from policies.types import Origin


class KafkaRequest(NamedTuple):
    """A request in short. `topics`: those that it names, in its order; None among them is one that nobody can tell the
    name of. `is_of_all`: it asks for every topic that there is."""

    api_key: int
    api_version: int = 0
    client_id: str = ""
    topics: tuple[str | None, ...] = ()
    is_of_all: bool = False

    @property
    def is_known(self) -> bool:
        """Whether it can be read; else nobody knows whether it names a topic."""
        return self.api_version <= last_version(self.api_key)

    @property
    def is_listing(self) -> bool:
        """Whether it asks for every topic and can be answered with the allowed ones."""
        return self.is_of_all and self.is_known and self.api_key in LISTING_KEYS

    @property
    def is_of_topics(self) -> bool:
        """Whether it may name topics: then a rule with one allows no other."""
        return self.api_key in TOPIC_KEYS or not self.is_known


@dataclass(frozen=True, slots=True)
class KafkaDecision:
    """`rules`: for each topic that is named the first that allows it, each once; of a request without topics, the first
    that allows it. `refused`: topics that none allows. `allowed`: nothing of it is refused. `is_filtered`: its
    answer lists the topics of the rules and no others. `wildcard`: allows without L7 that void the rules."""

    allowed: bool
    rules: tuple[KafkaRule, ...] = ()
    refused: tuple[str | None, ...] = ()
    wildcard: tuple[Origin, ...] = ()
    is_filtered: bool = False


def decide_kafka(rules: RuleSet, request: KafkaRequest) -> KafkaDecision:
    """Which rules allow the request, or parts of it. A rule without a topic allows all of what it fits, and so does any
    rule that fits a request whose kind names no topics."""
    fitting = [rule for rule in rules.kafka if fits(rule, request)]
    whole = next((rule for rule in fitting if not rule.topic or not request.is_of_topics), None)
    if whole is not None:
        return KafkaDecision(True, (whole,), wildcard=rules.wildcard)
    is_filtered = request.is_listing and bool(fitting) and not rules.wildcard
    if not request.topics or not request.is_known or (request.is_of_all and not request.is_listing):
        # What names no topic though its kind may asks for nothing that a topic would have to allow.
        some = fitting if request.is_listing else fitting[:1] if request.is_known and not request.is_of_all else []
        refused = tuple(dict.fromkeys(request.topics)) if not rules.wildcard and not some else ()
        return KafkaDecision(bool(rules.wildcard or some), tuple(some), refused, rules.wildcard, is_filtered)
    found = {topic: next(_of_topic(fitting, topic), None) for topic in request.topics}
    allowing = tuple(dict.fromkeys(rule for rule in found.values() if rule is not None))
    refused = () if rules.wildcard else tuple(topic for topic, rule in found.items() if rule is None)
    return KafkaDecision(not refused, allowing, refused, rules.wildcard, is_filtered)


def fits(rule: KafkaRule, request: KafkaRequest) -> bool:
    """All of the rule holds but its topic."""
    if rule.api_keys and request.api_key not in rule.api_keys:
        return False
    if rule.api_version is not None and rule.api_version != request.api_version:
        return False
    return rule.client_id in ("", request.client_id)


def _of_topic(fitting: list[KafkaRule], topic: str | None) -> Iterator[KafkaRule]:
    return (rule for rule in fitting if topic is not None and rule.topic == topic)
