"""What each API asks for, and how its answer says no: the table that judging and refusing go by. Pure.

An API that is not in the table names no topics, and its answer says no by an error code at its top.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from l7proxy.kafka import schema

SELF: Final = "."  # the element itself, of an array of plain values
_TOPIC_RESOURCE: Final = 2  # ConfigResource.Type.TOPIC, ResourceType.TOPIC
_LITERAL: Final = 3  # PatternType.LITERAL

PRODUCE, FETCH, LIST_OFFSETS, METADATA = 0, 1, 2, 3
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 8, 9, 10
SASL_HANDSHAKE, API_VERSIONS, INIT_PRODUCER_ID, SASL_AUTHENTICATE = 17, 18, 22, 36
SHARE_FETCH, SHARE_ACKNOWLEDGE = 78, 79


class Code(IntEnum):
    """Error codes that we answer with (https://kafka.apache.org/protocol#protocol_error_codes)."""

    NONE = 0
    NOT_LEADER_OR_FOLLOWER = 6
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    CLUSTER_AUTHORIZATION_FAILED = 31
    UNSUPPORTED_VERSION = 35
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    OPERATION_NOT_ATTEMPTED = 55
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65
    FETCH_SESSION_ID_NOT_FOUND = 70
    UNKNOWN_TOPIC_ID = 100
    SHARE_SESSION_NOT_FOUND = 122


@dataclass(frozen=True, slots=True)
class Each:
    """An array of the request, and the one of the response that has an entry for each of its entries.

    `asked`: the array's name; dots descend into arrays; "" is the request itself. `answer`: the array in the response
    ("": it has none). `copy`: fields of the answer's entry, and those of the request's that they repeat. `topic`, `id`:
    fields that name a topic. `only`: fields whose values make it a topic's name; with others nobody can say whose it
    is. `pattern`: it is a pattern, and nobody can say of which topics. `null_is_all`: such an array asks for all
    topics. `empty_is_all`: so does an empty one, up to this version.
    """

    asked: str
    answer: str = ""
    copy: tuple[tuple[str, str], ...] = ()
    topic: str = ""
    id: str = ""
    only: tuple[tuple[str, int], ...] = ()
    pattern: bool = False
    inner: Each | None = None
    null_is_all: bool = False
    empty_is_all: int = -1
    names: tuple[str, str] = ("", "")  # fields of the answer's entry with the topic's name and id

    @property
    def is_of_topics(self) -> bool:
        """Whether its entries, or those within, name topics."""
        return bool(self.topic or self.id) or (self.inner is not None and self.inner.is_of_topics)


@dataclass(frozen=True, slots=True)
class Conduct:
    """One API. `code`: of an answer that refuses all of it. `split`: the allowed topics are forwarded, and the others
    are refused in the answer; without it, one refused topic refuses the request. Why: docs/kafka.md."""

    each: tuple[Each, ...] = ()
    code: Code = Code.CLUSTER_AUTHORIZATION_FAILED
    split: bool = False

    @property
    def is_of_topics(self) -> bool:
        """Whether requests may name topics: then a rule with a topic allows no others."""
        return any(each.is_of_topics for each in self.each)

    @property
    def hides(self) -> bool:
        """Whether who asks for all topics can be answered with those that are allowed: the answer lists topics, and
        nothing but reading is asked for."""
        return self.split and any(_asks_for_all(each) for each in self.each)

    def due(self, struct: schema.Struct) -> tuple[Each, ...]:
        """Those arrays that the version of the request has."""
        return tuple(e for e in self.each if not e.asked or struct.field(e.asked.split(".")[0]) is not None)


def _asks_for_all(each: Each) -> bool:
    return each.null_is_all or each.empty_is_all >= 0 or (each.inner is not None and _asks_for_all(each.inner))


def conduct(key: int) -> Conduct:
    """That of an API; of one that is not in the table, that of all others."""
    return _CONDUCTS.get(key, _OTHERS)


def _topics(asked: str = "topics", answer: str = "topics", name: str = "name", **more: Each | int) -> Each:
    """The usual array: topics by name or id, with the same names in the answer."""
    copy = ((name, name), ("topic_id", "topic_id"))
    return Each(asked, answer, copy, name, "topic_id", names=(name, "topic_id"), **more)  # type: ignore[arg-type]


def _parts(asked: str = "partitions", answer: str = "partitions", field: str = "partition_index", by: str = "") -> Each:
    """Partitions of a topic, by a field or (SELF) as plain numbers."""
    return Each(asked, answer, ((field, by or field),))


def _ids(asked: str, inner: Each | None = None) -> Each:
    """Topics by id only, of an API whose answer says no at its top."""
    return Each(asked, id="topic_id", inner=inner)


def _names(asked: str, field: str = SELF) -> Each:
    """Topics by name only, of an API whose answer says no at its top."""
    return Each(asked, topic=field)


def _resources(answer: str) -> Each:
    kept = (("resource_type", "resource_type"), ("resource_name", "resource_name"))
    return Each("resources", answer, kept, "resource_name", only=(("resource_type", _TOPIC_RESOURCE),))


def _state(field: str = "partition") -> Each:
    return _topics("topics", "results", "topic_name", inner=_parts(field=field))


_OTHERS: Final = Conduct()
_FLAT: Final = _parts(by=SELF)
_FLAT_INDEXES: Final = _parts("partition_indexes", by=SELF)
_TXN_PARTS: Final = _parts(answer="results_by_partition", by=SELF)
_GROUP: Final = Conduct(code=Code.GROUP_AUTHORIZATION_FAILED)
_TXN: Final = Conduct(code=Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
_TOKEN: Final = Conduct(code=Code.DELEGATION_TOKEN_AUTHORIZATION_FAILED)
_QUORUM: Final = Conduct((_names("topics", "topic_name"),))


def _per_topic(*each: Each, split: bool = True) -> Conduct:
    return Conduct(each, Code.TOPIC_AUTHORIZATION_FAILED, split)


def _per_group(*each: Each) -> Conduct:
    return Conduct(each, Code.GROUP_AUTHORIZATION_FAILED)


_CONDUCTS: Final[dict[int, Conduct]] = {
    PRODUCE: _per_topic(
        _topics("topic_data", "responses", inner=_parts("partition_data", "partition_responses", "index"))
    ),
    FETCH: _per_topic(_topics("topics", "responses", "topic", inner=_parts(by="partition"))),
    LIST_OFFSETS: _per_topic(_topics(inner=_parts())),
    METADATA: _per_topic(_topics(null_is_all=True, empty_is_all=0)),
    4: Conduct((_names("ungrouped_partition_states", "topic_name"), _names("topic_states", "topic_name"))),
    5: Conduct(
        (
            _names("ungrouped_partitions", "topic_name"),
            _names("topics", "name"),
            _names("topic_states", "topic_name"),
        )
    ),
    6: Conduct((_names("ungrouped_partition_states", "topic_name"), _names("topic_states", "topic_name"))),
    OFFSET_COMMIT: _per_topic(_topics(inner=_parts())),
    OFFSET_FETCH: _per_topic(
        _topics(null_is_all=True, inner=_FLAT_INDEXES),
        Each("groups", "groups", (("group_id", "group_id"),), inner=_topics(null_is_all=True, inner=_FLAT_INDEXES)),
    ),
    FIND_COORDINATOR: _per_group(Each("coordinator_keys", "coordinators", (("key", SELF),))),
    **dict.fromkeys((11, 12, 13, 14, 16), _GROUP),
    15: _per_group(Each("groups", "groups", (("group_id", SELF),))),
    19: _per_topic(_topics()),
    20: _per_topic(
        Each("topic_names", "responses", (("name", SELF),), SELF, names=("name", "topic_id")),
        _topics("topics", "responses"),
    ),
    21: _per_topic(_topics(inner=_parts())),
    INIT_PRODUCER_ID: _TXN,
    23: _per_topic(_topics(name="topic", inner=_parts(field="partition"))),
    24: _per_topic(
        _topics("v3_and_below_topics", "results_by_topic_v3_and_below", inner=_TXN_PARTS),
        Each(
            "transactions",
            "results_by_transaction",
            (("transactional_id", "transactional_id"),),
            inner=_topics(answer="topic_results", inner=_TXN_PARTS),
        ),
        split=False,
    ),
    **dict.fromkeys((25, 26), _TXN),
    27: Conduct(
        (Each("markers", "markers", (("producer_id", "producer_id"),), inner=_topics(inner=_FLAT_INDEXES)),),
    ),
    28: _per_topic(_topics(inner=_parts())),
    29: Conduct(
        (
            Each(
                "",
                topic="resource_name_filter",
                only=(("resource_type_filter", _TOPIC_RESOURCE), ("pattern_type_filter", _LITERAL)),
            ),
        )
    ),
    30: Conduct(
        (
            Each(
                "creations",
                "results",
                topic="resource_name",
                only=(("resource_type", _TOPIC_RESOURCE), ("resource_pattern_type", _LITERAL)),
            ),
        )
    ),
    31: Conduct(
        (
            Each(
                "filters",
                "filter_results",
                topic="resource_name_filter",
                only=(("resource_type_filter", _TOPIC_RESOURCE), ("pattern_type_filter", _LITERAL)),
            ),
        )
    ),
    32: Conduct((_resources("results"),), split=True),
    33: Conduct((_resources("responses"),), split=True),
    34: _per_topic(
        Each("dirs.topics", "results", (("topic_name", "name"),), "name", inner=_FLAT),
        split=False,
    ),
    35: Conduct(
        (Each("topics", topic="topic", null_is_all=True), Each("", "results")), Code.TOPIC_AUTHORIZATION_FAILED
    ),
    37: _per_topic(_topics(answer="results")),
    **dict.fromkeys((38, 39, 40, 41), _TOKEN),
    42: _per_group(Each("groups_names", "results", (("group_id", SELF),))),
    43: _per_topic(
        _topics(
            "topic_partitions",
            "replica_election_results",
            "topic",
            null_is_all=True,
            inner=_parts(answer="partition_result", field="partition_id", by=SELF),
        ),
        split=False,
    ),
    44: Conduct((_resources("responses"),), split=True),
    45: _per_topic(_topics(answer="responses", inner=_parts()), split=False),
    46: Conduct((Each("topics", topic="name", null_is_all=True),), Code.TOPIC_AUTHORIZATION_FAILED),
    47: _per_topic(_topics(inner=_parts())),
    49: Conduct((Each("entries", "entries", (("entity", "entity"),)),)),
    51: Conduct(
        (
            Each("deletions", "results", (("user", "name"),)),
            Each("upsertions", "results", (("user", "name"),)),
        )
    ),
    **dict.fromkeys((52, 53, 54), _QUORUM),
    55: _QUORUM,
    56: Conduct((Each("topics", topic="topic_name", id="topic_id"),)),
    59: Conduct((_names("topics", "name"),)),
    61: _per_topic(_topics(inner=_FLAT_INDEXES)),
    65: Conduct(
        (Each("transactional_ids", "transaction_states", (("transactional_id", SELF),)),),
        Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    ),
    68: _per_group(_names("subscribed_topic_names"), Each("", topic="subscribed_topic_regex", pattern=True)),
    69: _per_group(Each("group_ids", "groups", (("group_id", SELF),))),
    73: Conduct((_ids("directories.topics"),)),
    75: _per_topic(_topics(empty_is_all=schema.NEWEST)),
    76: _per_group(_names("subscribed_topic_names")),
    77: _per_group(Each("group_ids", "groups", (("group_id", SELF),))),
    SHARE_FETCH: _per_group(_ids("topics")),
    SHARE_ACKNOWLEDGE: _per_group(_ids("topics")),
    **dict.fromkeys((83, 84, 85, 86, 87), Conduct((_state(),))),
    88: _per_group(
        _names("topology.subtopologies.source_topics"),
        Each("topology.subtopologies.source_topic_regex", topic=SELF, pattern=True),
        _names("topology.subtopologies.state_changelog_topics", "name"),
        _names("topology.subtopologies.repartition_sink_topics"),
        _names("topology.subtopologies.repartition_source_topics", "name"),
    ),
    89: _per_group(Each("group_ids", "groups", (("group_id", SELF),))),
    90: Conduct(
        (
            Each(
                "groups",
                "groups",
                (("group_id", "group_id"),),
                inner=_topics(name="topic_name", null_is_all=True, inner=_FLAT),
            ),
        ),
        Code.GROUP_AUTHORIZATION_FAILED,
        split=True,
    ),
    91: _per_topic(_topics(answer="responses", name="topic_name", inner=_parts())),
    92: _per_topic(_topics(answer="responses", name="topic_name")),
}
