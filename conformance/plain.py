"""Probes by sockets alone, from the network namespace that this process is in: where curl and ping are not at hand."""

from __future__ import annotations

from dataclasses import dataclass

from conformance import http2, rpc, wire
from conformance.expectation import ECHO, Answer
from conformance.http1 import authority
from conformance.scenario import GRPC, WEBSOCKET, Request
from conformance.wire import Way

HERE = ""  # the network namespace that we are in


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is asked, from which address to which. `patience` in seconds; `icmp_type` is -1 for a ping."""

    protocol: str
    local: tuple[str, int]
    remote: tuple[str, int]
    patience: float
    request: Request | None = None
    icmp_type: int = -1

    @property
    def way(self) -> Way:
        return Way(HERE, self.local, self.remote)


async def ask(attempt: Attempt) -> Answer:
    """Make the attempt and say how it ended; never raises."""
    way, patience = attempt.way, attempt.patience
    if attempt.protocol == "icmp":
        family = 6 if ":" in attempt.remote[0] else 4
        return await wire.icmp(way, attempt.icmp_type if attempt.icmp_type >= 0 else ECHO[family], patience)
    if attempt.protocol == "udp":
        return await wire.datagram(way, patience)
    if attempt.protocol == "sctp":
        return await wire.sctp(way, patience)
    request = attempt.request or Request()
    host = authority(*attempt.remote)
    if request.http == WEBSOCKET and not request.raw:
        return await wire.upgrade(way, request, host, patience)
    if request.http == GRPC and not request.raw:
        return await rpc.call(way, request, host, patience)
    if request.http == "2" and not request.raw:
        return await wire.bounded(_over_http2(way, request, host), patience)
    return await wire.say(way, request, host, patience)


async def _over_http2(way: Way, request: Request, host: str) -> Answer:
    reader, writer = await way.stream()
    try:
        return await http2.ask(reader, writer, request, host)
    finally:
        writer.close()
