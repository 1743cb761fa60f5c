"""What our own proxies tell the agent: the gRPC service on the agent's side. One stream for each process that tells.

Records go to flows as they are, and are opened when somebody wants to read them; lessons go to who opens addresses, and
what becomes of them goes back on the same stream.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import grpc

from agent.proxies.dns_flows import dns_records
from agent.proxies.kafka_flows import kafka_records
from flows.intake import Packed
from flows.record import Parsed
from xds.protos.deflector.l7.v1 import reports_pb2 as pb

SERVICE: Final = "deflector.l7.v1.Reports"
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Answer: TypeAlias = Callable[[Sequence[int], Sequence[int]], None]


class Flows(Protocol):
    """Who takes records (flows.observer)."""

    def packed(self, packed: Packed) -> None: ...


Learn: TypeAlias = Callable[[Iterable[pb.Learned], Answer], None]


def nobody_learns(lessons: Iterable[pb.Learned], answer: Answer) -> None:
    """Where no addresses are opened by name, none has to be waited for."""
    answer([one.number for one in lessons if one.number], [])


class Reports:
    """The service. `learn` takes lessons, and answers each that has a number, now or later."""

    def __init__(self, flows: Flows, learn: Learn) -> None:
        self._flows = flows
        self._learn = learn
        self._is_open = False
        self._streams: dict[_Stream, tuple[str, Mapping[str, int]]] = {}  # of each: who, and its counters
        self._ended: Counter[tuple[str, str]] = Counter()  # counters of streams that have ended

    def open(self) -> None:
        """Lessons are answered from now on: all that an earlier agent had opened is in force. Harmless again."""
        self._is_open = True
        for stream in self._streams:
            stream.open()

    def handler(self) -> grpc.GenericRpcHandler:
        """To be registered on the server of xds.sock."""
        method = grpc.stream_stream_rpc_method_handler(
            self._report,
            request_deserializer=pb.Batch.FromString,
            response_serializer=pb.Answers.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Report": method})

    @property
    def counters(self) -> Mapping[tuple[str, str], int]:
        """(proxy, what) -> how often, over all lives of the proxies that this agent has seen."""
        whole = Counter(self._ended)
        for proxy, counts in self._streams.values():
            whole.update({(proxy, what): count for what, count in counts.items()})
        return whole

    async def _report(self, requests: Any, context: Context) -> None:
        await context.send_initial_metadata(())  # whoever waits for an agent has found one
        stream = _Stream(self._flows, self._learn)
        self._streams[stream] = ("", {})
        if self._is_open:
            stream.open()
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(stream.answer(context))
                while (batch := await context.read()) is not grpc.aio.EOF:
                    stream.take(batch)
                    self._streams[stream] = (stream.proxy, stream.counters)
                answering.cancel()
        finally:
            proxy, counts = self._streams.pop(stream)
            self._ended.update({(proxy, what): count for what, count in counts.items()})


class _Stream:
    """One process that tells."""

    def __init__(self, flows: Flows, learn: Learn) -> None:
        self._flows = flows
        self._learn = learn
        self._answers = pb.Answers()
        self._due = asyncio.Event()
        self._is_open = False
        self.proxy = ""
        self.counters: Mapping[str, int] = {}

    def open(self) -> None:
        """Say, once, that lessons are answered."""
        if not self._is_open:
            self._is_open = True
            self._due.set()

    def take(self, batch: pb.Batch) -> None:
        self.proxy = batch.proxy or self.proxy
        if batch.learned:  # somebody may wait for these
            self._learn(batch.learned, self._answered)
        if batch.HasField("dns"):
            self._flows.packed(_packed(batch.dns, dns_records))
        if batch.HasField("kafka"):
            self._flows.packed(_packed(batch.kafka, kafka_records))
        if batch.counters:
            self.counters = dict(batch.counters)

    async def answer(self, context: Context) -> None:
        """What has become of lessons, as it becomes known. Bounded by what the proxy holds open."""
        while True:
            await self._due.wait()
            self._due.clear()
            answers, self._answers = self._answers, pb.Answers()
            await context.write(answers)

    def _answered(self, in_force: Sequence[int], cannot_be: Sequence[int]) -> None:
        self._answers.in_force.extend(in_force)
        self._answers.cannot_be.extend(cannot_be)
        self._due.set()


def _packed(records: pb.Records, read: Callable[[bytes], Sequence[Parsed]]) -> Packed:
    packed, requests, counts = records.packed, records.requests, records.counts
    return Packed(
        records.flows, records.denials, lambda: read(packed), lambda: list(zip(read(requests), counts, strict=True))
    )
