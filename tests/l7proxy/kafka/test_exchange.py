"""Stories of one connection: what reaches the server, what the client is answered, and what was seen."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.kafka.apis import Code
from l7proxy.kafka.exchange import IN_FLIGHT
from l7proxy.kafka.heads import head
from l7proxy.kafka.judge import Judge
from l7proxy.kafka.records import Reason
from l7proxy.kafka.request import HOLD_MAX
from policies.ir import SlotState
from tests.l7proxy.kafka.make import (
    ANNOUNCE,
    ANNOUNCE_ID,
    PLANS,
    PLANS_ID,
    Wire,
    answer,
    frames,
    judged,
    posted,
    read_answer,
    request,
    rule,
    slot,
    wire,
)

PRODUCE, FETCH, METADATA, API_VERSIONS = 0, 1, 3, 18
DENIED, OK = str(Reason.TOPIC_DENIED), "allowed"
RECORDS = b"records" * 100


def produce(*topics: str, acks: int = -1, version: int = 9, correlation: int = 7, records: bytes = RECORDS) -> bytes:
    """A request with two partitions for each topic."""
    parts = [{"index": index, "records": records} for index in (0, 3)]
    listed = [{"name": topic, "partition_data": parts} for topic in topics]
    return request(PRODUCE, version, {"acks": acks, "topic_data": listed}, correlation)


def produced(*topics: str, version: int = 9, correlation: int = 7) -> bytes:
    parts = [{"index": index, "base_offset": 42} for index in (0, 3)]
    listed = [{"name": topic, "partition_responses": parts} for topic in topics]
    return answer(PRODUCE, version, {"responses": listed}, correlation)


def codes(message: dict[str, Any], topics: str, parts: str, name: str = "name") -> dict[str, set[int]]:
    return {one[name]: {part["error_code"] for part in one[parts]} for one in message[topics]}


def of_announce(**more: Any) -> Wire:
    """Who may produce to, and consume from, empire-announce."""
    return wire(rule(role="produce", topic=ANNOUNCE), rule(role="consume", topic=ANNOUNCE), **more)


# --- what is allowed passes as it is ---


@given(st.integers(1, 400), st.integers(1, 90))
def test_what_is_allowed_passes_byte_by_byte_however_it_comes(piece: int, piece_back: int) -> None:
    there = of_announce()
    asked = (
        produce(ANNOUNCE) + produce(ANNOUNCE, correlation=8) + request(12, 4, {"group_id": "g", "member_id": "m"}, 9)
    )
    said = produced(ANNOUNCE) + produced(ANNOUNCE, correlation=8) + answer(12, 4, {}, 9)
    assert there.says(asked, piece) == asked
    assert there.answers(said, piece_back) == said
    assert there.topics() == [(ANNOUNCE, OK), (ANNOUNCE, OK), ("", OK)]


@pytest.mark.parametrize("version", range(14))
def test_every_version_of_produce_is_judged(version: int) -> None:
    there = of_announce()
    if version < 13:
        asked = produce(ANNOUNCE, version=version)
        assert there.says(asked) == asked
        assert there.says(produce(PLANS, version=version, correlation=8)) == b""
    else:
        there.exchange._known.learn(ANNOUNCE_ID, ANNOUNCE)
        there.exchange._known.learn(PLANS_ID, PLANS)
        parts = [{"index": 0, "records": RECORDS}]
        asked = request(PRODUCE, 13, {"acks": -1, "topic_data": [{"topic_id": ANNOUNCE_ID, "partition_data": parts}]})
        assert there.says(asked) == asked
        refused = {"acks": -1, "topic_data": [{"topic_id": PLANS_ID, "partition_data": parts}]}
        assert there.says(request(PRODUCE, 13, refused, 8)) == b""
    assert there.topics() == [(ANNOUNCE, OK), (PLANS, DENIED)]


def test_what_a_rule_names_without_a_topic_is_allowed_whatever_it_is_about() -> None:
    there = wire(rule(PRODUCE))
    asked = produce(ANNOUNCE, PLANS)
    assert there.says(asked) == asked
    assert there.topics() == [(ANNOUNCE, OK), (PLANS, OK)]


def test_the_topics_of_what_needs_no_judging_are_seen_all_the_same() -> None:
    there = wire(rule())
    asked = request(20, 1, {"topic_names": [ANNOUNCE, PLANS], "timeout_ms": 9})
    assert there.says(asked, 5) == asked
    assert there.topics() == [(ANNOUNCE, OK), (PLANS, OK)]


def test_a_record_says_whose_rule_allowed() -> None:
    there = of_announce()
    there.says(produce(ANNOUNCE))
    (record,) = there.records
    assert [str(origin) for origin in record.origins] == [
        "CiliumNetworkPolicy default/rule spec.ingress[0].toPorts[0].rules.kafka[0]"
    ]
    assert (record.api_key, record.api_version, record.correlation_id, record.client_id) == (PRODUCE, 9, 7, "tie")


@pytest.mark.parametrize(
    ("more", "is_allowed"),
    [
        ({"client_id": "tie"}, True),
        ({"client_id": "x-wing"}, False),
        ({"api_version": 9}, True),
        ({"api_version": 8}, False),
    ],
)
def test_a_rule_fits_by_client_and_version(more: dict[str, Any], is_allowed: bool) -> None:
    there = wire(rule(PRODUCE, topic=ANNOUNCE, **more))
    assert bool(there.says(produce(ANNOUNCE))) is is_allowed


# --- what is refused is answered, in its turn ---


def test_a_refused_topic_is_answered_for_each_partition_and_the_connection_goes_on() -> None:
    there = of_announce()
    assert there.says(produce(PLANS)) == b""
    correlation, said = read_answer(PRODUCE, 9, there.to_client())
    assert (correlation, codes(said, "responses", "partition_responses")) == (7, {PLANS: {29}})
    assert there.topics() == [(PLANS, DENIED)]
    assert there.records[0].error_code == 29
    assert there.says(produce(ANNOUNCE))


def test_our_answer_waits_for_its_turn() -> None:
    there = of_announce()
    there.says(produce(ANNOUNCE, correlation=1) + produce(PLANS, correlation=2) + produce(ANNOUNCE, correlation=3))
    assert there.to_client() == b""
    first, second = frames(there.answers(produced(ANNOUNCE, correlation=1), 10))
    assert [read_answer(PRODUCE, 9, one)[0] for one in (first, second)] == [1, 2]
    (third,) = frames(there.answers(produced(ANNOUNCE, correlation=3)))
    assert read_answer(PRODUCE, 9, third)[0] == 3


def test_an_api_that_no_rule_allows_is_refused_in_its_own_terms() -> None:
    there = wire(rule(role="produce", topic=ANNOUNCE))
    for key, version, message, code in (
        (11, 5, {"group_id": "g", "member_id": "", "protocol_type": "consumer"}, 30),
        (16, 3, {}, 30),
        (36 + 24, 0, {}, 31),
        (38, 2, {}, 65),
    ):
        there.says(request(key, version, message))
        assert read_answer(key, version, there.to_client())[1]["error_code"] == code
    there = wire(rule(role="consume", topic=ANNOUNCE))
    for name, code in ((None, 31), ("txn", 53)):
        there.says(request(22, 4, {"transactional_id": name}))
        assert read_answer(22, 4, there.to_client())[1]["error_code"] == code
    assert {record.reason for record in there.records} == {Reason.API_DENIED}


def test_a_producer_that_wants_no_answer_gets_none_and_is_hung_up_on() -> None:
    there = of_announce()
    assert there.says(produce(PLANS, acks=0)) == b""
    assert there.to_client() == b""
    assert there.exchange.is_over
    assert there.topics() == [(PLANS, DENIED)]
    assert there.records[0].error_code == 0


def test_a_producer_that_wants_no_answer_is_not_waited_for() -> None:
    there = of_announce()
    asked = produce(ANNOUNCE, acks=0) + produce(ANNOUNCE, correlation=8)
    assert there.says(asked) == asked
    assert there.answers(produced(ANNOUNCE, correlation=8)) == produced(ANNOUNCE, correlation=8)
    assert not there.exchange.is_over


# --- some topics are, some are not ---


def test_what_is_allowed_of_a_request_goes_on_and_the_answer_tells_of_the_rest() -> None:
    there = of_announce()
    forwarded = there.says(produce(PLANS, ANNOUNCE), 100)
    assert forwarded == produce(ANNOUNCE)
    assert there.topics() == [(PLANS, DENIED), (ANNOUNCE, OK)]
    _, said = read_answer(PRODUCE, 9, there.answers(produced(ANNOUNCE), 3))
    assert codes(said, "responses", "partition_responses") == {PLANS: {29}, ANNOUNCE: {0}}


def test_the_same_without_an_answer_ends_the_connection_when_all_is_sent() -> None:
    there = of_announce()
    assert there.says(produce(PLANS, ANNOUNCE, acks=0)) == produce(ANNOUNCE, acks=0)
    assert there.exchange.is_over


@pytest.mark.parametrize("version", [1, 6, 7, 11, 12])
def test_a_fetch_of_some_topics_opens_no_session(version: int) -> None:
    there = of_announce()
    topics = [{"topic": topic, "partitions": [{"partition": 1}]} for topic in (PLANS, ANNOUNCE)]
    forwarded = there.says(request(FETCH, version, {"topics": topics, "session_id": 0, "session_epoch": 0}))
    wanted = {"topics": topics[1:], "session_id": 0, "session_epoch": -1}
    assert forwarded == request(FETCH, version, wanted)
    found = {"topic": ANNOUNCE, "partitions": [{"partition_index": 1, "records": RECORDS}]}
    _, said = read_answer(FETCH, version, there.answers(answer(FETCH, version, {"responses": [found]}), 11))
    assert codes(said, "responses", "partitions", "topic") == {PLANS: {29}, ANNOUNCE: {0}}
    assert bytes(said["responses"][1]["partitions"][0]["records"]) == RECORDS


SPLIT: list[tuple[int, int, str, dict[str, Any], dict[str, Any], str]] = [
    (2, 6, "topics", {"partitions": [{"partition_index": 0}]}, {"partitions": [{"partition_index": 0}]}, "topics"),
    (
        8,
        8,
        "topics",
        {"partitions": [{"partition_index": 0, "committed_metadata": None}]},
        {"partitions": []},
        "topics",
    ),
    (9, 5, "topics", {"partition_indexes": [0, 1]}, {"partitions": []}, "topics"),
    (19, 5, "topics", {"num_partitions": 1}, {"error_message": None, "configs": None}, "topics"),
    (20, 6, "topics", {}, {}, "responses"),
    (21, 2, "topics", {"partitions": [{"partition_index": 0}]}, {"partitions": []}, "topics"),
    (
        28,
        3,
        "topics",
        {"partitions": [{"partition_index": 0, "committed_metadata": None}]},
        {"partitions": []},
        "topics",
    ),
    (37, 2, "topics", {"assignments": None}, {}, "results"),
    (47, 0, "topics", {"partitions": [{"partition_index": 0}]}, {"partitions": []}, "topics"),
    (61, 0, "topics", {"partition_indexes": [0]}, {"partitions": []}, "topics"),
]


@pytest.mark.parametrize(("key", "version", "array", "entry", "answered", "back"), SPLIT)
def test_each_such_api(
    key: int, version: int, array: str, entry: dict[str, Any], answered: dict[str, Any], back: str
) -> None:
    there = wire(rule(key, topic=ANNOUNCE))
    both = {array: [{"name": PLANS, **entry}, {"name": ANNOUNCE, **entry}]}
    assert there.says(request(key, version, both)) == request(key, version, {array: [{"name": ANNOUNCE, **entry}]})
    _, said = read_answer(key, version, there.answers(answer(key, version, {back: [{"name": ANNOUNCE, **answered}]})))
    assert [one["name"] for one in said[back]] == [PLANS, ANNOUNCE]
    assert "29" in str(said[back][0])
    assert "29" not in str(said[back][1])
    assert there.topics() == [(PLANS, DENIED), (ANNOUNCE, OK)]


def test_configurations_of_topics_only() -> None:
    there = wire(rule(32, topic=ANNOUNCE))
    listed = [(2, PLANS), (4, "1"), (2, ANNOUNCE)]
    asked = {"resources": [{"resource_type": kind, "resource_name": name} for kind, name in listed]}
    kept = {"resources": [{"resource_type": 2, "resource_name": ANNOUNCE}]}
    assert there.says(request(32, 4, asked)) == request(32, 4, kept)
    found = {"results": [{"resource_type": 2, "resource_name": ANNOUNCE, "error_message": None}]}
    _, said = read_answer(32, 4, there.answers(answer(32, 4, found)))
    assert [(one["resource_name"], one["error_code"]) for one in said["results"]] == [
        (PLANS, 29),
        ("1", 29),
        (ANNOUNCE, 0),
    ]
    assert there.topics() == [(PLANS, DENIED), ("", str(Reason.NOT_BY_TOPIC)), (ANNOUNCE, OK)]


def test_offsets_of_groups_are_told_for_the_topics_that_are_allowed() -> None:
    there = of_announce()
    named = [{"name": topic, "partition_indexes": [0]} for topic in (PLANS, ANNOUNCE)]
    asked = {"groups": [{"group_id": "some", "topics": named}, {"group_id": "all", "topics": None}]}
    kept = {"groups": [{"group_id": "some", "topics": named[1:]}, {"group_id": "all", "topics": None}]}
    assert there.says(request(9, 8, asked)) == request(9, 8, kept)
    told = {"partitions": [{"partition_index": 0, "committed_offset": 5, "metadata": None}]}
    found = [
        {"group_id": "some", "topics": [{"name": ANNOUNCE, **told}]},
        {"group_id": "all", "topics": [{"name": PLANS, **told}, {"name": ANNOUNCE, **told}]},
    ]
    _, said = read_answer(9, 8, there.answers(answer(9, 8, {"groups": found})))
    by_group = {one["group_id"]: codes(one, "topics", "partitions") for one in said["groups"]}
    assert by_group == {"some": {ANNOUNCE: {0}, PLANS: {29}}, "all": {ANNOUNCE: {0}}}


def test_a_transaction_takes_all_topics_or_none() -> None:
    there = wire(rule(24, topic=ANNOUNCE))
    topics = [{"name": topic, "partitions": [0]} for topic in (PLANS, ANNOUNCE)]
    assert there.says(request(24, 3, {"v3_and_below_topics": topics, "v3_and_below_transactional_id": "t"})) == b""
    _, said = read_answer(24, 3, there.to_client())
    results = {
        one["name"]: one["results_by_partition"][0]["partition_error_code"]
        for one in said["results_by_topic_v3_and_below"]
    }
    assert results == {PLANS: Code.TOPIC_AUTHORIZATION_FAILED, ANNOUNCE: Code.OPERATION_NOT_ATTEMPTED}
    assert there.topics() == [(PLANS, DENIED)]


def test_members_of_a_group_subscribe_to_what_is_allowed() -> None:
    there = of_announce()
    member = {"group_id": "g", "member_id": "m", "topic_partitions": None}
    assert there.says(request(68, 1, member))
    assert there.says(request(68, 1, member | {"subscribed_topic_names": [ANNOUNCE]}))
    for more in ({"subscribed_topic_names": [ANNOUNCE, PLANS]}, {"subscribed_topic_regex": "empire.*"}):
        assert there.says(request(68, 1, member | more)) == b""
    assert {record.reason for record in there.records} == {None, Reason.TOPIC_DENIED, Reason.NOT_BY_TOPIC}


def test_a_repeated_topic_is_cut_out_wherever_it_stands() -> None:
    there = of_announce()
    assert there.says(produce(PLANS, ANNOUNCE, PLANS)) == produce(ANNOUNCE)


# --- metadata ---


def brokers(*topics: tuple[str, bytes], version: int = 12, correlation: int = 7) -> bytes:
    listed = [{"name": name, "topic_id": number} for name, number in topics]
    broker = {"node_id": 1, "host": "broker", "port": 9092}
    return answer(METADATA, version, {"brokers": [broker], "topics": listed}, correlation)


BOTH = ((PLANS, PLANS_ID), (ANNOUNCE, ANNOUNCE_ID))


@pytest.mark.parametrize("version", [0, 1, 9, 12, 13])
def test_who_asks_for_all_topics_sees_those_that_are_allowed(version: int) -> None:
    there = of_announce()
    asked = request(METADATA, version, {"topics": None if version else []})
    assert there.says(asked) == asked
    _, said = read_answer(METADATA, version, there.answers(brokers(*BOTH, version=version)))
    assert [topic["name"] for topic in said["topics"]] == [ANNOUNCE]
    assert len(said["brokers"]) == 1
    assert there.topics() == [("", OK)]


def test_unless_they_are_to_be_shown() -> None:
    there = of_announce()
    there.post.hide_topics = False
    there.says(request(METADATA, 12, {"topics": None}))
    assert there.answers(brokers(*BOTH)) == brokers(*BOTH)


def test_a_topic_that_is_refused_is_not_created_and_the_brokers_are_told_all_the_same() -> None:
    there = of_announce()
    asked = {"topics": [{"name": PLANS}], "allow_auto_topic_creation": True}
    assert there.says(request(METADATA, 12, asked)) == request(METADATA, 12, asked | {"topics": []})
    _, said = read_answer(METADATA, 12, there.answers(brokers()))
    assert [(topic["name"], topic["error_code"]) for topic in said["topics"]] == [(PLANS, 29)]
    assert said["brokers"][0]["host"] == "broker"


# --- topic ids ---


def fetch_ids(*numbers: bytes, correlation: int = 7, **more: int) -> bytes:
    topics = [{"topic_id": number, "partitions": [{"partition": 0}]} for number in numbers]
    session = {"session_id": 0, "session_epoch": -1} | more
    return request(FETCH, 13, {"topics": topics, **session}, correlation)


def test_metadata_that_passes_teaches_what_ids_mean() -> None:
    there = of_announce()
    asked = request(METADATA, 12, {"topics": [{"name": ANNOUNCE}]})
    there.says(asked)
    there.answers(brokers((ANNOUNCE, ANNOUNCE_ID)), 5)
    assert there.says(fetch_ids(ANNOUNCE_ID)) == fetch_ids(ANNOUNCE_ID)
    assert there.topics()[-1] == (ANNOUNCE, OK)


def test_what_another_connection_was_taught_names_a_topic_in_a_record() -> None:
    there = wire(rule())
    there.says(request(METADATA, 12, {"topics": [{"name": ANNOUNCE}]}))
    there.answers(brokers((ANNOUNCE, ANNOUNCE_ID)))
    second = posted(there.post)
    assert second.says(fetch_ids(ANNOUNCE_ID, PLANS_ID)) == fetch_ids(ANNOUNCE_ID, PLANS_ID)
    assert second.topics() == [(ANNOUNCE, OK), ("", OK)]


def test_and_allows_nothing() -> None:
    there = of_announce()
    there.says(request(METADATA, 12, {"topics": [{"name": ANNOUNCE}]}))
    there.answers(brokers((ANNOUNCE, ANNOUNCE_ID)))
    asked = head(memoryview(posted(there.post).says(fetch_ids(ANNOUNCE_ID))))
    assert asked is not None
    assert asked.key == METADATA


def test_an_id_that_nobody_knows_is_asked_for_and_the_client_waits() -> None:
    there = of_announce()
    both = fetch_ids(ANNOUNCE_ID, PLANS_ID) + produce(ANNOUNCE, correlation=8)
    asked = there.says(both, 9)
    found = head(memoryview(asked))
    assert found is not None
    assert (found.key, found.version, found.client_id) == (METADATA, 12, "tie")
    assert not there.exchange.wants_client
    back = there.answers(brokers(*BOTH, correlation=found.correlation), 4)
    assert back == b""
    assert there.to_server() == fetch_ids(ANNOUNCE_ID) + produce(ANNOUNCE, correlation=8)
    assert there.topics() == [(ANNOUNCE, OK), (PLANS, DENIED), (ANNOUNCE, OK)]
    _, said = read_answer(FETCH, 13, there.answers(answer(FETCH, 13, {"responses": []})))
    assert [(one["topic_id"], one["partitions"][0]["error_code"]) for one in said["responses"]] == [(PLANS_ID, 29)]


def test_an_id_that_the_server_does_not_know_either_is_refused() -> None:
    there = of_announce()
    asked = head(memoryview(there.says(fetch_ids(PLANS_ID))))
    assert asked is not None
    unknown = {"topics": [{"error_code": 100, "topic_id": PLANS_ID, "name": None}]}
    there.answers(answer(METADATA, 12, unknown, asked.correlation))
    assert there.topics() == [("", str(Reason.TOPIC_UNKNOWN))]


def test_it_is_answered_with_the_codes_word_for_it() -> None:
    there = of_announce()
    asked = head(memoryview(there.says(fetch_ids(PLANS_ID))))
    assert asked is not None
    back = there.answers(answer(METADATA, 12, {"topics": []}, asked.correlation))
    _, said = read_answer(FETCH, 13, back)
    assert said["responses"][0]["partitions"][0]["error_code"] == Code.UNKNOWN_TOPIC_ID


# --- fetch sessions ---


def fetch(*topics: str, session: int, epoch: int, correlation: int = 7) -> bytes:
    listed = [{"topic": topic, "partitions": [{"partition": 0}]} for topic in topics]
    return request(FETCH, 11, {"topics": listed, "session_id": session, "session_epoch": epoch}, correlation)


def with_session() -> Wire:
    """A session 99 that holds empire-announce."""
    there = of_announce()
    there.says(fetch(ANNOUNCE, session=0, epoch=0))
    there.answers(answer(FETCH, 11, {"session_id": 99, "responses": []}))
    return there


def is_restarted(there: Wire, asked: bytes) -> bool:
    """Whether the client is told that there is no such session."""
    if there.says(asked):
        return False
    return bool(read_answer(FETCH, 11, there.to_client())[1]["error_code"] == Code.FETCH_SESSION_ID_NOT_FOUND)


def test_a_session_goes_on_while_its_topics_are_allowed() -> None:
    there = with_session()
    assert there.says(fetch(session=99, epoch=1)) == fetch(session=99, epoch=1)
    assert there.topics() == [(ANNOUNCE, OK), (ANNOUNCE, OK)]


def test_a_session_of_another_connection_is_opened_anew() -> None:
    assert is_restarted(of_announce(), fetch(session=99, epoch=1))


def test_a_session_does_not_outlive_its_rules() -> None:
    there = with_session()
    there.post.judge = Judge(slot(rule(role="consume", topic=PLANS)))
    assert is_restarted(there, fetch(session=99, epoch=1))


def test_a_session_does_not_take_up_what_is_refused() -> None:
    there = with_session()
    assert is_restarted(there, fetch(PLANS, session=99, epoch=1))
    assert is_restarted(there, fetch(session=99, epoch=2)), "it is forgotten"


def test_a_session_that_was_closed_is_no_more() -> None:
    there = with_session()
    assert there.says(fetch(ANNOUNCE, session=99, epoch=-1))
    there.answers(answer(FETCH, 11, {"responses": []}))
    assert is_restarted(there, fetch(session=99, epoch=1))


def test_a_share_session_is_one_of_this_connection() -> None:
    there = of_announce()
    there.exchange._known.learn(ANNOUNCE_ID, ANNOUNCE)
    share = {"group_id": "g", "member_id": "m"}
    opening = share | {"topics": [{"topic_id": ANNOUNCE_ID, "partitions": []}]}
    assert there.says(request(78, 1, share | {"share_session_epoch": 1})) == b""
    assert read_answer(78, 1, there.to_client())[1]["error_code"] == Code.SHARE_SESSION_NOT_FOUND
    assert there.says(request(78, 1, opening))
    assert there.says(request(78, 1, share | {"share_session_epoch": 1}))
    there.post.judge = Judge(slot(rule(role="consume", topic=PLANS)))
    assert there.says(request(78, 1, share | {"share_session_epoch": 2})) == b""


# --- rules change ---


def test_an_edit_holds_from_the_next_request_on() -> None:
    there = of_announce()
    first = produce(ANNOUNCE)
    there.says(first[:100])
    there.post.judge = Judge(slot(rule(role="produce", topic=PLANS)))
    there.says(first[100:] + produce(ANNOUNCE, correlation=8))
    assert there.topics() == [(ANNOUNCE, OK), (ANNOUNCE, DENIED)]


def test_rules_that_are_gone_let_what_was_forwarded_be_answered_and_end_it() -> None:
    there = of_announce()
    there.says(produce(ANNOUNCE))
    there.post.judge = Judge(slot(state=SlotState.RETIRED))
    there.exchange.retire()
    assert not there.exchange.is_over
    assert not there.exchange.wants_client
    assert there.answers(produced(ANNOUNCE)) == produced(ANNOUNCE)
    assert there.exchange.is_over


def test_a_request_under_rules_that_are_gone_is_denied() -> None:
    there = judged(slot(rule(PRODUCE), state=SlotState.RETIRED))
    assert there.says(produce(ANNOUNCE)) == b""
    assert there.exchange.is_over
    assert there.topics() == [("", str(Reason.RETIRED))]


def test_a_drained_slot_serves_what_is_still_open() -> None:
    there = judged(slot(state=SlotState.DRAINED))
    assert there.says(produce(PLANS)) == produce(PLANS)


def test_without_rules_everything_is_denied() -> None:
    there = judged(slot())
    assert there.says(produce(ANNOUNCE)) == b""
    assert there.topics() == [(ANNOUNCE, str(Reason.API_DENIED))]


# --- versions ---


def offered(version: int, *apis: tuple[int, int, int]) -> bytes:
    keys = [{"api_key": key, "min_version": first, "max_version": last} for key, first, last in apis]
    return answer(API_VERSIONS, version, {"api_keys": keys})


@pytest.mark.parametrize("version", range(5))
def test_versions_are_narrowed_to_what_can_be_judged(version: int) -> None:
    there = of_announce()
    there.says(request(API_VERSIONS, version, {"client_software_name": "x", "client_software_version": "1"}))
    back = there.answers(offered(version, (0, 0, 99), (17, 0, 1), (3, 4, 8), (200, 0, 3), (1, 50, 60)))
    _, said = read_answer(API_VERSIONS, version, back)
    assert [tuple(one.values())[:3] for one in said["api_keys"]] == [(0, 0, 13), (17, 1, 1), (3, 4, 8)]


def test_where_everything_is_allowed_they_are_not() -> None:
    there = wire(wildcard=True)
    there.says(request(API_VERSIONS, 2, {}))
    assert there.answers(offered(2, (0, 0, 99))) == offered(2, (0, 0, 99))


def newer(key: int, version: int, correlation: int = 7) -> bytes:
    content = struct.pack(">hhih", key, version, correlation, -1) + b"whatever it is"
    return struct.pack(">i", len(content)) + content


def test_what_nobody_can_read_passes_by_a_rule_without_topic() -> None:
    there = wire(rule(PRODUCE, 200))
    asked = newer(200, 0) + newer(PRODUCE, 99, 8) + produce(ANNOUNCE, correlation=9)
    assert there.says(asked) == asked
    said = struct.pack(">ii", 6, 7) + b"ok"
    assert there.answers(said) == said
    assert there.answers(produced(ANNOUNCE, correlation=9)), "nobody can tell whether 8 has an answer"


def test_and_is_refused_by_a_rule_with_one() -> None:
    for key, reason in ((PRODUCE, Reason.API_UNKNOWN), (200, Reason.API_DENIED)):
        there = wire(rule(PRODUCE, topic=ANNOUNCE))
        assert there.says(newer(key, 99)) == b""
        assert there.exchange.is_over
        assert there.topics() == [("", str(reason))]


def test_who_asks_for_versions_in_a_newer_one_is_told_which_there_are() -> None:
    there = of_announce()
    assert there.says(newer(API_VERSIONS, 9)) == b""
    _, said = read_answer(API_VERSIONS, 0, there.to_client())
    assert said["error_code"] == Code.UNSUPPORTED_VERSION
    assert not there.exchange.is_over


def test_a_broker_that_does_not_know_the_version_is_believed() -> None:
    there = of_announce()
    there.says(request(API_VERSIONS, 4, {"client_software_name": "x", "client_software_version": "1"}))
    said = answer(API_VERSIONS, 0, {"error_code": 35, "api_keys": []})
    assert there.answers(said) == said


# --- SASL, TLS ---


def test_who_says_who_he_is_needs_no_rule() -> None:
    there = of_announce()
    asked = request(17, 1, {"mechanism": "PLAIN"}) + request(36, 2, {"auth_bytes": b"secret"}, 8)
    assert there.says(asked) == asked


def test_sasl_without_frames_could_not_be_told_from_requests() -> None:
    there = of_announce()
    assert there.says(request(17, 0, {"mechanism": "PLAIN"})) == b""
    assert read_answer(17, 0, there.to_client())[1]["error_code"] == Code.UNSUPPORTED_VERSION


def test_an_encrypted_connection_is_refused_and_says_why() -> None:
    there = of_announce()
    assert there.says(bytes.fromhex("1603010200010001fc0303")) == b""
    assert there.exchange.is_over
    assert there.topics() == [("", str(Reason.TLS))]


# --- bounds ---


@pytest.mark.parametrize("content", [b"\0\0\0\3abc", b"\xff\xff\xff\xff", b"\0\0\0\x0a\0\0\0\0\0\0\0\7\x7f\xff"])
def test_what_is_no_request_ends_the_connection(content: bytes) -> None:
    there = of_announce()
    there.says(content)
    assert there.exchange.is_over
    assert there.topics() == [("", str(Reason.MALFORMED))]


def test_a_frame_that_claims_two_gigabytes_costs_nothing() -> None:
    for key, version in ((PRODUCE, 9), (METADATA, 12), (16, 0), (200, 0)):
        there = wire(rule(topic=ANNOUNCE)) if key != 200 else wire(rule())
        start = request(key, version, {"topics": None}) if key == METADATA else newer(key, version)
        there.says(b"\x7f\xff\xff\xff" + start[4:])
        assert there.exchange.held < 1000


def test_a_large_batch_is_forwarded_as_it_comes() -> None:
    there = of_announce()
    asked = produce(ANNOUNCE, records=bytes(3 * HOLD_MAX))
    first = there.says(asked[:1000])
    assert first == asked[:1000]
    assert there.exchange.held == 0
    assert there.says(asked[1000:], 100_000) == asked[1000:]
    assert there.answers(produced(ANNOUNCE)) == produced(ANNOUNCE)


def test_a_large_request_of_several_topics_goes_on_while_they_are_allowed() -> None:
    there = wire(rule(PRODUCE, topic=ANNOUNCE), rule(PRODUCE, topic=PLANS))
    asked = produce(ANNOUNCE, PLANS, records=bytes(HOLD_MAX))
    assert there.says(asked, 1 << 20) == asked
    assert there.topics() == [(ANNOUNCE, OK), (PLANS, OK)]
    assert there.answers(produced(ANNOUNCE, PLANS)) == produced(ANNOUNCE, PLANS)


def test_a_large_request_for_a_refused_topic_is_answered_and_never_kept() -> None:
    there = of_announce()
    asked = produce(PLANS, records=bytes(HOLD_MAX))
    for at in range(0, len(asked), 1 << 20):
        assert there.says(asked[at : at + (1 << 20)]) == b""
        assert there.exchange.held == 0
    _, said = read_answer(PRODUCE, 9, there.to_client())
    assert codes(said, "responses", "partition_responses") == {PLANS: {29}}


def test_a_large_request_whose_second_topic_is_refused_ends_half_way_and_the_first_is_tried_again() -> None:
    there = of_announce()
    there.says(produce(ANNOUNCE, correlation=1))
    asked = produce(ANNOUNCE, PLANS, records=bytes(HOLD_MAX))
    forwarded = there.says(asked, 1 << 20)
    assert 0 < len(forwarded) < len(asked)
    assert asked.startswith(forwarded)
    assert not there.exchange.is_over
    first, second = frames(there.answers(produced(ANNOUNCE, correlation=1)))
    assert first == produced(ANNOUNCE, correlation=1)
    _, said = read_answer(PRODUCE, 9, second)
    expected = {ANNOUNCE: {Code.NOT_LEADER_OR_FOLLOWER}, PLANS: {Code.TOPIC_AUTHORIZATION_FAILED}}
    assert codes(said, "responses", "partition_responses") == expected
    assert there.exchange.is_over


def test_a_client_that_is_not_answered_is_read_no_further() -> None:
    there = of_announce()
    asked = b"".join(produce(ANNOUNCE, correlation=number, records=b"") for number in range(IN_FLIGHT + 10))
    forwarded = there.says(asked)
    assert len(frames(forwarded)) == IN_FLIGHT
    assert not there.exchange.wants_client
    there.answers(b"".join(produced(ANNOUNCE, correlation=number) for number in range(20)))
    assert len(frames(there.to_server())) == 10
    assert there.exchange.wants_client


def test_a_client_that_is_only_refused_is_bounded_too() -> None:
    there = of_announce()
    there.says(produce(ANNOUNCE, correlation=0))
    there.says(b"".join(produce(PLANS, correlation=number) for number in range(1, IN_FLIGHT + 10)))
    assert not there.exchange.wants_client
    there.answers(produced(ANNOUNCE, correlation=0))
    assert there.exchange.wants_client


# --- servers that are not what they should be ---


@pytest.mark.parametrize("said", [b"\0\0\0\4\0\0\0\x63", b"\0\0\0\2\0\0", b"\xff\xff\xff\xff\0\0\0\0"])
def test_an_answer_to_nothing_ends_the_connection(said: bytes) -> None:
    there = of_announce()
    there.says(produce(ANNOUNCE))
    there.answers(said + bytes(8))
    assert there.exchange.is_broken
    assert there.topics()[-1] == ("", str(Reason.BAD_ANSWER))


def test_an_answer_that_must_be_read_and_cannot_be_ends_the_connection() -> None:
    there = of_announce()
    there.says(request(METADATA, 12, {"topics": None}))
    there.answers(struct.pack(">ii", 8, 7) + b"what")
    assert there.exchange.is_broken


def test_an_answer_that_cannot_grow_ends_the_connection() -> None:
    there = of_announce()
    there.says(produce(PLANS, ANNOUNCE))
    there.answers(b"\x7f\xff\xff\xff" + produced(ANNOUNCE)[4:])
    assert there.exchange.is_broken
    assert there.topics()[-1] == ("", str(Reason.ANSWER_TOO_LARGE))


def test_what_comes_after_the_last_field_is_nobodys_business() -> None:
    there = of_announce()
    asked = request(METADATA, 12, {"topics": None})
    longer = struct.pack(">i", len(asked) - 4 + 3) + asked[4:] + b"\1\0\0"
    assert there.says(longer) == longer
    said = brokers(*BOTH)
    back = there.answers(struct.pack(">i", len(said) - 4 + 1) + said[4:] + b"\0")
    assert back.endswith(b"\0\0\0")
    _, read = read_answer(METADATA, 12, struct.pack(">i", len(back) - 5) + back[4:-1])
    assert [topic["name"] for topic in read["topics"]] == [ANNOUNCE]


# --- ends ---


def test_a_client_that_has_said_all_is_still_answered() -> None:
    there = of_announce()
    there.says(produce(ANNOUNCE))
    there.exchange.client_ended()
    assert there.exchange.is_said
    assert not there.exchange.is_over
    assert there.answers(produced(ANNOUNCE))


def test_a_client_that_ends_without_a_word_is_over() -> None:
    there = of_announce()
    there.exchange.client_ended()
    assert there.exchange.is_over
    assert there.records == []
