"""The Hubble API on the wire: observer, health and reflection, on Unix sockets and TCP, without TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from observer import observer_pb2

from flows.filters import FilterError
from flows.mask import MaskError
from flows.observer import Observer
from flows.reading import RequestError, compile_request
from flows.rpc.call import Call, Method
from flows.rpc.framing import Code, Refusal
from flows.rpc.server import Server

OBSERVER = observer_pb2.DESCRIPTOR.services_by_name["Observer"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
HEALTHY = ("", "hubble.server.Observer")  # the second is what `hubble status` asks for
# Both are the same on the wire; grpcio-reflection knows v1alpha only.
REFLECTIONS = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")
# Clients compare major.minor with their own and warn when the server's is higher; 0.0 makes none of them warn, also
# those that were built without a version. What follows + takes no part in comparisons.
VERSION_HEADER = "hubble-server-version"
M = TypeVar("M", bound=Message)


class ServeError(Exception):
    """An address cannot be served; one line that says what to do."""


async def start(observer: Observer, addresses: Sequence[str]) -> Server:
    """Serve on `unix:///path` and `host:port` addresses; the caller stops the server. Raises ServeError."""
    server = Server(methods(observer))
    for address in addresses:
        try:
            await server.listen(address)
        except (OSError, ValueError, OverflowError):
            await server.stop(None)
            raise ServeError(
                f"cannot serve the Hubble API on {address}: in use or not permitted; choose another address"
            ) from None
    return server


def methods(observer: Observer) -> dict[str, Method]:
    """Everything that is served, by path."""
    reflect = _reflecting()
    return {
        **{f"/{OBSERVER}/{name}": method for name, method in ObserverService(observer).methods().items()},
        f"/{HEALTH}/Check": _check_health,
        f"/{HEALTH}/Watch": _watch_health,
        **{f"/{service}/ServerReflectionInfo": reflect for service in REFLECTIONS},
    }


class ObserverService:
    """The observer.Observer service."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._headers = ((VERSION_HEADER, f"0.0.0+deflector-{observer.version}"),)

    def methods(self) -> dict[str, Method]:
        """By name."""
        return {
            "GetFlows": self._get_flows,
            "ServerStatus": self._answering(self._observer.status),
            "GetNodes": self._answering(self._observer.nodes),
            "GetNamespaces": self._answering(self._observer.namespaces),
            "GetAgentEvents": _not_implemented("GetAgentEvents"),
            "GetDebugEvents": _not_implemented("GetDebugEvents"),
        }

    async def _get_flows(self, call: Call) -> None:
        request = _parsed(observer_pb2.GetFlowsRequest(), await call.message())
        try:
            reading = compile_request(request)
        except RequestError as error:
            raise Refusal(Code.INVALID_ARGUMENT, str(error)) from None
        except (FilterError, MaskError) as error:
            # UNKNOWN, since hubble prints the message of such an error without wrapping
            raise Refusal(Code.UNKNOWN, str(error)) from None
        call.open(self._headers)
        async with aclosing(self._observer.flows(reading)) as batches:
            async for batch in batches:
                await call.send(batch)

    def _answering(self, ask: Callable[[], Awaitable[Message]]) -> Method:
        async def answer(call: Call) -> None:
            await call.message()
            call.open(self._headers)
            await call.send([(await ask()).SerializeToString()])

        return answer


def _not_implemented(name: str) -> Method:
    async def refuse(call: Call) -> None:
        raise Refusal(Code.UNIMPLEMENTED, f"{name} not implemented")

    return refuse


def _parsed(into: M, wire: bytes) -> M:
    try:
        into.ParseFromString(wire)
    except DecodeError:
        raise Refusal(Code.INTERNAL, f"the request is no {into.DESCRIPTOR.full_name}") from None
    return into


async def _check_health(call: Call) -> None:
    service = _parsed(health_pb2.HealthCheckRequest(), await call.message()).service
    if service not in HEALTHY:
        raise Refusal(Code.NOT_FOUND, f"unknown service {service}")
    await call.send([_health("SERVING")])


async def _watch_health(call: Call) -> None:
    """Health does not change: whoever runs is healthy."""
    known = _parsed(health_pb2.HealthCheckRequest(), await call.message()).service in HEALTHY
    await call.send([_health("SERVING" if known else "SERVICE_UNKNOWN")])
    await asyncio.Event().wait()


def _health(status: str) -> bytes:
    wire: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return wire


def _reflecting() -> Method:
    servicer = reflection.aio.ReflectionServicer((OBSERVER, HEALTH, reflection.SERVICE_NAME))

    async def requests(call: Call) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        async for message in call.messages():
            yield _parsed(reflection_pb2.ServerReflectionRequest(), message)

    async def reflect(call: Call) -> None:
        async for response in servicer.ServerReflectionInfo(requests(call), None):
            await call.send([response.SerializeToString()])

    return reflect
