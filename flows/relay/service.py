"""What the relay serves: the observer of all nodes, and its own health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from observer import observer_pb2
from relay import relay_pb2

from flows.relay.fan import Fan
from flows.relay.peers import Peer, Peers
from flows.relay.pool import Pool
from flows.rpc.call import Call, Method
from flows.rpc.framing import Code, Refusal

OBSERVER: Final = "observer.Observer"
HEALTHY: Final = ("", "hubble.server.Observer")
VERSION_HEADER: Final = "hubble-relay-version"
UNARY_TIMEOUT: Final = 5.0  # seconds that a node has to answer
NAMES_MAX: Final = 10  # unavailable nodes that a status names
HEALTH_EVERY: Final = 5.0  # seconds between two looks at the health
# Metadata that belongs to this hop.
_OWN: Final = ("te", "content-type", "user-agent", "host")

M = TypeVar("M", bound=Message)


class RelayService:
    """`name` is the relay's, `version` ours without a leading v."""

    def __init__(self, peers: Peers, pool: Pool, name: str, version: str) -> None:
        self._peers, self._pool, self._name, self._version = peers, pool, name, version
        self._headers = ((VERSION_HEADER, f"0.0.0+deflector-{version}"),)

    def methods(self) -> dict[str, Method]:
        """Everything that is served, by path."""
        return {
            f"/{OBSERVER}/GetFlows": self._get_flows,
            f"/{OBSERVER}/ServerStatus": self._answering(self.status),
            f"/{OBSERVER}/GetNodes": self._answering(self.nodes),
            f"/{OBSERVER}/GetNamespaces": self._answering(self.namespaces),
            f"/{OBSERVER}/GetAgentEvents": _not_implemented("GetAgentEvents"),
            f"/{OBSERVER}/GetDebugEvents": _not_implemented("GetDebugEvents"),
            "/grpc.health.v1.Health/Check": self._check_health,
            "/grpc.health.v1.Health/Watch": self._watch_health,
        }

    async def _get_flows(self, call: Call) -> None:
        request = observer_pb2.GetFlowsRequest()
        try:
            request.ParseFromString(await call.message())
        except DecodeError:
            raise Refusal(Code.INTERNAL, "the request is no observer.GetFlowsRequest") from None
        call.open(self._headers)
        metadata = [(k, v) for k, v in call.headers.items() if not k.startswith((":", "grpc-")) and k not in _OWN]
        async with aclosing(Fan(self._pool, request, self._name, metadata).batches()) as batches:
            async for batch in batches:
                await call.send(batch)

    def _answering(self, ask: Callable[[], Awaitable[Message]]) -> Method:
        async def answer(call: Call) -> None:
            await call.message()
            call.open(self._headers)
            await call.send([(await ask()).SerializeToString()])

        return answer

    async def status(self) -> observer_pb2.ServerStatusResponse:
        """The nodes' figures, added up."""
        answers, failed = await self._ask_all("ServerStatus", observer_pb2.ServerStatusResponse)
        total = observer_pb2.ServerStatusResponse(version=f"deflector-relay v{self._version}")
        for answer in answers.values():
            total.num_flows += answer.num_flows
            total.max_flows += answer.max_flows
            total.seen_flows += answer.seen_flows
            total.uptime_ns = max(total.uptime_ns, answer.uptime_ns)
            total.flows_rate += answer.flows_rate
        total.num_connected_nodes.value = len(answers)
        total.num_unavailable_nodes.value = len(failed)
        total.unavailable_nodes.extend(sorted(peer.name for peer in failed)[:NAMES_MAX])
        return total

    async def nodes(self) -> observer_pb2.GetNodesResponse:
        """Every node, also those that do not answer."""
        answers, failed = await self._ask_all("ServerStatus", observer_pb2.ServerStatusResponse)
        found = []
        for peer in sorted([*answers, *failed], key=lambda peer: peer.name):
            node = observer_pb2.Node(name=peer.name, address=peer.address)
            node.tls.enabled, node.tls.server_name = bool(peer.server_name), peer.server_name
            answer = answers.get(peer)
            node.state = relay_pb2.NODE_UNAVAILABLE if answer is None else relay_pb2.NODE_CONNECTED
            if answer is not None:
                for field in ("version", "uptime_ns", "num_flows", "max_flows", "seen_flows"):
                    setattr(node, field, getattr(answer, field))
            found.append(node)
        return observer_pb2.GetNodesResponse(nodes=found)

    async def namespaces(self) -> observer_pb2.GetNamespacesResponse:
        """The namespaces of all nodes, each once."""
        answers, _ = await self._ask_all("GetNamespaces", observer_pb2.GetNamespacesResponse)
        names = {(one.cluster, one.namespace) for answer in answers.values() for one in answer.namespaces}
        found = [observer_pb2.Namespace(cluster=cluster, namespace=name) for cluster, name in sorted(names)]
        return observer_pb2.GetNamespacesResponse(namespaces=found)

    async def _ask_all(self, method: str, kind: type[M]) -> tuple[Mapping[Peer, M], list[Peer]]:
        """The answers of the nodes to a question without arguments, and the nodes that gave none."""
        up, down = await self._pool.connected()
        given = await asyncio.gather(*(_ask(connected, method) for connected in up.values()))
        answers: dict[Peer, M] = {}
        for peer, wire in zip(up, given, strict=True):
            if wire is not None:
                answers[peer] = kind()
                answers[peer].ParseFromString(wire)
        return answers, [*down, *(peer for peer in up if peer not in answers)]

    async def _is_healthy(self) -> bool:
        return self._peers.is_connected and bool((await self._pool.connected())[0])

    async def _check_health(self, call: Call) -> None:
        if _service(await call.message()) not in HEALTHY:
            raise Refusal(Code.NOT_FOUND, "unknown service")
        await call.send([_health("SERVING" if await self._is_healthy() else "NOT_SERVING")])

    async def _watch_health(self, call: Call) -> None:
        known, told = _service(await call.message()) in HEALTHY, ""
        while True:
            state = ("SERVING" if await self._is_healthy() else "NOT_SERVING") if known else "SERVICE_UNKNOWN"
            if state != told:
                await call.send([_health(state)])
                told = state
            await asyncio.sleep(HEALTH_EVERY)


async def _ask(connected: grpc.aio.Channel, method: str) -> bytes | None:
    try:
        answer: bytes = await connected.unary_unary(f"/{OBSERVER}/{method}")(b"", timeout=UNARY_TIMEOUT)
    except grpc.aio.AioRpcError:
        return None
    return answer


def _not_implemented(name: str) -> Method:
    async def refuse(call: Call) -> None:
        raise Refusal(Code.UNIMPLEMENTED, f"{name} not yet implemented")

    return refuse


def _service(wire: bytes) -> str:
    try:
        service: str = health_pb2.HealthCheckRequest.FromString(wire).service
    except DecodeError:
        raise Refusal(Code.INTERNAL, "the request is no HealthCheckRequest") from None
    return service


def _health(status: str) -> bytes:
    wire: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return wire
