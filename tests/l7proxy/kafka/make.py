"""Makers: requests and answers, rules, and a connection without sockets, whose ends are the test."""

from __future__ import annotations

import dataclasses
import io
import struct
from typing import Any

from kio.serial import entity_reader

from l7proxy.kafka import schema
from l7proxy.kafka.codec import decode, encode
from l7proxy.kafka.exchange import Exchange
from l7proxy.kafka.judge import Judge, Post
from l7proxy.kafka.records import AccessRecord, Connection
from l7proxy.kafka.refusals import frame, has_tags
from policies.ir import KafkaRule, L7Parser, RuleSet, Slot, SlotState
from policies.kafka_keys import role_keys
from policies.types import Direction, Origin, PortRange, Protocol
from tests.l7proxy.kafka.kio_messages import entity, versions

CONNECTION = Connection("ingress:4711:9092", 15500, "10.0.0.2", 40000, "10.0.0.3", 9092)
ANNOUNCE, PLANS = "empire-announce", "deathstar-plans"
ANNOUNCE_ID, PLANS_ID = b"a" * 16, b"p" * 16


def origin(number: int) -> Origin:
    return Origin("CiliumNetworkPolicy", "default", "rule", f"spec.ingress[0].toPorts[0].rules.kafka[{number}]")


def rule(*keys: int, topic: str = "", role: str = "", **more: Any) -> KafkaRule:
    return KafkaRule(role_keys(role) if role else keys, topic=topic, origins=(origin(len(keys)),), **more)


def slot(*rules: KafkaRule, state: SlotState = SlotState.ACTIVE, wildcard: bool = False) -> Slot:
    rule_set = RuleSet(kafka=rules, wildcard=(origin(99),) if wildcard else ())
    ports = PortRange(9092, 9092)
    return Slot(CONNECTION.slot, Direction.INGRESS, 4711, Protocol.TCP, ports, rule_set, state, L7Parser.KAFKA)


def request(key: int, version: int, message: dict[str, Any], correlation: int = 7, client: str | None = "tie") -> bytes:
    """A request's frame. `message`: its fields; others have their defaults."""
    body = encode(schema.request(key, version), message)
    header = struct.pack(">hhi", key, version, correlation)
    if (key, version) != (7, 0):
        name = b"" if client is None else client.encode()
        header += struct.pack(">h", -1 if client is None else len(name)) + name
    if schema.is_flexible(key, version):
        header += b"\0"
    return struct.pack(">i", len(header) + len(body)) + header + body


def answer(key: int, version: int, message: dict[str, Any], correlation: int = 7) -> bytes:
    return frame(key, version, correlation, message)


def read_answer(key: int, version: int, content: bytes) -> tuple[int, dict[str, Any]]:
    """Correlation id and fields of an answer's frame, which must also be one for kio."""
    size, correlation = struct.unpack_from(">ii", content)
    assert size + 4 == len(content)
    body = content[8 + has_tags(key, version) :]
    if version in versions(key):
        entity_reader(entity(key, version, "response"))(body, 0)
    return correlation, decode(schema.response(key, version), body)


def frames(content: bytes) -> list[bytes]:
    """Cut at the frames' ends."""
    found = []
    stream = io.BytesIO(content)
    while size := stream.read(4):
        found.append(size + stream.read(int.from_bytes(size, "big")))
    return found


@dataclasses.dataclass
class Wire:
    """A connection whose ends are the test."""

    exchange: Exchange
    post: Post
    records: list[AccessRecord]

    def says(self, content: bytes, piece: int = 0) -> bytes:
        """The client sends; returns what reaches the server."""
        step = piece or max(len(content), 1)
        for at in range(0, len(content), step):
            self.exchange.from_client(memoryview(content[at : at + step]))
            self._keep()
        return self.to_server()

    def answers(self, content: bytes, piece: int = 0) -> bytes:
        """The server sends; returns what reaches the client."""
        step = piece or max(len(content), 1)
        for at in range(0, len(content), step):
            self.exchange.from_server(memoryview(content[at : at + step]))
            self._keep()
        return self.to_client()

    def to_server(self) -> bytes:
        taken, self._server = self._server, b""
        return taken

    def to_client(self) -> bytes:
        taken, self._client = self._client, b""
        return taken

    def _keep(self) -> None:
        self._server += b"".join(self.exchange.to_server)
        self._client += b"".join(self.exchange.answers.out)
        self.exchange.to_server.clear()
        self.exchange.answers.out.clear()

    def __post_init__(self) -> None:
        self._server = self._client = b""

    def seen(self, record: AccessRecord) -> None:
        self.records.append(record)

    def topics(self) -> list[tuple[str, str]]:
        """What was seen, as topic and reason."""
        return [(record.topic, str(record.reason or "allowed")) for record in self.records]


def wire(*rules: KafkaRule, **more: Any) -> Wire:
    """A connection through a slot with these rules."""
    return judged(slot(*rules, **more))


def judged(by: Slot | None) -> Wire:
    return posted(Post(Judge(by)))


def posted(post: Post) -> Wire:
    """A connection that is judged at this post."""
    records: list[AccessRecord] = []

    class Sink:
        def seen(self, record: AccessRecord) -> None:
            records.append(record)

    return Wire(Exchange(CONNECTION, post, Sink()), post, records)
