"""A client of the Hubble API: any server's, ours or not. Servers are named as in flows.channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from observer import observer_pb2, observer_pb2_grpc
from peer import peer_pb2, peer_pb2_grpc

from flows.channels import UNIX, Dial, dialled
from flows.printer import Printer

TLS_WORDS = ("SSL", "handshake", "certificate", "CERTIFICATE", "check peer")  # in what gRPC says of a connection
NOBODY_WORDS = ("refused", "No such file", "No route", "unreachable", "DNS", "resolution", "Timeout", "timed out")
CLOSED_WORDS = ("Socket closed", "reset by peer", "Broken pipe", "EOF")
HEALTH_SERVICE = "hubble.server.Observer"
Server = str | Dial


class ClientError(Exception):
    """The server is not there, or refused; one line for the user."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """`state` is "SERVING" for a healthy server; only such a one is asked for its status."""

    state: str
    status: observer_pb2.ServerStatusResponse | None


class _Connected:
    """A channel, and what goes with each call on it."""

    def __init__(self, channel: grpc.aio.Channel, dial: Dial) -> None:
        self.observer = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        self.peer = peer_pb2_grpc.PeerStub(channel)  # type: ignore[no-untyped-call]
        self.health = health_pb2_grpc.HealthStub(channel)
        self.stream: dict[str, Any] = (
            {"metadata": (("authorization", dial.authorization),)} if dial.authorization else {}
        )
        self.unary = self.stream | {"timeout": dial.request_timeout}


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[_Connected]:
    """A connection; what goes wrong on it is a ClientError."""
    dial = server if isinstance(server, Dial) else Dial(server)
    try:
        async with dialled(dial) as channel:
            await _reach(channel, dial)
            yield _Connected(channel, dial)
    except grpc.aio.AioRpcError as error:
        raise ClientError(_reason(dial, error)) from None
    except OSError as error:
        raise ClientError(f"{error.filename or dial}: {error.strerror or error}") from None


async def observe(
    server: Server, request: observer_pb2.GetFlowsRequest
) -> AsyncIterator[observer_pb2.GetFlowsResponse]:
    """What the server answers to GetFlows, until it ends or the caller stops. Raises ClientError."""
    async with _connected(server) as there:
        async for response in there.observer.GetFlows(request, **there.stream):
            yield response


async def observe_agent(
    server: Server, request: observer_pb2.GetAgentEventsRequest
) -> AsyncIterator[observer_pb2.GetAgentEventsResponse]:
    """What the server answers to GetAgentEvents, until it ends or the caller stops. Raises ClientError."""
    async with _connected(server) as there:
        async for response in there.observer.GetAgentEvents(request, **there.stream):
            yield response


async def observe_peers(server: Server) -> AsyncIterator[peer_pb2.ChangeNotification]:
    """The nodes that the server tells of, and what changes, until the caller stops. Raises ClientError."""
    async with _connected(server) as there:
        async for notification in there.peer.Notify(peer_pb2.NotifyRequest(), **there.stream):
            yield notification


async def ask_nodes(server: Server) -> observer_pb2.GetNodesResponse:
    """The nodes that the server knows. Raises ClientError."""
    async with _connected(server) as there:
        asked = there.observer.GetNodes(observer_pb2.GetNodesRequest(), **there.unary)
        answer: observer_pb2.GetNodesResponse = await asked
        return answer


async def ask_namespaces(server: Server) -> observer_pb2.GetNamespacesResponse:
    """The namespaces of flows that the server has seen. Raises ClientError."""
    async with _connected(server) as there:
        asked = there.observer.GetNamespaces(observer_pb2.GetNamespacesRequest(), **there.unary)
        answer: observer_pb2.GetNamespacesResponse = await asked
        return answer


async def ask_status(server: Server) -> ServerState:
    """Whether the server is healthy, and its status. Raises ClientError."""
    async with _connected(server) as there:
        question = health_pb2.HealthCheckRequest(service=HEALTH_SERVICE)
        health = await there.health.Check(question, **there.unary)
        state = health_pb2.HealthCheckResponse.ServingStatus.Name(health.status)
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            return ServerState(state, None)
        status = await there.observer.ServerStatus(observer_pb2.ServerStatusRequest(), **there.unary)
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


async def _reach(channel: grpc.aio.Channel, dial: Dial) -> None:
    """Wait until there is a connection, or none can be made: then the call will say why. Raises ClientError."""
    try:
        async with asyncio.timeout(dial.timeout):
            state = channel.get_state(try_to_connect=True)
            while state not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise ClientError(
            f"{dial}: no connection within {dial.timeout:g} s; is this its address, and may it be reached from here?"
        ) from None


def _reason(dial: Dial, error: grpc.aio.AioRpcError) -> str:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(dial, details.strip())
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{dial}: no answer within {dial.request_timeout:g} s"
    if code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT):
        return details
    return f"{dial}: {code.name}: {details}"


def _unavailable(dial: Dial, details: str) -> str:
    if dial.secure is not None and any(word in details for word in TLS_WORDS):
        return f"{dial}: no agreement on TLS: {details}"
    if any(word in details for word in NOBODY_WORDS) or dial.target.startswith(UNIX):
        return f"no flows from {dial}: nobody answers there; is 'deflector run' running, and is this its address?"
    if not any(word in details for word in CLOSED_WORDS):
        return f"{dial}: {details}"
    closed = f"{dial}: who listens there has closed the connection"
    if dial.secure is None:
        return f"{closed}; if that is all it ever says: does it speak TLS (--tls)?"
    if dial.secure.certificate is None:
        return f"{closed}; if that is all it ever says: does it want a certificate (--tls-client-cert-file)?"
    return closed
