"""What the relay serves: the observer of all nodes, and its own health."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from observer import observer_pb2
from relay import relay_pb2

from flows.relay.fan import Fan
from flows.relay.peers import Peer, Peers
from flows.relay.pool import Pool, is_cancelled
from flows.rpc.call import Call, Method
from flows.rpc.methods import answering, health_methods, parsed, reflection_methods, refusing

OBSERVER: Final = "observer.Observer"
VERSION_HEADER: Final = "hubble-relay-version"
UNARY_TIMEOUT: Final = 5.0  # seconds that a node has to answer
NAMES_MAX: Final = 10  # unavailable nodes that a status names
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
            f"/{OBSERVER}/ServerStatus": answering(self.status, self._headers),
            f"/{OBSERVER}/GetNodes": answering(self.nodes, self._headers),
            f"/{OBSERVER}/GetNamespaces": answering(self.namespaces, self._headers),
            f"/{OBSERVER}/GetAgentEvents": refusing("GetAgentEvents not yet implemented"),
            f"/{OBSERVER}/GetDebugEvents": refusing("GetDebugEvents not yet implemented"),
            **health_methods(self.is_healthy),
            **reflection_methods((OBSERVER,)),
        }

    async def _get_flows(self, call: Call) -> None:
        request = parsed(observer_pb2.GetFlowsRequest(), await call.message())
        call.open(self._headers)
        metadata = [(k, v) for k, v in call.headers.items() if not k.startswith((":", "grpc-")) and k not in _OWN]
        async with aclosing(Fan(self._pool, request, self._name, metadata).batches()) as batches:
            async for batch in batches:
                await call.send(batch)

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

    async def is_healthy(self) -> bool:
        """Whether the nodes are told of, and one of them at least is connected."""
        return self._peers.is_connected and bool((await self._pool.connected())[0])


async def _ask(connected: grpc.aio.Channel, method: str) -> bytes | None:
    try:
        answer: bytes = await connected.unary_unary(f"/{OBSERVER}/{method}")(b"", timeout=UNARY_TIMEOUT)
    except grpc.aio.AioRpcError:
        return None
    except (asyncio.CancelledError, grpc.aio.UsageError):
        if is_cancelled():
            raise
        return None
    return answer
