"""Errands by aiokafka. Runs inside the process of conformance.kafka_client only."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from conformance.kafka_client import Order, Outcome

POLL_MS = 50
SESSION_MS, HEARTBEAT_MS = 6000, 500
REASON_MAX = 200

Work = Callable[[], Awaitable[Outcome]]


def client(order: Order) -> Callable[[], Outcome]:
    """What does the job. Whatever connections it has it keeps from one time to the next."""
    logging.disable(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    made: list[Work] = []

    async def once() -> Outcome:
        """Making a client asks already: what comes of that is what comes of the errand."""
        try:
            async with asyncio.timeout(order.patience + 1):
                if not made:
                    made.append(await _JOBS[order.job](order))
                return await made[0]()
        except (KafkaError, TimeoutError) as error:
            return Outcome({topic: name_of(error) for topic in _blamed(error)}, note=str(error)[:REASON_MAX])

    return lambda: loop.run_until_complete(once())


def name_of(error: BaseException) -> str:
    """Kafka's name of an error: TopicAuthorizationFailedError is TOPIC_AUTHORIZATION_FAILED."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).upper()


def _blamed(error: BaseException) -> list[str]:
    """The topics that an error names: some are told with a set of them."""
    named = [value for value in error.args if isinstance(value, set | frozenset)]
    return sorted(named[0]) if named else [""]


def _settings(order: Order, **more: Any) -> dict[str, Any]:
    common: dict[str, Any] = {
        "bootstrap_servers": order.bootstrap,
        "request_timeout_ms": int(order.patience * 1000),
        "retry_backoff_ms": 20,
    }
    return common | ({"client_id": order.client_id} if order.client_id else {}) | more


# --- producers ---


async def _make_producer(order: Order, **more: Any) -> AIOKafkaProducer:
    made = AIOKafkaProducer(**_settings(order, **more))
    await made.start()
    return made


async def _producer(order: Order) -> Work:
    made = await _make_producer(order)
    return lambda: _send(made, order)


async def _once(order: Order) -> Work:
    made = await _make_producer(order, enable_idempotence=True)
    return lambda: _send(made, order)


async def _send(producer: AIOKafkaProducer, order: Order) -> Outcome:
    errors: dict[str, str] = {}
    values: Counter[str] = Counter()
    for topic in order.topics:
        for number in range(order.count):
            try:
                await producer.send_and_wait(topic, f"{topic} {number}".encode())
                values[topic] += 1
            except KafkaError as error:
                errors[topic] = name_of(error)
                break
    return Outcome(errors, dict(values))


async def _transactor(order: Order, *, pipes: bool = False) -> Work:
    limit = int(order.patience * 1000)
    made = await _make_producer(order, transactional_id=f"tx-{order.group}", transaction_timeout_ms=limit)

    async def work() -> Outcome:
        await made.begin_transaction()
        outcome = await _send(made, order)
        if outcome.errors:
            await made.abort_transaction()
            return outcome
        if pipes:
            offsets = {TopicPartition(topic, 0): 1 for topic in order.topics}
            await made.send_offsets_to_transaction(offsets, order.group)
        await made.commit_transaction()
        return outcome

    return work


async def _piper(order: Order) -> Work:
    return await _transactor(order, pipes=True)


# --- consumers ---


async def _make_consumer(order: Order, **more: Any) -> AIOKafkaConsumer:
    common = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": POLL_MS}
    made = AIOKafkaConsumer(**_settings(order, **(common | more)))
    await made.start()
    return made


async def _fetcher(order: Order) -> Work:
    consumer = await _make_consumer(order)
    partitions = [TopicPartition(topic, 0) for topic in order.topics]
    consumer.assign(partitions)

    async def work() -> Outcome:
        for partition in partitions:
            consumer.seek(partition, 0)
        return await _drain(consumer, order)

    return work


