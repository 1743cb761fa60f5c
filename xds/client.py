"""The other end of the wire, for our own proxies: an ADS stream to the agent, in delta, as long as the proxy lives.

What comes is decoded to IR, applied, and only then acknowledged; what cannot be applied is refused with the reason, and
changes nothing. While the agent is away the proxy goes on with what it holds, and claims it when the agent is back, so
that it hears of what has gone meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from policies.ir import Listening
from xds.l7 import DNS_PROXY, KAFKA_PROXY, DnsNode, read_dns_options, read_kafka_options, read_listener
from xds.options import KafkaSettings
from xds.resources import DNS_OPTIONS, KAFKA_OPTIONS, LISTENER

log = logging.getLogger(__name__)

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
RETRY_BASE_S, RETRY_MAX_S = 0.1, 1.0  # as Envoy's (xds.bootstrap)
CHANNEL: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)
# What a call raises that has ended, or ends: the second where something was to be written.
ENDED: Final = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
CLAIMED: Final = "claimed"  # the version of what was held before the stream; the server tells it again, or that it went
INVALID_ARGUMENT: Final = 3  # google.rpc.Code
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {DNS_PROXY: (DNS_OPTIONS,), KAFKA_PROXY: (KAFKA_OPTIONS,)}


@dataclass(frozen=True, slots=True)
class Told:
    """All that a proxy is to hold at one moment; slots sorted by name."""

    listening: tuple[Listening, ...] = ()
    dns: DnsNode = field(default_factory=DnsNode)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)


Apply: TypeAlias = Callable[[Told], Awaitable[None]]  # ValueError: it cannot be, and nothing has changed


@dataclass(frozen=True, slots=True)
class _World:
    """What is held, and as which bytes it came."""

    slots: Mapping[str, Listening] = field(default_factory=dict)
    bodies: Mapping[str, bytes] = field(default_factory=dict)  # of slots
    dns: DnsNode = field(default_factory=DnsNode)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)

    @property
    def told(self) -> Told:
        return Told(tuple(self.slots[name] for name in sorted(self.slots)), self.dns, self.kafka)

    def after(self, response: DeltaDiscoveryResponse) -> _World:
        """The world that the response makes of this one; ValueError names what cannot be read."""
        if response.type_url == DNS_OPTIONS:
            last = [_read(read_dns_options, one.name, one.resource.value) for one in response.resources]
            return replace(self, dns=last[-1] if last else DnsNode())
        if response.type_url == KAFKA_OPTIONS:
            told = [_read(read_kafka_options, one.name, one.resource.value) for one in response.resources]
            return replace(self, kafka=told[-1] if told else KafkaSettings())
        slots, bodies = dict(self.slots), dict(self.bodies)
        for name in response.removed_resources:
            slots.pop(name, None)
            bodies.pop(name, None)
        for one in response.resources:
            if bodies.get(one.name) != one.resource.value:
                slots[one.name] = _read(read_listener, one.name, one.resource.value)
                bodies[one.name] = one.resource.value
        return replace(self, slots=slots, bodies=bodies)


class AdsClient:
    """Tells the proxy that asks as `consumer` (xds.l7) what the agent behind this socket publishes for it.

    `holds` is what the proxy has already, e.g. from its disk.
    """

    def __init__(self, socket: Path, node_id: str, consumer: str, apply: Apply, holds: Told | None = None) -> None:
        self._target = f"unix://{socket}"
        self._node_id = node_id
        self._consumer = consumer
        self._apply = apply
        self._types = (*_OPTIONS[consumer], LISTENER)
        had = holds or Told()
        self._world = _World({one.slot.name: one for one in had.listening}, {}, had.dns, had.kafka)
        self._failures = 0
        self.is_connected = False
        self.acks = self.nacks = 0

    async def run(self) -> None:
        """Follow the agent, whichever it is, until cancelled."""
        async with grpc.aio.insecure_channel(self._target, CHANNEL) as channel:
            open_stream = channel.stream_stream(
                METHOD,
                request_serializer=DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=DeltaDiscoveryResponse.FromString,
            )
            while True:
                try:
                    await self._follow(open_stream())
                except ENDED:
                    if self.is_connected:
                        log.info("the agent is away: going on as told")
                finally:
                    self.is_connected = False
                self._failures += 1
                most = min(RETRY_MAX_S, RETRY_BASE_S * 2 ** min(self._failures, 10))
                await asyncio.sleep(random.uniform(most / 2, most))

    async def _follow(self, call: Any) -> None:
        for place, type_url in enumerate(self._types):
            request = DeltaDiscoveryRequest(type_url=type_url)
            if not place:
                request.node.id, request.node.cluster = self._node_id, self._consumer
            if type_url == LISTENER:
                request.initial_resource_versions.update(dict.fromkeys(self._world.slots, CLAIMED))
            await call.write(request)
        while (response := await call.read()) is not grpc.aio.EOF:
            self.is_connected, self._failures = True, 0
            await call.write(await self._answer(response))

    async def _answer(self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest:
        """Apply what came: the ACK, or the NACK with the reason."""
        answer = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        try:
            world = self._world.after(response)
            if world.told != self._world.told:
                await self._apply(world.told)
        except ValueError as refused:
            self.nacks += 1
            log.warning("refused what the agent told: %s", refused)
            answer.error_detail.code, answer.error_detail.message = INVALID_ARGUMENT, str(refused)
            return answer
        self._world = world
        self.acks += 1
        return answer


def _read(read: Callable[[bytes], Any], name: str, body: bytes) -> Any:
    try:
        return read(body)
    except ValueError as refused:
        raise ValueError(f"{name} {refused}") from None
