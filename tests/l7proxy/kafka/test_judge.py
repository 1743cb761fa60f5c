"""The judge against the oracle of policies, for rules and requests of every kind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from l7proxy.kafka import schema
from l7proxy.kafka.apis import conduct
from l7proxy.kafka.judge import Judge
from l7proxy.kafka.knowledge import Knowledge
from l7proxy.kafka.subjects import Subject, is_of_topics
from l7proxy.kafka.verdicts import Panel
from policies.ir import KafkaRule
from policies.judging.kafka import KafkaRequest, decide_kafka
from policies.kafka_keys import KEYS, LISTING_KEYS, TOPIC_KEYS, last_version, name_of
from tests.l7proxy.kafka.make import ANNOUNCE, PLANS, origin, rule, slot

KEYS_ASKED = st.sampled_from([0, 1, 3, 10, 11, 18, 32, 68, 200])
TOPICS = st.sampled_from([ANNOUNCE, PLANS, "nebula"])
CLIENTS = st.sampled_from(["", "tie", "x-wing"])
RULES = st.builds(
    KafkaRule,
    st.lists(KEYS_ASKED, max_size=3).map(lambda keys: tuple(sorted(set(keys)))),
    st.sampled_from([None, None, 0, 1]),
    st.sampled_from(["", "", "tie"]),
    st.one_of(st.just(""), TOPICS),
    st.integers(0, 3).map(lambda number: (origin(number),)),
)


def test_the_tables_of_policies_are_those_of_the_protocol() -> None:
    assert {key: last_version(key) for key in range(len(KEYS))} == {key: api.last for key, api in schema.apis().items()}
    assert set(TOPIC_KEYS) == {key for key in schema.apis() if is_of_topics(key)}
    assert {key for key in schema.apis() if conduct(key).hides} == LISTING_KEYS
    assert [name_of(key) for key in (0, 19, 78)] == ["produce", "createtopics", "sharefetch"]


@given(
    st.lists(RULES, max_size=5), KEYS_ASKED, st.sampled_from([0, 1, 2, 99]), CLIENTS, st.lists(TOPICS, max_size=3),
    st.booleans(),
)  # fmt: skip
def test_the_judge_says_what_the_oracle_does(
    rules: list[KafkaRule], key: int, version: int, client: str, topics: list[str], wildcard: bool
) -> None:
    served = slot(*rules, wildcard=wildcard)
    topics = topics if key in TOPIC_KEYS else []
    expected = decide_kafka(served.rule_set, KafkaRequest(key, version, client, tuple(topics)))
    scope = Judge(served).scope(key, version, client)
    if scope.everything is not None:
        assert expected.allowed
    elif scope.reason is not None:
        assert not expected.allowed
    else:
        panel = Panel(key, scope, Knowledge())
        refused = {topic for topic in topics if not panel.is_allowed(Subject(topic))}
        assert refused == set(expected.refused)
        assert expected.allowed is not refused or not refused
        assert expected.allowed is (not refused)


@given(
    st.lists(RULES, max_size=5), st.sampled_from(sorted({*LISTING_KEYS, 35, 43})), CLIENTS, st.lists(TOPICS, max_size=2)
)
def test_and_of_requests_for_all_topics(rules: list[KafkaRule], key: int, client: str, topics: list[str]) -> None:
    served = slot(*rules)
    expected = decide_kafka(served.rule_set, KafkaRequest(key, 0, client, tuple(topics), is_of_all=True))
    scope = Judge(served).scope(key, 0, client)
    if scope.everything is not None:
        assert (expected.allowed, expected.is_filtered) == (True, False)
        return
    asked = [Subject(all=True), *map(Subject, topics)]
    is_allowed = scope.reason is None and all(map(Panel(key, scope, Knowledge()).is_allowed, asked))
    assert expected.allowed is is_allowed
    assert expected.is_filtered is (scope.reason is None and key in LISTING_KEYS)


def test_kinds_of_requests_are_remembered_by_clients_that_rules_name() -> None:
    judge = Judge(slot(rule(0, topic=ANNOUNCE), rule(0, topic=PLANS, client_id="tie")))
    assert judge.scope(0, 9, "tie") is judge.scope(0, 9, "tie")
    assert judge.scope(0, 9, "a" * 30_000) is judge.scope(0, 9, "b" * 30_000)
    assert set(judge.scope(0, 9, "tie").topics) == {ANNOUNCE, PLANS}
    assert set(judge.scope(0, 9, "x-wing").topics) == {ANNOUNCE}


def test_a_topic_that_several_rules_allow_names_them_all() -> None:
    judge = Judge(slot(rule(0, topic=ANNOUNCE), rule(0, 3, topic=ANNOUNCE)))
    assert judge.scope(0, 9, "").topics == {ANNOUNCE: (origin(1), origin(2))}
