"""A client of the Hubble API: any server's, ours or not. Targets are `unix:///path` or `host:port`, without TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from observer import observer_pb2, observer_pb2_grpc

from flows.printer import Printer

HEALTH_SERVICE = "hubble.server.Observer"
TIMEOUT = 12.0  # seconds for an answer that is no stream, as hubble has it
MESSAGE_MAX = 16 << 20  # bytes


class ClientError(Exception):
    """The server is not there, or refused; one line for the user."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """`state` is "SERVING" for a healthy server; only such a one is asked for its status."""

    state: str
    status: observer_pb2.ServerStatusResponse | None


def _channel(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, options=(("grpc.max_receive_message_length", MESSAGE_MAX),))


async def observe(target: str, request: observer_pb2.GetFlowsRequest) -> AsyncIterator[observer_pb2.GetFlowsResponse]:
    """What the server answers to GetFlows, until it ends or the caller stops. Raises ClientError."""
    async with _channel(target) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        try:
            async for response in stub.GetFlows(request):
                yield response
        except grpc.aio.AioRpcError as error:
            raise ClientError(_reason(target, error)) from None


async def observe_agent(
    target: str, request: observer_pb2.GetAgentEventsRequest
) -> AsyncIterator[observer_pb2.GetAgentEventsResponse]:
    """What the server answers to GetAgentEvents, until it ends or the caller stops. Raises ClientError."""
    async with _channel(target) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        try:
            async for response in stub.GetAgentEvents(request):
                yield response
        except grpc.aio.AioRpcError as error:
            raise ClientError(_reason(target, error)) from None


async def ask_status(target: str) -> ServerState:
    """Whether the server is healthy, and its status. Raises ClientError."""
    async with _channel(target) as channel:
        try:
            question = health_pb2.HealthCheckRequest(service=HEALTH_SERVICE)
            health = await health_pb2_grpc.HealthStub(channel).Check(question, timeout=TIMEOUT)
            state = health_pb2.HealthCheckResponse.ServingStatus.Name(health.status)
            if health.status != health_pb2.HealthCheckResponse.SERVING:
                return ServerState(state, None)
            stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
            status = await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise ClientError(_reason(target, error)) from None
    return ServerState(state, status)


async def print_flows(
    target: str,
    request: observer_pb2.GetFlowsRequest,
    printer: Printer,
    write: Callable[[str], None],
    warn: Callable[[str], None] = lambda text: None,
) -> None:
    """Print what a request brings, as it comes: `write` gets output, `warn` notices about nodes. Raises ClientError."""
    try:
        async for response in observe(target, request):
            if text := printer.text(response):
                write(text)
            if text := printer.notice(response):
                warn(text)
    finally:
        if text := printer.close():
            write(text)


def _reason(target: str, error: grpc.aio.AioRpcError) -> str:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"no flows from {target}: nobody answers there; is 'deflector run' running, and is this its address?"
    if code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT):
        return details
    return f"{target}: {code.name}: {details}"
