"""The Hubble API on the wire: observer, health and reflection on grpc.aio, on Unix sockets and TCP, without TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from observer import observer_pb2, observer_pb2_grpc

from flows.filters import FilterError
from flows.mask import MaskError
from flows.observer import Observer
from flows.reading import RequestError, compile_request

HEALTH_SERVICE = "hubble.server.Observer"  # what `hubble status` asks for
# Clients compare major.minor with their own and warn when the server's is higher; 0.0 makes none of them warn, also
# those that were built without a version. What follows + takes no part in comparisons.
VERSION_HEADER = "hubble-server-version"
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"  # grpcio-reflection knows v1alpha only
GRACE = 0.5  # seconds that streams have to end when the server stops
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a busy port must be an error, not half of the connections
)


Context: TypeAlias = "grpc.aio.ServicerContext[Message, Message]"


class ServeError(Exception):
    """An address cannot be served; one line that says what to do."""


class ObserverService(observer_pb2_grpc.ObserverServicer):
    """The observer.Observer service."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._headers = ((VERSION_HEADER, f"0.0.0+deflector-{observer.version}"),)

    async def GetFlows(
        self, request: observer_pb2.GetFlowsRequest, context: Context
    ) -> AsyncIterator[observer_pb2.GetFlowsResponse]:
        try:
            reading = compile_request(request)
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (FilterError, MaskError) as error:
            # UNKNOWN, since hubble prints the message of such an error without wrapping
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        await context.send_initial_metadata(self._headers)
        async for sent in self._observer.flows(reading):
            yield sent

    async def ServerStatus(
        self, request: observer_pb2.ServerStatusRequest, context: Context
    ) -> observer_pb2.ServerStatusResponse:
        await context.send_initial_metadata(self._headers)
        return await self._observer.status()

    async def GetNodes(self, request: observer_pb2.GetNodesRequest, context: Context) -> observer_pb2.GetNodesResponse:
        await context.send_initial_metadata(self._headers)
        return await self._observer.nodes()

    async def GetNamespaces(
        self, request: observer_pb2.GetNamespacesRequest, context: Context
    ) -> observer_pb2.GetNamespacesResponse:
        await context.send_initial_metadata(self._headers)
        return await self._observer.namespaces()

    async def GetAgentEvents(
        self, request: observer_pb2.GetAgentEventsRequest, context: Context
    ) -> AsyncIterator[observer_pb2.GetAgentEventsResponse]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "GetAgentEvents not implemented")
        yield observer_pb2.GetAgentEventsResponse()  # makes it a stream

    async def GetDebugEvents(
        self, request: observer_pb2.GetDebugEventsRequest, context: Context
    ) -> AsyncIterator[observer_pb2.GetDebugEventsResponse]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "GetDebugEvents not implemented")
        yield observer_pb2.GetDebugEventsResponse()


async def start(observer: Observer, addresses: Sequence[str]) -> grpc.aio.Server:
    """Serve on `unix:///path` and `host:port` addresses; the caller stops the server. Raises ServeError."""
    server = grpc.aio.server(options=OPTIONS)
    observer_pb2_grpc.add_ObserverServicer_to_server(ObserverService(observer), server)  # type: ignore[no-untyped-call]
    await _add_health(server)
    _add_reflection(server)
    for address in addresses:
        try:
            bound = server.add_insecure_port(address)
        except RuntimeError:
            bound = 0
        if not bound:
            await server.stop(None)
            raise ServeError(
                f"cannot serve the Hubble API on {address}: in use or not permitted; choose another address"
            )
    await server.start()
    return server


async def serve(observer: Observer, addresses: Sequence[str]) -> None:
    """Serve until cancelled. Raises ServeError."""
    server = await start(observer, addresses)
    try:
        await server.wait_for_termination()
    finally:
        await asyncio.shield(server.stop(GRACE))


async def _add_health(server: grpc.aio.Server) -> None:
    servicer = health.HealthServicer()
    for name in ("", HEALTH_SERVICE):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def _add_reflection(server: grpc.aio.Server) -> None:
    """Both versions of the service: their messages are the same on the wire."""
    names = (
        observer_pb2.DESCRIPTOR.services_by_name["Observer"].full_name,
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
        reflection.SERVICE_NAME,
    )
    servicer = reflection.aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    newer = grpc.method_handlers_generic_handler(REFLECTION_V1, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((newer,))
