"""Errands by librdkafka (confluent-kafka). Runs inside the process of conformance.kafka_client only."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from conformance.kafka_client import Order, Outcome

POLL = 0.05  # seconds
SESSION_MS, HEARTBEAT_MS = 6000, 500
LATER = ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE")  # it goes on trying after these
REASON_MAX = 200


def client(order: Order) -> Callable[[], Outcome]:
    """What does the job. Whatever connections it has it keeps from one time to the next."""
    return _JOBS[order.job](order)


def _settings(order: Order, **more: Any) -> dict[str, Any]:
    own = {"client.id": order.client_id} if order.client_id else {}
    common = {
        "bootstrap.servers": order.bootstrap,
        "log_level": 0,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
        "topic.metadata.refresh.fast.interval.ms": 50,
        "allow.auto.create.topics": False,
    }
    return common | own | {key.replace("_", "."): value for key, value in more.items()}


def _consumer(order: Order, **more: Any) -> Consumer:
    common = {"group_id": order.group, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    return Consumer(_settings(order, **(common | {"fetch_wait_max_ms": 50} | more)))


def _failure(error: KafkaError | Exception) -> Outcome:
    """All of it came to nothing."""
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    name = error.name() if isinstance(error, KafkaError) else type(error).__name__
    return Outcome({"": name}, note=str(error)[:REASON_MAX])


# --- producers ---


def _producer(order: Order) -> Callable[[], Outcome]:
    return _producing(order, enable_idempotence=False)


def _once(order: Order) -> Callable[[], Outcome]:
    return _producing(order, enable_idempotence=True)


def _producing(order: Order, **more: Any) -> Callable[[], Outcome]:
    limit = int(order.patience * 1000)
    made = Producer(_settings(order, message_timeout_ms=limit, linger_ms=0, **more))

    def work() -> Outcome:
        try:
            return _send(made, order)
        except (KafkaException, SystemError) as error:
            return _failure(_fatal(error))

    return work


def _fatal(error: Exception) -> Exception:
    """A fatal error of a producer is raised while its callbacks are still called, and Python complains of that."""
    cause = error.__cause__ or error.__context__
    return error if isinstance(error, KafkaException) or not isinstance(cause, Exception) else _fatal(cause)


def _send(producer: Producer, order: Order) -> Outcome:
    errors: dict[str, str] = {}
    values: Counter[str] = Counter()

    def told(error: KafkaError | None, message: Any) -> None:
        if error is None:
            values[message.topic()] += 1
        else:
            errors[message.topic()] = error.name()

    for topic in order.topics:
        for number in range(order.count):
            try:
                producer.produce(topic, f"{topic} {number}".encode(), callback=told)
            except KafkaException as error:
                errors[topic] = error.args[0].name()
    producer.flush(order.patience + 1)
    return Outcome(errors, dict(values))


def _transactor(order: Order, *, pipes: bool = False) -> Callable[[], Outcome]:
    limit = int(order.patience * 1000)
    made = Producer(
        _settings(order, transactional_id=f"tx-{order.group}", message_timeout_ms=limit, transaction_timeout_ms=limit)
    )
    begun = False

    def work() -> Outcome:
        nonlocal begun
        try:
            if not begun:
                made.init_transactions(order.patience)
                begun = True
            made.begin_transaction()
            outcome = _send(made, order)
            if outcome.errors:
                made.abort_transaction(order.patience)
                return outcome
            if pipes:
                offsets = [TopicPartition(topic, 0, 1) for topic in order.topics]
                made.send_offsets_to_transaction(offsets, _consumer(order).consumer_group_metadata(), order.patience)
            made.commit_transaction(order.patience)
        except KafkaException as error:
            return _failure(error)
        return outcome

    return work


def _piper(order: Order) -> Callable[[], Outcome]:
    return _transactor(order, pipes=True)


# --- consumers ---


def _fetcher(order: Order) -> Callable[[], Outcome]:
    consumer = _consumer(order)

    def work() -> Outcome:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in order.topics])
        return _drain(consumer, order)

    return work


def _member(order: Order, **more: Any) -> Callable[[], Outcome]:
    consumer = _consumer(order, **(more or {"session_timeout_ms": SESSION_MS, "heartbeat_interval_ms": HEARTBEAT_MS}))

    def work() -> Outcome:
        consumer.subscribe(list(order.topics))
        outcome = _drain(consumer, order)
        if outcome.values:
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as error:
                outcome = _failure(error)
        if not order.repeats:
            consumer.close()
        return outcome

    return work


def _member_848(order: Order) -> Callable[[], Outcome]:
    return _member(order, group_protocol="consumer")


def _drain(consumer: Consumer, order: Order) -> Outcome:
    """Messages of each topic, until there are enough of each, or an error of it."""
    errors: dict[str, str] = {}
    values: Counter[str] = Counter()
    end = time.monotonic() + order.patience

    def is_done() -> bool:
        return "" in errors or all(values[topic] >= order.count or topic in errors for topic in order.topics)

    while not is_done():
        if time.monotonic() > end:
            errors |= {topic: "_TIMED_OUT" for topic in order.topics if topic not in errors and not values[topic]}
            break
        message = consumer.poll(POLL)
        if message is None:
            continue
        error = message.error()
        if error is None:
            values[str(message.topic())] += 1
        elif error.name() not in LATER:
            errors[message.topic() or ""] = error.name()
    return Outcome(errors, dict(values))


# --- askers ---


def _asking(ask: Callable[[AdminClient, Order], Outcome]) -> Callable[[Order], Callable[[], Outcome]]:
    def make(order: Order) -> Callable[[], Outcome]:
        admin = AdminClient(_settings(order, socket_timeout_ms=int(order.patience * 1000)))

        def work() -> Outcome:
            try:
                return ask(admin, order)
            except (KafkaException, TimeoutError) as error:
                return _failure(error)

        return work

    return make


def _list(admin: AdminClient, order: Order) -> Outcome:
    """All of them; or one by one those that are named."""
    listed = {}
    for topic in order.topics or (None,):
        listed.update(admin.list_topics(topic, timeout=order.patience).topics)
    errors = {name: topic.error.name() for name, topic in listed.items() if topic.error is not None}
    return Outcome(errors, seen=tuple(sorted(set(listed) - set(errors))))


def _each(futures: dict[Any, Any], order: Order) -> Outcome:
    errors, values = {}, {}
    for key, future in futures.items():
        topic = key.topic if isinstance(key, TopicPartition) else key
        try:
            future.result(order.patience)
            values[topic] = 1
        except KafkaException as error:
            errors[topic] = error.args[0].name()
        except TimeoutError:
            errors[topic] = "_TIMED_OUT"
    return Outcome(errors, values)


def _create(admin: AdminClient, order: Order) -> Outcome:
    return _each(admin.create_topics([NewTopic(topic, 1, 1) for topic in order.topics]), order)


def _delete(admin: AdminClient, order: Order) -> Outcome:
    return _each(admin.delete_topics(list(order.topics)), order)


def _committed(admin: AdminClient, order: Order) -> Outcome:
    partitions = [TopicPartition(topic, 0) for topic in order.topics]
    (future,) = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(order.group, partitions or None)]
    ).values()
    found = future.result(order.patience).topic_partitions
    errors = {one.topic: one.error.name() for one in found if one.error is not None}
    return Outcome(errors, {one.topic: one.offset for one in found if one.error is None})


def _offsets(order: Order) -> Callable[[], Outcome]:
    consumer = _consumer(order)

    def work() -> Outcome:
        errors, values = {}, {}
        for topic in order.topics:
            try:
                values[topic] = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=order.patience)[1]
            except KafkaException as error:
                errors[topic] = error.args[0].name()
        return Outcome(errors, values)

    return work


_JOBS: dict[str, Callable[[Order], Callable[[], Outcome]]] = {
    "produce": _producer,
    "produce-once": _once,
    "transact": _transactor,
    "pipe": _piper,
    "fetch": _fetcher,
    "consume": _member,
    "consume-848": _member_848,
    "list": _asking(_list),
    "offsets": _offsets,
    "committed": _asking(_committed),
    "create": _asking(_create),
    "delete": _asking(_delete),
}
