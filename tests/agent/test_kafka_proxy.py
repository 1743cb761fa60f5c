"""A pod speaks Kafka to another through the Kafka proxy of a running node: judged topic by topic, and shown."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from conformance import netns
from conformance.blueprint import Blueprint, Pod
from conformance.galaxy import Galaxy, galaxy
from conformance.node import DEFLECTOR, Node, running
from tests.l7proxy.kafka.make import ANNOUNCE, PLANS, answer, read_answer, request

pytestmark = pytest.mark.privileged

PATIENCE = 15.0
METADATA, VERSION = 3, 1
REFUSED = 29  # TOPIC_AUTHORIZATION_FAILED
HQ, BROKER = "empire-hq", "kafka"
TOWN = Blueprint(
    "kafkatown",
    (
        Pod(HQ, HQ, (("app", HQ),), "10.244.0.11", "fd00:10:244::b"),
        Pod(BROKER, BROKER, (("app", BROKER),), "10.244.0.12", "fd00:10:244::c"),
    ),
)


def policy(*rules: dict[str, str]) -> str:
    ports = [{"port": "9092", "protocol": "TCP"}]
    peer = {"fromEndpoints": [{"matchLabels": {"app": HQ}}], "toPorts": [{"ports": ports, "rules": {"kafka": rules}}]}
    spec = {"endpointSelector": {"matchLabels": {"app": BROKER}}, "ingress": [peer]}
    body = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "spec": spec}
    return yaml.safe_dump({**body, "metadata": {"name": "kafka", "namespace": "default"}})


@dataclass
class Story:
    made: Galaxy
    node: Node
    asked: list[bytes] = field(default_factory=list)

    @contextmanager
    def broker(self) -> Iterator[None]:
        """Answers every request about metadata with the topics that the test expects to get through."""
        served = netns.socket_in(self.made.namespace(BROKER), socket.AF_INET, socket.SOCK_STREAM)
        served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        served.bind(("0.0.0.0", 9092))
        served.listen()
        threading.Thread(target=self._serve, args=(served,), daemon=True).start()
        try:
            yield
        finally:
            served.shutdown(socket.SHUT_RDWR)
            served.close()

    def _serve(self, served: socket.socket) -> None:
        while True:
            try:
                connection, _ = served.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while frame := _frame(connection):
                    self.asked.append(frame)
                    (correlation,) = struct.unpack_from(">i", frame, 8)
                    topic = {"error_code": 0, "name": ANNOUNCE, "is_internal": False, "partitions": []}
                    connection.sendall(answer(METADATA, VERSION, {"topics": [topic]}, correlation))
            except OSError:
                return

    def metadata(self, topic: str, connection: socket.socket | None = None) -> int:
        """The error code that the topic got."""
        mine = connection or self.connect()
        try:
            mine.sendall(request(METADATA, VERSION, {"topics": [{"name": topic}]}))
            _, fields = read_answer(METADATA, VERSION, _frame(mine))
            return int(next(one["error_code"] for one in fields["topics"] if one["name"] == topic))
        finally:
            if connection is None:
                mine.close()

    def connect(self) -> socket.socket:
        made = netns.socket_in(self.made.namespace(HQ), socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(5)
        made.connect((self.made.address(BROKER, 4), 9092))
        return made

    async def pid(self) -> int:
        end = time.monotonic() + PATIENCE
        while not ((status := await self.node.status()) and status["proxies"]["kafka-proxy"]["connected"]):
            assert time.monotonic() < end, (status, self.node.log_tail())
            await asyncio.sleep(0.02)
        return int(status["proxies"]["kafka-proxy"]["pid"])

    def flows(self) -> list[dict[str, Any]]:
        argv = [str(DEFLECTOR), "observe", "--run-dir", str(self.made.run_dir), "-o", "json", "--last", "50"]
        done = subprocess.run([*argv, "--protocol", "kafka"], capture_output=True, text=True, check=True)
        return [json.loads(line)["flow"] for line in done.stdout.splitlines()]

    async def seen(self, count: int) -> list[dict[str, Any]]:
        end = time.monotonic() + PATIENCE
        while len(found := self.flows()) < count:
            assert time.monotonic() < end, found
            await asyncio.sleep(0.05)
        return found


def _frame(connection: socket.socket) -> bytes:
    head = connection.recv(4, socket.MSG_WAITALL)
    return head + connection.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL) if len(head) == 4 else b""


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    with galaxy(TOWN, prefix="kafka") as made:
        made.manifests.write("policy-kafka.yaml", policy({"role": "produce", "topic": ANNOUNCE}))
        async with running(made) as node:
            story = Story(made, node)
            await story.pid()
            with story.broker():
                yield story
            assert await node.stop() == []


async def test_a_topic_is_allowed_another_is_refused_and_both_are_shown(story: Story) -> None:
    assert story.metadata(ANNOUNCE) == 0
    assert story.metadata(PLANS) == REFUSED
    assert PLANS.encode() not in b"".join(story.asked), "the broker never heard of the plans"
    flows = await story.seen(2)
    assert [(flow["verdict"], flow["l7"]["kafka"]["topic"]) for flow in flows] == [
        ("FORWARDED", ANNOUNCE),
        ("DROPPED", PLANS),
    ]
    assert flows[0]["l7"]["kafka"]["api_key"] == "metadata"
    assert (flows[0]["source"]["pod_name"], flows[0]["destination"]["pod_name"]) == (HQ, BROKER)
    assert flows[0]["traffic_direction"] == "INGRESS"
    assert flows[0]["ingress_allowed_by"][0]["name"] == "kafka"
    assert flows[1]["policy_log"], "and why"


async def test_a_live_connection_obeys_an_edit_and_goes_on_without_the_agent(story: Story) -> None:
    with story.connect() as connection:
        assert story.metadata(PLANS, connection) == REFUSED
        story.made.manifests.write("policy-kafka.yaml", policy({"topic": PLANS}))
        await story.node.enforced()
        assert story.metadata(ANNOUNCE, connection) == REFUSED
        pid = await story.pid()
        await story.node.kill()
        assert story.metadata(ANNOUNCE, connection) == REFUSED
        await story.node.start()
        assert await story.pid() == pid
        assert story.metadata(ANNOUNCE, connection) == REFUSED


async def test_a_proxy_that_is_killed_comes_back_under_its_rules(story: Story) -> None:
    pid = await story.pid()
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            assert story.metadata(PLANS) == REFUSED
            break
        except OSError:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
    assert story.metadata(ANNOUNCE) == 0
    assert await story.pid() != pid


@pytest.mark.parametrize(("flags", "heard"), [((), []), (("--kafka-show-topics",), [ANNOUNCE])])
async def test_who_asks_for_all_topics_hears_what_the_node_was_told_to_show(
    flags: tuple[str, ...], heard: list[str]
) -> None:
    with galaxy(TOWN, prefix="kafka") as made:
        made.manifests.write("policy-kafka.yaml", policy({"role": "produce", "topic": PLANS}))
        async with running(made, flags) as node:
            story = Story(made, node)
            await story.pid()
            with story.broker(), story.connect() as connection:
                connection.sendall(request(METADATA, VERSION, {"topics": None}))
                _, fields = read_answer(METADATA, VERSION, _frame(connection))
                assert [one["name"] for one in fields["topics"]] == heard
            assert await node.stop() == []