async def _member(order: Order) -> Work:
    group = {"group_id": order.group, "session_timeout_ms": SESSION_MS, "heartbeat_interval_ms": HEARTBEAT_MS}
    consumer = await _make_consumer(order, **group)
    consumer.subscribe(list(order.topics))

    async def work() -> Outcome:
        outcome = await _drain(consumer, order)
        if outcome.values:
            await consumer.commit()
        if not order.repeats:
            await consumer.stop()
        return outcome

    return work


async def _drain(consumer: AIOKafkaConsumer, order: Order) -> Outcome:
    """Messages of each topic, until there are enough of each, or an error."""
    values: Counter[str] = Counter()
    try:
        async with asyncio.timeout(order.patience):
            while any(values[topic] < order.count for topic in order.topics):
                for partition, messages in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                    values[partition.topic] += len(messages)
    except TimeoutError:
        return Outcome({topic: "TIMED_OUT" for topic in order.topics if not values[topic]}, dict(values))
    except KafkaError as error:
        return Outcome({topic: name_of(error) for topic in _blamed(error)}, dict(values))
    return Outcome({}, dict(values))


# --- askers ---


def _asking(ask: Callable[[AIOKafkaAdminClient, Order], Awaitable[Outcome]]) -> Callable[[Order], Awaitable[Work]]:
    async def make(order: Order) -> Work:
        admin = AIOKafkaAdminClient(**_settings(order))
        await admin.start()
        return lambda: ask(admin, order)

    return make


async def _list(admin: AIOKafkaAdminClient, order: Order) -> Outcome:
    """All of them; or those that are named."""
    if not order.topics:
        return Outcome(seen=tuple(sorted(await admin.list_topics())))
    told = {topic["topic"]: topic["error_code"] for topic in await admin.describe_topics(list(order.topics))}
    errors = {topic: ERRORS.get(code, str(code)) for topic, code in told.items() if code}
    return Outcome(errors, seen=tuple(sorted(set(told) - set(errors))))


async def _committed(admin: AIOKafkaAdminClient, order: Order) -> Outcome:
    partitions = [TopicPartition(topic, 0) for topic in order.topics]
    found = await admin.list_consumer_group_offsets(order.group, partitions=partitions or None)
    return Outcome(values={partition.topic: told.offset for partition, told in found.items()})


def _answered(response: Any) -> Outcome:
    told = getattr(response, "topic_errors", None) or response.topic_error_codes
    errors = {entry[0]: ERRORS.get(entry[1], str(entry[1])) for entry in told if entry[1]}
    return Outcome(errors, {entry[0]: 1 for entry in told if not entry[1]})


async def _create(admin: AIOKafkaAdminClient, order: Order) -> Outcome:
    return _answered(await admin.create_topics([NewTopic(topic, 1, 1) for topic in order.topics]))


async def _delete(admin: AIOKafkaAdminClient, order: Order) -> Outcome:
    return _answered(await admin.delete_topics(list(order.topics)))


async def _offsets(order: Order) -> Work:
    consumer = await _make_consumer(order)

    async def work() -> Outcome:
        errors, values = {}, {}
        for topic in order.topics:
            partition = TopicPartition(topic, 0)
            try:
                values[topic] = (await consumer.end_offsets([partition]))[partition]
            except KafkaError as error:
                errors[topic] = name_of(error)
        return Outcome(errors, values)

    return work


ERRORS = {29: "TOPIC_AUTHORIZATION_FAILED", 31: "CLUSTER_AUTHORIZATION_FAILED"}
_JOBS: dict[str, Callable[[Order], Awaitable[Work]]] = {
    "produce": _producer,
    "produce-once": _once,
    "transact": _transactor,
    "pipe": _piper,
    "fetch": _fetcher,
    "consume": _member,
    "list": _asking(_list),
    "offsets": _offsets,
    "committed": _asking(_committed),
    "create": _asking(_create),
    "delete": _asking(_delete),
}
