"""Facts 5: which rules fit a Kafka request, which of its topics they allow, and what came nearest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.explaining.near_kafka import NearKafka, differences
from policies.ir import KafkaRule, RuleSet
from policies.judging.kafka import KafkaRequest, decide_kafka
from policies.kafka_keys import KEYS, LISTING_KEYS, ROLES, last_version
from policies.types import Origin

PRODUCE, FETCH, METADATA, HEARTBEAT, DELETE_TOPICS, ELECT_LEADERS, DESCRIBE_TOPICS = 0, 1, 3, 12, 20, 43, 75


def rules(*some: KafkaRule, wildcard: tuple[Origin, ...] = ()) -> RuleSet:
    return RuleSet(kafka=tuple(sorted(some, key=lambda rule: rule.match_key)), wildcard=wildcard)


OUTPOST = rules(KafkaRule(ROLES["consume"], topic="empire-announce"))


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        (KafkaRequest(FETCH, 4, "c", ("empire-announce",)), True),
        (KafkaRequest(FETCH, 4, "c", ("deathstar-plans",)), False),
        (KafkaRequest(FETCH, 4, "c", ("empire-announce", "deathstar-plans")), False),
        (KafkaRequest(PRODUCE, 4, "c", ("empire-announce",)), False),
        (KafkaRequest(HEARTBEAT, 4), True),  # names no topics: the topic of the rule is of no concern
        (KafkaRequest(METADATA, 9), True),  # names none, and so asks for none
        (KafkaRequest(METADATA, 9, is_of_all=True), True),  # the answer has one topic
        (KafkaRequest(ELECT_LEADERS, 2, is_of_all=True), False),  # nobody can leave topics out of what is done
        (KafkaRequest(DESCRIBE_TOPICS, 0, is_of_all=True), False),  # of another role
        (KafkaRequest(FETCH, 4, "", (None,)), False),
        (KafkaRequest(FETCH, last_version(FETCH) + 1, "", ("empire-announce",)), False),  # nobody can read it
        (KafkaRequest(DELETE_TOPICS, 1, "", ("empire-announce",)), False),
    ],
)
def test_who_consumes_one_topic(request_: KafkaRequest, allowed: bool) -> None:
    assert decide_kafka(OUTPOST, request_).allowed is allowed


def test_topics_of_one_request_are_allowed_by_different_rules() -> None:
    two = rules(KafkaRule(topic="a"), KafkaRule((FETCH,), topic="b"), KafkaRule((PRODUCE,), topic="c"))
    found = decide_kafka(two, KafkaRequest(FETCH, 1, "", ("a", "b", "c", "b")))
    assert [rule.topic for rule in found.rules] == ["a", "b"]
    assert found.refused == ("c",)


@pytest.mark.parametrize("key", sorted(LISTING_KEYS))
def test_who_asks_for_all_topics_hears_of_the_allowed_ones(key: int) -> None:
    asked = KafkaRequest(key, 0, is_of_all=True)
    found = decide_kafka(rules(KafkaRule(topic="a"), KafkaRule(topic="b"), KafkaRule((PRODUCE,), topic="c")), asked)
    assert (found.allowed, found.is_filtered) == (True, True)
    assert [rule.topic for rule in found.rules] == ["a", "b"]
    assert not decide_kafka(rules(KafkaRule(topic="a"), KafkaRule()), asked).is_filtered, "it hears of all"
    assert not decide_kafka(rules(KafkaRule(topic="a")), asked._replace(api_version=99)).allowed


def test_a_rule_without_a_topic_allows_what_nobody_can_read() -> None:
    assert decide_kafka(rules(KafkaRule((FETCH,))), KafkaRequest(FETCH, 99, "", (None,))).allowed
    assert decide_kafka(rules(KafkaRule()), KafkaRequest(1234)).allowed
    assert not decide_kafka(rules(KafkaRule(topic="a")), KafkaRequest(1234)).allowed


def test_a_plain_allow_voids_the_rules() -> None:
    by = (Origin("CiliumNetworkPolicy", "default", "p", "spec.ingress[0]"),)
    found = decide_kafka(rules(KafkaRule(topic="a"), wildcard=by), KafkaRequest(PRODUCE, 1, "", ("b",)))
    assert (found.allowed, found.refused, found.wildcard) == (True, (), by)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (KafkaRequest(FETCH, 4, "c", ("deathstar-plans",)), ["topic is deathstar-plans, not empire-announce"]),
        (
            KafkaRequest(PRODUCE, 4, "c", ("empire-x",)),
            ["API is produce, not role consume", "topic is empire-x, not empire-announce"],
        ),
        (
            KafkaRequest(ELECT_LEADERS, 2, is_of_all=True),
            ["API is electleaders, not role consume", "topic is every topic, not empire-announce"],
        ),
        (KafkaRequest(DESCRIBE_TOPICS, 0, is_of_all=True), ["API is describetopicpartitions, not role consume"]),
        (KafkaRequest(FETCH, 99, "", ("empire-announce",)), ["version is 99, not at most 18 to be read"]),
        (KafkaRequest(1234), ["API is 1234, not role consume", "version is 0, not of an API that can be read"]),
    ],
)
def test_what_is_said_of_the_nearest(request_: KafkaRequest, words: list[str]) -> None:
    found = NearKafka(OUTPOST).nearest(request_)
    assert found is not None
    assert list(map(str, found.differs)) == words


def test_the_right_topic_comes_nearer_than_the_right_client() -> None:
    some = rules(KafkaRule(client_id="hq", topic="plans"), KafkaRule(client_id="outpost", topic="announce"))
    found = NearKafka(some).nearest(KafkaRequest(PRODUCE, 3, "outpost", ("plans",)))
    assert found is not None
    assert str(found) == "a rule (client hq topic plans): client ID is outpost, not hq"
    assert "outpost" not in str(found.redacted())


_rules = st.builds(
    KafkaRule,
    st.sampled_from([(), (PRODUCE,), (FETCH,), (HEARTBEAT,), ROLES["produce"], ROLES["consume"]]),
    st.sampled_from([None, None, 3, 4]),
    st.sampled_from(["", "", "hq"]),
    st.sampled_from(["", "a", "ab", "b"]),
)
_requests = st.builds(
    KafkaRequest,
    st.sampled_from([*KEYS.values(), 1234]),
    st.sampled_from([0, 3, 4, 99]),
    st.sampled_from(["", "hq", "backup"]),
    st.lists(st.sampled_from(["a", "ab", "abc", None]), max_size=2).map(tuple),
    st.booleans(),
)


@settings(max_examples=300)
@given(st.lists(_rules, max_size=6, unique=True), _requests)
def test_the_nearest_differs_in_the_fewest_fields(some: list[KafkaRule], asked: KafkaRequest) -> None:
    made = rules(*some)
    decision = decide_kafka(made, asked)
    found = NearKafka(made).nearest(asked)
    assert (found is None) is (decision.allowed or not some)
    if found is not None:
        is_named = bool(decision.refused) or not asked.is_known
        is_of_all = asked.is_of_all and not asked.is_listing
        topic = "every topic" if is_of_all else next(iter(decision.refused), "") or "" if is_named else None
        counts = [len(list(differences(rule, asked, topic))) for rule in made.kafka]
        assert len(found.differs) == min(counts) > 0
        assert found.others == counts.count(min(counts)) - 1
        assert found.rule in made.kafka
