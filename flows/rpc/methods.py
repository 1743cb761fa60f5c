"""Methods that every server of ours has, and pieces that they are made of: health, reflection, simple answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from flows.rpc.call import Call, Method
from flows.rpc.framing import Code, Refusal

HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
HEALTHY: Final = ("", "hubble.server.Observer")  # the second is what `hubble status` asks for
HEALTH_EVERY: Final = 5.0  # seconds between two looks at whether it has changed
# Both are the same on the wire; grpcio-reflection knows v1alpha only.
REFLECTIONS: Final = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")

Headers = Iterable[tuple[str, str]]
Healthy = Callable[[], Awaitable[bool]]
M = TypeVar("M", bound=Message)


def parsed(into: M, wire: bytes) -> M:
    """A request. Raises Refusal."""
    try:
        into.ParseFromString(wire)
    except DecodeError:
        raise Refusal(Code.INTERNAL, f"the request is no {into.DESCRIPTOR.full_name}") from None
    return into


def answering(ask: Callable[[], Awaitable[Message]], headers: Headers = ()) -> Method:
    """A method whose request says nothing and whose answer is one message."""

    async def answer(call: Call) -> None:
        await call.message()
        call.open(headers)
        await call.send([(await ask()).SerializeToString()])

    return answer


def refusing(words: str) -> Method:
    """A method that is not there, for this reason."""

    async def refuse(call: Call) -> None:
        raise Refusal(Code.UNIMPLEMENTED, words)

    return refuse


async def always() -> bool:
    """Whoever runs is healthy."""
    return True


def health_methods(is_healthy: Healthy = always) -> dict[str, Method]:
    """grpc.health.v1 by path."""

    async def check(call: Call) -> None:
        service = parsed(health_pb2.HealthCheckRequest(), await call.message()).service
        if service not in HEALTHY:
            raise Refusal(Code.NOT_FOUND, f"unknown service {service}")
        await call.send([_health("SERVING" if await is_healthy() else "NOT_SERVING")])

    async def watch(call: Call) -> None:
        known, told = parsed(health_pb2.HealthCheckRequest(), await call.message()).service in HEALTHY, ""
        while True:
            state = ("SERVING" if await is_healthy() else "NOT_SERVING") if known else "SERVICE_UNKNOWN"
            if state != told:
                await call.send([_health(state)])
                told = state
            await asyncio.sleep(HEALTH_EVERY)

    return {f"/{HEALTH}/Check": check, f"/{HEALTH}/Watch": watch}


def _health(status: str) -> bytes:
    wire: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return wire


def reflection_methods(services: Iterable[str]) -> dict[str, Method]:
    """Server reflection of these services, by path."""
    servicer = reflection.aio.ReflectionServicer((*services, HEALTH, reflection.SERVICE_NAME))

    async def requests(call: Call) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        async for message in call.messages():
            yield parsed(reflection_pb2.ServerReflectionRequest(), message)

    async def reflect(call: Call) -> None:
        async for response in servicer.ServerReflectionInfo(requests(call), None):
            await call.send([response.SerializeToString()])

    return {f"/{service}/ServerReflectionInfo": reflect for service in REFLECTIONS}
