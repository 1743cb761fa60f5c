"""The evaluator against the judge of the Kafka proxy: random rules, random requests, and the tables of both. Pure."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from l7proxy.kafka import schema
from l7proxy.kafka.judge import Judge
from l7proxy.kafka.subjects import is_of_topics
from policies.ir import KafkaRule, L7Parser, RuleSet, Slot, SlotState
from policies.judging.kafka import KafkaRequest, decide_kafka
from policies.kafka_keys import KEYS, ROLES, TOPIC_KEYS, last_version
from policies.types import Direction, Origin, PortRange, Protocol

VERSIONS_TRIED = 32


def test_both_know_the_same_versions_and_which_apis_name_topics() -> None:
    keys = range(max(KEYS.values()) + 8)
    assert {key for key in keys if is_of_topics(key)} == TOPIC_KEYS
    for key in keys:
        assert [schema.is_known(key, v) for v in range(VERSIONS_TRIED)] == [
            v <= last_version(key) for v in range(VERSIONS_TRIED)
        ]


_rules = st.builds(
    lambda key, version, client, topic, number: KafkaRule(
        key, version, client, topic, (Origin("CiliumNetworkPolicy", "default", "p", f"kafka[{number}]"),)
    ),
    st.sampled_from([(), (0,), (1,), (12,), (20,), ROLES["produce"], ROLES["consume"]]),
    st.sampled_from([None, None, 3, 4]),
    st.sampled_from(["", "", "hq"]),
    st.sampled_from(["", "plans", "announce"]),
    st.integers(0, 9),
)
_requests = st.builds(
    KafkaRequest,
    st.sampled_from([*KEYS.values(), 0, 1, 3, 12, 1234]),
    st.sampled_from([0, 3, 4, 99]),
    st.sampled_from(["", "hq", "backup"]),
    st.lists(st.sampled_from(["plans", "announce", "other"]), min_size=1, max_size=3).map(tuple),
    st.just(False),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(_rules, max_size=5, unique_by=lambda rule: rule.match_key), _requests)
def test_explain_says_what_the_proxy_does(written: list[KafkaRule], request: KafkaRequest) -> None:
    rules = RuleSet(kafka=tuple(sorted(written, key=lambda rule: rule.match_key)))
    slot = Slot("s", Direction.INGRESS, 1, Protocol.TCP, PortRange(9092, 9092), rules, SlotState.ACTIVE, L7Parser.KAFKA)
    scope = Judge(slot).scope(request.api_key, request.api_version, request.client_id)
    said = decide_kafka(rules, request)
    if scope.everything is not None:
        assert said.allowed
        assert [rule.origins for rule in said.rules] == [scope.everything]
        return
    refused = [topic for topic in dict.fromkeys(request.topics) if topic not in scope.topics]
    assert list(said.refused) == (refused if scope.reason is None else list(dict.fromkeys(request.topics)))
    assert said.allowed is (not refused and scope.reason is None)
    for rule in said.rules:
        assert set(rule.origins) <= set(scope.topics[rule.topic])
