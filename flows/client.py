"""A client of the Hubble API: any server's, ours or not. Servers are named as in flows.channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from observer import observer_pb2, observer_pb2_grpc
from peer import peer_pb2, peer_pb2_grpc

from flows.channels import Dial, dialled
from flows.printer import Printer

HEALTH_SERVICE = "hubble.server.Observer"
TIMEOUT = 12.0  # seconds for an answer that is no stream, as hubble has it
Server = str | Dial


class ClientError(Exception):
    """The server is not there, or refused; one line for the user."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """`state` is "SERVING" for a healthy server; only such a one is asked for its status."""

    state: str
    status: observer_pb2.ServerStatusResponse | None


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    """A channel; what goes wrong on it is a ClientError."""
    dial = server if isinstance(server, Dial) else Dial(server)
    try:
        async with dialled(dial) as channel:
            yield channel
    except grpc.aio.AioRpcError as error:
        raise ClientError(_reason(dial, error)) from None
    except OSError as error:
        raise ClientError(f"{error.filename or dial}: {error.strerror or error}") from None


async def observe(
    server: Server, request: observer_pb2.GetFlowsRequest
) -> AsyncIterator[observer_pb2.GetFlowsResponse]:
    """What the server answers to GetFlows, until it ends or the caller stops. Raises ClientError."""
    async with _connected(server) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        async for response in stub.GetFlows(request):
            yield response


async def observe_agent(
    server: Server, request: observer_pb2.GetAgentEventsRequest
) -> AsyncIterator[observer_pb2.GetAgentEventsResponse]:
    """What the server answers to GetAgentEvents, until it ends or the caller stops. Raises ClientError."""
    async with _connected(server) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        async for response in stub.GetAgentEvents(request):
            yield response


async def observe_peers(server: Server) -> AsyncIterator[peer_pb2.ChangeNotification]:
    """The nodes that the server tells of, and what changes, until the caller stops. Raises ClientError."""
    async with _connected(server) as channel:
        stub = peer_pb2_grpc.PeerStub(channel)  # type: ignore[no-untyped-call]
        async for notification in stub.Notify(peer_pb2.NotifyRequest()):
            yield notification


async def ask_nodes(server: Server) -> observer_pb2.GetNodesResponse:
    """The nodes that the server knows. Raises ClientError."""
    async with _connected(server) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        answer: observer_pb2.GetNodesResponse = await stub.GetNodes(observer_pb2.GetNodesRequest(), timeout=TIMEOUT)
        return answer


async def ask_namespaces(server: Server) -> observer_pb2.GetNamespacesResponse:
    """The namespaces of flows that the server has seen. Raises ClientError."""
    async with _connected(server) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        asked = stub.GetNamespaces(observer_pb2.GetNamespacesRequest(), timeout=TIMEOUT)
        answer: observer_pb2.GetNamespacesResponse = await asked
        return answer


async def ask_status(server: Server) -> ServerState:
    """Whether the server is healthy, and its status. Raises ClientError."""
    async with _connected(server) as channel:
        question = health_pb2.HealthCheckRequest(service=HEALTH_SERVICE)
        health = await health_pb2_grpc.HealthStub(channel).Check(question, timeout=TIMEOUT)
        state = health_pb2.HealthCheckResponse.ServingStatus.Name(health.status)
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            return ServerState(state, None)
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        status = await stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=TIMEOUT)
    return ServerState(state, status)


async def print_flows(
    server: Server,
    request: observer_pb2.GetFlowsRequest,
    printer: Printer,
    write: Callable[[str], None],
    warn: Callable[[str], None] = lambda text: None,
) -> None:
    """Print what a request brings, as it comes: `write` gets output, `warn` notices about nodes. Raises ClientError."""
    try:
        async for response in observe(server, request):
            if text := printer.text(response):
                write(text)
            if text := printer.notice(response):
                warn(text)
    finally:
        if text := printer.close():
            write(text)


def _reason(dial: Dial, error: grpc.aio.AioRpcError) -> str:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        if dial.secure is not None and any(
            word in details for word in ("SSL", "handshake", "certificate", "CERTIFICATE", "check peer")
        ):
            return f"{dial}: no agreement on TLS: {details.strip()}"
        return f"no flows from {dial}: nobody answers there; is 'deflector run' running, and is this its address?"
    if code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT):
        return details
    return f"{dial}: {code.name}: {details}"
