"""The proxy between real clients and a broker that we did not write: librdkafka's mock cluster.

It has what producers and consumers need, up to topic ids and the group protocol of KIP-848, but no administration: for
that, clients find no controller. What those requests are answered with is in test_exchange and test_refusals.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiokafka
import aiokafka.errors
import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from l7proxy.kafka.configuration import Configuration, ConfigurationError
from l7proxy.kafka.proxy import KafkaProxy
from l7proxy.kafka.records import Reason
from l7proxy.kafka.wires import BUFFER, OUT_FULL
from policies.ir import Listening, SlotState
from tests.l7proxy.kafka.make import ANNOUNCE, PLANS, frames, read_answer, request, rule, slot
from tests.l7proxy.kafka.outpost import NOBODY_PORT, WAIT_SECONDS, Outpost, wait

pytestmark = pytest.mark.privileged
DENIED = 29


def produced(outpost: Outpost, topic: str, *messages: bytes, **more: Any) -> list[int]:
    """Error codes of deliveries, by librdkafka."""
    made, codes = Producer(outpost.client(**more)), []
    for message in messages or (b"plans",):
        made.produce(topic, message, on_delivery=lambda error, _: codes.append(error.code() if error else 0))
    assert made.flush(WAIT_SECONDS) == 0
    return codes


def consumed(outpost: Outpost, topic: str, **more: Any) -> Message:
    """The first message or error that a member of a group gets, by librdkafka."""
    made = Consumer(outpost.client(auto_offset_reset="earliest", **more))
    made.subscribe([topic])
    try:
        message = made.poll(WAIT_SECONDS)
        assert message is not None, "nothing came"
        return message
    finally:
        made.close()


def run(task: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(task(), WAIT_SECONDS)

    return asyncio.run(bounded())


# --- producers ---


@pytest.mark.parametrize(
    "more", [{}, {"enable_idempotence": True}, {"acks": 0}, {"acks": 1}, {"compression_type": "gzip"}]
)
def test_librdkafka_produces_what_it_may(outpost: Outpost, more: dict[str, Any]) -> None:
    assert produced(outpost, ANNOUNCE, b"a", b"b" * 200_000, **more) == [0, 0]
    assert (0, ANNOUNCE) in outpost.allowed()


def test_and_not_what_it_may_not(outpost: Outpost) -> None:
    assert produced(outpost, PLANS) == [DENIED]
    assert outpost.denials() == {(3, PLANS)}


def test_a_producer_that_knows_its_broker_is_refused_by_topic(outpost: Outpost) -> None:
    outpost.apply(rule(role="produce", topic=ANNOUNCE), rule(3))
    assert produced(outpost, PLANS) == [DENIED]
    assert outpost.denials() == {(0, PLANS)}


def test_an_idempotent_producer_goes_on_after_a_refusal(outpost: Outpost) -> None:
    outpost.apply(rule(role="produce", topic=ANNOUNCE), rule(3))
    made, codes = Producer(outpost.client(enable_idempotence=True)), []
    for topic in (ANNOUNCE, PLANS, ANNOUNCE):
        made.produce(topic, b"x", on_delivery=lambda error, m: codes.append((m.topic(), error.code() if error else 0)))
        assert made.flush(WAIT_SECONDS) == 0
    assert codes == [(ANNOUNCE, 0), (PLANS, DENIED), (ANNOUNCE, 0)]


def test_without_acknowledgement_a_refusal_is_a_hang_up(outpost: Outpost) -> None:
    outpost.apply(rule(role="produce", topic=ANNOUNCE), rule(3))
    produced(outpost, PLANS, acks=0)
    wait(lambda: (0, PLANS) in outpost.denials(), "the refusal")


def test_a_transaction_commits(outpost: Outpost) -> None:
    made = Producer(outpost.client(transactional_id="t1"))
    made.init_transactions(WAIT_SECONDS)
    made.begin_transaction()
    made.produce(ANNOUNCE, b"x")
    made.commit_transaction(WAIT_SECONDS)
    assert {(22, ""), (24, ANNOUNCE), (0, ANNOUNCE), (26, "")} <= outpost.allowed()
    assert outpost.denials() == set()


def test_a_transaction_with_a_topic_that_is_refused_is_aborted(outpost: Outpost) -> None:
    outpost.apply(rule(role="produce", topic=ANNOUNCE), rule(3))
    made = Producer(outpost.client(transactional_id="t2"))
    made.init_transactions(WAIT_SECONDS)
    made.begin_transaction()
    made.produce(PLANS, b"x")
    with pytest.raises(KafkaException) as failed:
        made.commit_transaction(WAIT_SECONDS)
    assert failed.value.args[0].txn_requires_abort()
    made.abort_transaction(WAIT_SECONDS)
    assert (24, PLANS) in outpost.denials()


def test_the_roles_of_cilium_have_no_transactions(outpost: Outpost) -> None:
    outpost.apply(rule(0, 3, 18, topic=ANNOUNCE))
    made = Producer(outpost.client(transactional_id="t3"))
    with pytest.raises(KafkaException, match="authoriz"):
        made.init_transactions(5.0)
    assert outpost.denials() & {(10, ""), (22, "")}


def test_aiokafka_produces(outpost: Outpost) -> None:
    async def send(topic: str, **more: Any) -> int:
        made = aiokafka.AIOKafkaProducer(bootstrap_servers=outpost.bootstrap, **more)
        await made.start()
        try:
            if "transactional_id" in more:
                async with made.transaction():
                    return int((await made.send_and_wait(topic, b"x")).offset)
            return int((await made.send_and_wait(topic, b"x")).offset)
        finally:
            await made.stop()

    for more in ({}, {"enable_idempotence": True}, {"transactional_id": "t4"}):
        assert run(lambda more=more: send(ANNOUNCE, **more)) >= 0
        with pytest.raises(aiokafka.errors.TopicAuthorizationFailedError):
            run(lambda more=more: send(PLANS, **more))


# --- consumers ---


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_librdkafka_consumes_in_a_group_what_it_may(outpost: Outpost, protocol: str) -> None:
    produced(outpost, ANNOUNCE, b"landing")
    message = consumed(outpost, ANNOUNCE, group_id=f"{protocol}-1", group_protocol=protocol)
    assert message.error() is None
    assert message.topic() == ANNOUNCE
    assert (1, ANNOUNCE) in outpost.allowed()
    assert outpost.denials() == set()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_and_hears_that_it_may_not(outpost: Outpost, protocol: str) -> None:
    message = consumed(outpost, PLANS, group_id=f"{protocol}-2", group_protocol=protocol)
    assert message.error() is not None
    assert message.error().code() == DENIED
    assert {topic for _, topic in outpost.denials()} == {PLANS}


def test_a_fetch_of_what_is_refused_brings_an_error_and_of_what_is_allowed_messages(outpost: Outpost) -> None:
    outpost.apply(rule(role="consume", topic=ANNOUNCE), rule(0, 2, 3))
    produced(outpost, ANNOUNCE, b"landing")
    produced(outpost, PLANS, b"exhaust port")
    made = Consumer(outpost.client(group_id="g", auto_offset_reset="earliest"))
    made.assign([TopicPartition(topic, part, 0) for topic in (PLANS, ANNOUNCE) for part in range(4)])
    values, codes = set(), set()
    try:
        while not (values and codes):
            message = made.poll(WAIT_SECONDS)
            assert message is not None
            if message.error():
                codes.add(message.error().code())
            else:
                values.add(message.topic())
    finally:
        made.close()
    assert values == {ANNOUNCE}
    assert codes == {DENIED}
    assert (1, PLANS) in outpost.denials()


def test_aiokafka_consumes(outpost: Outpost) -> None:
    produced(outpost, ANNOUNCE, b"landing")

    async def receive(topic: str) -> Any:
        made = aiokafka.AIOKafkaConsumer(
            topic, bootstrap_servers=outpost.bootstrap, group_id="aio", auto_offset_reset="earliest"
        )
        try:
            await made.start()
            return await made.getone()
        finally:
            await made.stop()

    assert run(lambda: receive(ANNOUNCE)).topic == ANNOUNCE
    with pytest.raises(aiokafka.errors.TopicAuthorizationFailedError):
        run(lambda: receive(PLANS))


# --- administration, as far as the broker has any ---


def test_topics_are_listed_as_far_as_they_are_allowed(outpost: Outpost) -> None:
    assert set(AdminClient(outpost.client()).list_topics(timeout=WAIT_SECONDS).topics) == {ANNOUNCE}
    outpost.apply(rule(role="produce", topic=ANNOUNCE), hide_topics=False)
    assert set(AdminClient(outpost.client()).list_topics(timeout=WAIT_SECONDS).topics) == {ANNOUNCE, PLANS}


def test_offsets_are_listed_of_what_is_allowed(outpost: Outpost) -> None:
    outpost.apply(rule(role="consume", topic=ANNOUNCE), rule(3))
    admin = AdminClient(outpost.client())

    def listed(topic: str) -> int:
        asked = {TopicPartition(topic, 0): OffsetSpec.latest()}
        (answered,) = admin.list_offsets(asked, request_timeout=WAIT_SECONDS).values()
        return int(answered.result(WAIT_SECONDS).offset)

    assert listed(ANNOUNCE) >= 0
    with pytest.raises(KafkaException, match="authoriz"):
        listed(PLANS)
    assert outpost.denials() == {(2, PLANS)}


# --- the proxy itself ---


def connected(outpost: Outpost) -> socket.socket:
    host, port = outpost.bootstrap.split(":")
    made = socket.create_connection((host, int(port)), WAIT_SECONDS)
    made.settimeout(WAIT_SECONDS)
    return made


def received(connection: socket.socket) -> bytes:
    """One frame; nothing if the connection has ended."""
    content = b""
    while len(content) < 4 or len(content) < 4 + int.from_bytes(content[:4], "big"):
        more = connection.recv(65536)
        if not more:
            return b""
        content += more
    return content


def test_answers_keep_the_order_of_requests(outpost: Outpost) -> None:
    with connected(outpost) as connection:
        listing = [
            request(2, 5, {"topics": [{"name": t, "partitions": [{}]}]}, n)
            for n, t in enumerate((ANNOUNCE, PLANS) * 50)
        ]
        connection.sendall(b"".join(listing))
        content = b""
        while len(frames(content)) < 100 or len(frames(content)[-1]) != 4 + int.from_bytes(
            frames(content)[-1][:4], "big"
        ):
            content += connection.recv(65536)
    found = [read_answer(2, 5, one) for one in frames(content)]
    assert [number for number, _ in found] == list(range(100))
    assert [said["topics"][0]["partitions"][0]["error_code"] for _, said in found] == [0, DENIED] * 50


def test_an_edit_holds_from_the_next_request_on_of_a_live_connection(outpost: Outpost) -> None:
    asked = request(2, 5, {"topics": [{"name": PLANS, "partitions": [{}]}]})
    with connected(outpost) as connection:
        for rules, code in (((), DENIED), ((rule(2, topic=PLANS),), 0), ((rule(2, topic=ANNOUNCE),), DENIED)):
            outpost.apply(rule(role="consume", topic=ANNOUNCE), *rules)
            connection.sendall(asked)
            said = read_answer(2, 5, received(connection))[1]
            assert said["topics"][0]["partitions"][0]["error_code"] == code


def test_a_retired_slot_ends_its_connections_and_denies(outpost: Outpost) -> None:
    with connected(outpost) as connection:
        connection.sendall(request(18, 0, {}))
        assert received(connection)
        outpost.retire()
        assert received(connection) == b""
    with connected(outpost) as connection:
        connection.sendall(request(18, 0, {}))
        assert received(connection) == b""
    assert outpost.records[-1].reason is Reason.RETIRED


def test_another_slot_at_the_port_judges_none_of_the_others_connections(outpost: Outpost) -> None:
    with connected(outpost) as connection:
        connection.sendall(request(18, 0, {}))
        assert received(connection)
        other = slot(rule(role="consume", topic=PLANS))
        outpost.serve(replace(other, name="other"))
        assert received(connection) == b""


def test_a_client_that_closes_its_half_is_still_answered(outpost: Outpost) -> None:
    with connected(outpost) as connection:
        connection.sendall(request(2, 5, {"topics": [{"name": PLANS, "partitions": [{}]}]}))
        connection.shutdown(socket.SHUT_WR)
        assert read_answer(2, 5, received(connection))
        assert connection.recv(1) == b""
    wait(lambda: outpost.proxy is not None and not outpost.proxy.connections, "the end of the connection")


def test_an_encrypted_connection_is_closed_and_says_why(outpost: Outpost) -> None:
    with connected(outpost) as connection:
        connection.sendall(bytes.fromhex("1603010200010001fc0303") + bytes(600))
        assert connection.recv(100) == b""
    assert outpost.records[-1].reason is Reason.TLS


def test_a_server_that_is_not_there_is_a_connection_that_ends(outpost: Outpost) -> None:
    with socket.create_connection(("127.0.0.1", NOBODY_PORT), WAIT_SECONDS) as connection:
        connection.sendall(request(18, 0, {}))
        assert connection.recv(100) == b""
    assert outpost.records[-1].reason is Reason.UNREACHABLE


def _waiting(proxy: KafkaProxy) -> int:
    """Bytes that clients have not taken."""
    return max(link._client.waiting for link in proxy._station.connections)  # type: ignore[attr-defined]


def test_a_slow_reader_holds_up_the_server_and_costs_no_memory(outpost: Outpost) -> None:
    first: dict[int, int] = {}
    made = Producer(outpost.client())
    for number in range(8):
        landed = lambda _, message: first.setdefault(message.partition(), message.offset())  # noqa: E731
        made.produce(ANNOUNCE, b"x" * 500_000, partition=number % 4, on_delivery=landed)
    assert made.flush(WAIT_SECONDS) == 0
    parts = [{"partition": p, "fetch_offset": at, "partition_max_bytes": 1 << 20} for p, at in first.items()]
    asked = {"topics": [{"topic": ANNOUNCE, "partitions": parts}], "max_wait": 100, "max_bytes": 1 << 22}
    ask = request(1, 4, asked)
    with connected(outpost) as connection:
        connection.sendall(ask * 20)
        wait(lambda: len([r for r in outpost.records if r.api_key == 1]) == 20, "the requests")
        wait(lambda: outpost.on_loop(_waiting) >= OUT_FULL, "a full buffer")
        assert outpost.on_loop(_waiting) <= OUT_FULL + BUFFER
        total, content = 0, b""
        for _ in range(20):
            while len(content) < 4 or len(content) < 4 + int.from_bytes(content[:4], "big"):
                more = connection.recv(1 << 20)
                assert more
                content += more
            size = 4 + int.from_bytes(content[:4], "big")
            total, content = total + size, content[size:]
    assert total > 20 * 4 * 500_000


def test_a_configuration_that_cannot_be_listened_to_changes_nothing(outpost: Outpost) -> None:
    taken = Listening(slot(), int(outpost.bootstrap.split(":")[1]))
    before = outpost.proxy and outpost.proxy.configuration

    def apply(proxy: Any) -> None:
        with pytest.raises(ConfigurationError, match="cannot listen"):
            proxy.apply(Configuration((taken,)))

    outpost.on_loop(apply)
    assert outpost.proxy is not None
    assert outpost.proxy.configuration is before
    assert produced(outpost, ANNOUNCE) == [0]


def test_a_drained_slot_lets_everything_pass(outpost: Outpost) -> None:
    outpost.serve(slot(state=SlotState.DRAINED))
    assert produced(outpost, PLANS) == [0]
