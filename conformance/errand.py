"""An errand to a Kafka broker, and how it is to end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from conformance.target import Target


class Ending(StrEnum):
    """What an errand is to end in; conformance.errand_expectation says which flows must tell of it."""

    SERVED = "served"  # judged by the Kafka proxy, and done by the broker
    DENIED = "denied"  # judged by the Kafka proxy, which refuses in the broker's name
    PASSED = "passed"  # judged by the Kafka proxy and passed on; what the broker says is its own affair
    DIRECT = "direct"  # done, and no proxy in between
    DROPPED = "dropped"  # no answer: packets to the broker are dropped by policy
    FORBIDDEN = "forbidden"  # the same, and a deny rule is the reason


class Courier(StrEnum):
    """Whose client it is."""

    LIBRDKAFKA = "librdkafka"
    AIOKAFKA = "aiokafka"
    BY_HAND = "by-hand"  # a socket, for what no client asks of a broker that does not offer it


class Job(StrEnum):
    """What is to be done with the topics."""

    PRODUCE = "produce"  # messages, and wait until they are acknowledged
    PRODUCE_ONCE = "produce-once"  # the same, by an idempotent producer
    TRANSACT = "transact"  # the same, in a transaction
    PIPE = "pipe"  # the same, with offsets of the group in it
    FETCH = "fetch"  # what is there, of partitions that were chosen by hand
    CONSUME = "consume"  # what is there, as a member of the group, and commit
    CONSUME_848 = "consume-848"  # the same, by the group protocol of KIP-848
    LIST = "list"  # topics
    OFFSETS = "offsets"  # of the ends of the topics
    COMMITTED = "committed"  # offsets of the group
    CREATE = "create"  # topics
    DELETE = "delete"  # topics


TOPICLESS = frozenset(
    (
        *("findcoordinator", "joingroup", "heartbeat", "leavegroup", "syncgroup", "apiversions", "initproducerid"),
        *("addoffsetstotxn", "endtxn", "listgroups", "describegroups"),
    )
)

UNASKED = frozenset(("gettelemetrysubscriptions", "pushtelemetry"))  # clients do without (KIP-714)

# The APIs that an errand needs, whoever runs it: of each a request is seen, of most of them one for each topic.
NEEDED: Mapping[Job, tuple[str, ...]] = {
    Job.PRODUCE: ("metadata", "produce"),
    Job.PRODUCE_ONCE: ("metadata", "initproducerid", "produce"),
    Job.TRANSACT: ("findcoordinator", "initproducerid", "addpartitionstotxn", "produce", "endtxn"),
    Job.PIPE: ("findcoordinator", "initproducerid", "addpartitionstotxn", "produce", "addoffsetstotxn", "endtxn"),
    Job.FETCH: ("metadata", "fetch"),
    Job.CONSUME: ("findcoordinator", "joingroup", "syncgroup", "offsetfetch", "fetch", "offsetcommit"),
    Job.CONSUME_848: ("findcoordinator", "consumergroupheartbeat", "offsetfetch", "fetch", "offsetcommit"),
    Job.LIST: ("metadata",),
    Job.OFFSETS: ("metadata", "offsets"),
    Job.COMMITTED: ("findcoordinator", "offsetfetch"),
    Job.CREATE: ("createtopics",),
    Job.DELETE: ("deletetopics",),
}
DENIED = "TOPIC_AUTHORIZATION_FAILED"
KAFKA_PORT = 9092


@dataclass(frozen=True, slots=True)
class Errand:
    """One job and how it is to end.

    Topics in `refused` are refused while the others are served; where the errand is denied they all are. `error` is
    what the client is told of them, `at_key` the API at which they are refused. `sees` are the topics that a list must
    have, `hidden` those that it must not have. `by` names the policy
    that allows. `at` names the directions whose proxies see it, in order; the last one denies or drops. `flows` are
    expected beside those that the ending implies: field -> value, or ~regex. `unwatched`: there is no agent to tell
    flows.
    """

    source: str
    broker: Target
    job: Job
    expect: Ending
    topics: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    courier: Courier = Courier.LIBRDKAFKA
    family: int = 4
    client_id: str = ""
    group: str = ""
    count: int = 1
    error: str = DENIED
    at_key: str = "metadata"
    sees: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    by: str = ""
    at: tuple[str, ...] = ("ingress",)
    flows: tuple[Mapping[str, str], ...] = ()
    unwatched: bool = False

    @property
    def refused_topics(self) -> tuple[str, ...]:
        return self.topics if self.expect is Ending.DENIED else self.refused

    @property
    def served_topics(self) -> tuple[str, ...]:
        return tuple(topic for topic in self.topics if topic not in self.refused_topics)

    def __str__(self) -> str:
        what = f"{self.job} {' '.join(self.topics)}".rstrip()
        return f"{self.source} -> {self.broker} IPv{self.family} {self.courier}: {what}"
